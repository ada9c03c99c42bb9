"""Runs the tests that are named one after the other; or all, two modules at a time. Ends with 'N passed, M failed, K skipped'."""
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lab

# Tests wait more than they work.
LANES = 2


class Result(unittest.TextTestResult):
    passed = 0

    def startTest(self, test):
        self._started = time.monotonic()
        unittest.TestResult.startTest(self, test)

    def _line(self, word, test, more=""):
        seconds = time.monotonic() - self._started
        self.stream.write(f"{word:5} {seconds:5.1f} s  {test.id()}{more}\n")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.passed += 1
        self._line("ok", test)

    def addFailure(self, test, error):
        unittest.TestResult.addFailure(self, test, error)
        self._line("FAIL", test)

    def addError(self, test, error):
        unittest.TestResult.addError(self, test, error)
        self._line("FAIL", test)

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self._line("skip", test, f": {reason}")


def main():
    missing = [str(path) for path in (lab.TURNTABLE, lab.LIGHTPATH, lab.PATTERN, lab.GUESTS / "demo.cpio") if not os.path.exists(path)]
    if missing:
        sys.exit(f"system tests: not built: {', '.join(missing)} (make build guest)")
    if os.getuid() != 0:
        sys.exit("system tests: they make network namespaces (run as root)")
    passed, failed, skipped = one_by_one(sys.argv[1:]) if sys.argv[1:] else side_by_side()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


def one_by_one(names):
    result = unittest.TextTestRunner(stream=sys.stdout, resultclass=Result, verbosity=0).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    return result.passed, len({test.id() for test, _ in result.failures + result.errors}), len(result.skipped)


def side_by_side():
    """Each module by a process of its own, the longest first. Its lines of results come at once, what else it says when it has ended."""
    running = set()

    def stop(number, _):
        for program in running:
            program.send_signal(number)
        os._exit(128 + number)

    def run(module):
        program = subprocess.Popen([sys.executable, "-B", __file__, module.stem], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        running.add(program)
        others = []
        for line in program.stdout:
            if re.match(r"(ok|FAIL|skip) +\d", line):
                print(line, end="", flush=True)
            else:
                others.append(line)
        program.wait()
        running.remove(program)
        counts = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped\n", others.pop() if others else "")
        if any(line.startswith(("FAIL:", "ERROR:")) for line in others) or not counts:
            print("".join(others), end="", flush=True)
        return [int(count) for count in counts.groups()] if counts else [0, 1, 0]

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # By its size, but for a short one that kills every process at every step.
    modules = sorted(Path(__file__).parent.glob("test_*.py"), key=lambda path: (path.stem != "test_sites", -path.stat().st_size))
    with ThreadPoolExecutor(LANES) as lanes:
        return [sum(counts) for counts in zip(*lanes.map(run, modules))]

main()
