"""The base of the system tests: a lab a test, and no remains of it."""
import functools
import unittest

import lab


@functools.cache
def kvm_problem():
    return lab.kvm_problem()


class SystemTest(unittest.TestCase):
    def setUp(self):
        self.lab = lab.Lab()
        self.addCleanup(self._close)

    def _close(self):
        problems = self.lab.close()
        self.assertEqual(problems, [], "something is left of the test")

    def need_kvm(self):
        if problem := kvm_problem():
            self.skipTest(problem)

    def move(self, **details):
        """A machine that runs at the source, and a receiver for it."""
        source = self.lab.machine(**details)
        return source, self.lab.receiver_of(**details)

    def assert_error(self, program, code, *words, seconds=lab.WAIT_SECONDS):
        """It ended with that code, and one line on standard error says why."""
        self.assertEqual(program.wait(seconds), code, program.transcript())
        lines = [line for line in program.errors if line.startswith("turntable: ") and "runs, process" not in line]
        self.assertEqual(len(lines), 1, f"one line of error\n{program.transcript()}")
        for word in words:
            self.assertIn(word.lower(), lines[0].lower())

    def assert_runs_on(self, machine, status="running"):
        """The machine is where it was, and works; nothing is left beside it."""
        self.assertEqual(machine.status(), status)
        machine.wait_advance()
        lab.wait_for("the send's remains to go", lambda: self.lab.source_leftovers(machine.name) == [], 5)

    def assert_nothing_at_target(self):
        try:
            lab.wait_for("the target to be clean", lambda: not self.lab.target_leftovers(), 8)
        except lab.Timeout:
            self.assertEqual(self.lab.target_leftovers(), [])
