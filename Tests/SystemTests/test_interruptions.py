"""What is killed, cancelled or refused in the middle: the machine runs on where it was, once, and nothing is left over."""
import json
import os
import signal
import socket
import time
import unittest

import lab
from case import SystemTest
from lab import wait_for

# Ten seconds for a machine of 64 MiB: time enough to do something in the middle of it.
SLOW = ("--rate", "50mbit")


class DuringTheCopy(SystemTest):
    def setUp(self):
        super().setUp()
        details = dict(append="fill=1 mode=rate rate=4 len=1 report=64", memory=("-m", "64"))
        self.source, self.receiver = self.move(**details)
        self.details = details
        self.sender = self.lab.sender(self.receiver.address, *SLOW)
        self.sender.wait_event("progress")
        self.receiver.wait_event("phase", phase="copying")

    def assert_given_up(self, send, send_words, receive, receive_words, status="running"):
        """Both ends said why; the machine runs at the source, and only there."""
        if send is not None:
            self.assert_error(self.sender, send, *send_words)
        if receive is not None:
            self.assert_error(self.receiver, receive, *receive_words)
        self.assert_nothing_at_target()
        self.assert_runs_on(self.source, status)

    def move_now(self):
        """After all that, the machine can be moved."""
        receiver = self.lab.receiver_of(**self.details)
        sender = self.lab.sender(receiver.address)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text("PATTERN round")
        # Every offer has an epoch of its own.
        self.assertEqual(self.lab.status(side="target")["epoch"], 3)

    def assert_resumed(self, sender):
        """The migration went on where it was: at most what was on its way went twice."""
        self.lab.arrival().wait_text("PATTERN round")
        report = sender.wait_event("completed")["report"]
        self.assertLess(report["pagesSentAgain"], 3000, sender.transcript())
        self.assertEqual(report["verification"]["stripesDiffering"], 0)
        self.assertEqual(self.lab.status(side="target")["epoch"], 2)
        return report

    def test_interrupt_of_send(self):
        self.sender.signal(signal.SIGINT)
        self.assert_given_up(130, ["cancelled", "runs on here"], 130, ["the source", "cancelled"])
        self.move_now()

    def test_termination_of_send(self):
        self.sender.signal(signal.SIGTERM)
        self.assert_given_up(130, ["cancelled", "runs on here"], 130, ["the source", "cancelled"])

    def test_interrupt_of_receive(self):
        self.receiver.signal(signal.SIGINT)
        self.assert_given_up(3, ["the receiver was interrupted"], 130, ["interrupted"])
        self.move_now()

    def test_termination_of_receive(self):
        self.receiver.signal(signal.SIGTERM)
        self.assert_given_up(3, ["the receiver was interrupted"], 130, ["interrupted"])

    def test_send_is_killed(self):
        wait_for("a third of the machine to be sent", lambda: any(
            event["event"] == "progress" and event["progress"]["pagesLeft"] < 11000 for event in list(self.sender.events)))
        self.sender.signal(signal.SIGKILL)
        self.assertEqual(self.sender.wait(), -signal.SIGKILL)
        self.receiver.wait_event("interrupted")
        self.assertEqual(self.source.status(), "running")
        self.source.wait_advance()
        again = self.lab.sender(self.receiver.address)
        self.assertEqual((again.wait(), self.receiver.wait()), (0, 0), again.transcript() + self.receiver.transcript())
        self.assertIn("an earlier process began", again.wait_event("note")["text"])
        # What the first one sent is not sent by the second: the machine has more than it sends.
        report = self.assert_resumed(again)
        self.assertLess(report["pagesSent"], 16384 * 9 // 10)

    def test_receive_is_killed(self):
        self.receiver.signal(signal.SIGKILL)
        self.assertEqual(self.receiver.wait(), -signal.SIGKILL)
        self.sender.wait_event("interrupted")
        self.source.wait_advance()
        receiver = self.lab.receiver_of(address=self.receiver.address, **self.details)
        self.assertEqual((self.sender.wait(30), receiver.wait()), (0, 0), self.sender.transcript() + receiver.transcript())
        report = self.assert_resumed(self.sender)
        self.assertEqual(report["attachments"], 2)

    def test_qemu_is_killed_at_the_source(self):
        os.kill(self.source.number, signal.SIGKILL)
        self.assert_error(self.sender, 6, "its QEMU died")
        self.assert_error(self.receiver, 130, "the source", "its QEMU died")
        self.assert_nothing_at_target()
        self.assertEqual(self.source.program.wait(), 128 + signal.SIGKILL)
        self.assertIsNone(self.lab.status())

    def test_qemu_is_killed_at_the_target(self):
        os.kill(lab.Machine(self.lab, "target", "m").number, signal.SIGKILL)
        self.assert_given_up(3, ["the target", "its QEMU died"], 6, ["its QEMU died"])

    def test_cancel_and_status(self):
        def pages_left():
            status = self.lab.status()
            self.assertEqual(status["state"], "migrating")
            return json.loads(status["migration"])["progress"]["pagesLeft"]
        first = pages_left()
        wait_for("progress in the status", lambda: pages_left() < first)
        cancel = self.lab.turntable("cancel", "m", "--run-dir", self.lab.run_directory("source"))
        self.assertEqual(cancel.wait(), 0, cancel.transcript())
        self.assertIn("runs on here", cancel.output[0])
        self.assert_given_up(130, ["cancelled", "runs on here"], 130, ["the source", "cancelled"])
        self.assertEqual(self.lab.status()["state"], "here")
        again = self.lab.turntable("cancel", "m", "--run-dir", self.lab.run_directory("source"))
        self.assert_error(again, 2, "not being moved")

    def test_cancel_of_a_paused_machine_leaves_it_paused(self):
        # It was paused before it is sent again, so this end finds it paused, and so must the next.
        self.sender.signal(signal.SIGINT)
        self.assert_error(self.sender, 130, "cancelled")
        self.source.stop()
        receiver = self.lab.receiver_of(**self.details)
        sender = self.lab.sender(receiver.address, *SLOW)
        sender.wait_event("progress")
        sender.signal(signal.SIGINT)
        self.assert_error(sender, 130, "cancelled")
        self.assertEqual(self.source.status(), "paused")

    def test_somebody_pauses_the_machine_meanwhile(self):
        self.source.stop()
        self.assert_error(self.sender, 3, "somebody else", "paused", seconds=30)
        self.assert_error(self.receiver, 130, "somebody else")
        self.assertEqual(self.source.status(), "paused")
        self.assert_nothing_at_target()

    def test_second_send(self):
        second = self.lab.sender(self.receiver.address)
        self.assert_error(second, 3, "being moved already", "status", seconds=5)
        self.assertIsNone(self.sender.process.poll(), "the first goes on")
        self.sender.signal(signal.SIGINT)
        self.assert_given_up(130, ["cancelled"], 130, ["cancelled"])

    def test_second_machine_at_a_receiver_for_one(self):
        self.lab.machine("other", memory=("-m", "16"))
        second = self.lab.sender(self.receiver.address, name="other")
        self.assert_error(second, 3, "busy", seconds=5)
        self.sender.signal(signal.SIGINT)
        self.assert_given_up(130, ["cancelled"], 130, ["cancelled"])


class WithoutAReceiver(SystemTest):
    """An incoming machine whose receiver dies: how long its keeper lets it wait."""

    def setUp(self):
        super().setUp()
        self.machine = self.lab.incoming("1s", memory=("-m", "16"))

    def assert_ends(self, code=0):
        self.assertEqual(self.machine.program.wait(), code, self.machine.program.transcript())
        self.assert_nothing_at_target()

    def assert_waits(self, seconds):
        time.sleep(seconds)
        self.assertIsNone(self.machine.program.process.poll(), self.machine.program.transcript())

    def own_monitor(self):
        return lab.Monitor(self.machine.run_directory / "m" / "qmp.sock")

    def test_it_waits_for_the_window(self):
        lab.Lease(self.machine).close()
        self.assert_waits(0.5)
        self.assert_ends()

    def test_the_next_receiver_has_it_as_long_as_it_lives(self):
        lab.Lease(self.machine).close()
        again = lab.Lease(self.machine)
        self.assert_waits(1.5)
        again.close()
        self.assert_ends()

    def test_one_receiver_at_a_time(self):
        first = lab.Lease(self.machine)
        second = socket.socket(socket.AF_UNIX)
        self.addCleanup(second.close)
        second.settimeout(0.3)
        second.connect(str(self.machine.run_directory / "m" / "lease.sock"))
        with self.assertRaises(TimeoutError):
            second.recv(1)
        first.close()
        self.assertEqual(second.recv(1), b"g")

    def test_the_receiver_ends_it(self):
        lease = lab.Lease(self.machine)
        lease.say(b"e")
        lease.wait_end()
        self.assert_ends()

    def test_it_is_kept(self):
        lease = lab.Lease(self.machine)
        lease.say(b"k")
        lease.close()
        self.assert_waits(1.5)
        self.assertEqual(self.lab.status(side="target")["state"], "incoming")
        self.assertFalse((self.machine.run_directory / "m" / "lease.sock").exists())

    def test_the_receiver_dies_while_it_loads(self):
        lease = lab.Lease(self.machine)
        monitor = self.own_monitor()
        path = str(self.lab.directory / "state")
        monitor.execute("migrate-incoming", uri="unix:" + path)
        state = socket.socket(socket.AF_UNIX)
        state.connect(path)
        # QEVM, version 3, and no more: QEMU ends by itself.
        state.sendall(bytes.fromhex("5145564d00000003"))
        for connection in (state, monitor, lease):
            connection.close()
        self.assert_ends(1)

class WhilePreparing(SystemTest):
    def test_qemu_is_killed_at_the_target(self):
        source, receiver = self.move(append="fill=1 mode=rate rate=4 len=1 report=64")
        ours = str(self.lab.run_directory("target"))

        def young_qemu():
            for number, line in self.lab.processes().items():
                if line.startswith("qemu-system") and ours in line:
                    return number
            return None
        sender = self.lab.sender(receiver.address)
        for _ in range(200_000):
            if number := young_qemu():
                break
        self.assertIsNotNone(number)
        os.kill(number, signal.SIGKILL)
        self.assert_error(sender, 3, "the target", "m")
        self.assertEqual(receiver.wait(), 6, receiver.transcript())
        self.assertNotIn("copying", [event.get("phase") for event in sender.events], "it was too late: the copy had begun")
        self.assert_nothing_at_target()
        self.assert_runs_on(source)

    def test_a_machine_of_that_name_is_at_the_target(self):
        self.lab.machine(side="target", memory=("-m", "16"))
        source, receiver = self.move(append="mode=rate rate=4 len=1 report=64")
        sender = self.lab.sender(receiver.address)
        self.assert_error(sender, 3, "a machine of that name runs at the target")
        self.assert_error(receiver, 3, "a machine of that name runs at the target")
        self.assert_runs_on(source)
        self.assertEqual(self.lab.status(side="target")["state"], "here", "the other one is not touched")


class Budget(SystemTest):
    def test_below_what_the_line_takes(self):
        ends = self.lab.lightpath(rate="1gbit", delay="87.5ms")
        details = dict(append="mode=rate rate=4 len=1 report=64", memory=("-m", "16"))
        source = self.lab.machine(namespace=ends[0], **details)
        receiver = self.lab.receiver_of(address="10.5.0.2:4906", namespace=ends[1], **details)
        sender = self.lab.sender(receiver.address, "--downtime", "1ms", "--rate", "1gbit", namespace=ends[0])
        self.assert_error(sender, 3, "budget 1", "one way 87.", "line 1", "raise --downtime", "runs on here")
        self.assert_error(receiver, 130, "the source", "budget")
        self.assert_nothing_at_target()
        self.assert_runs_on(source)
        self.assertNotIn("paused", [event.get("phase") for event in sender.events], "the machine was paused for nothing")

    def test_guest_that_writes_faster_than_the_line(self):
        ends = self.lab.lightpath(rate="50mbit", delay="5ms")
        details = dict(append="mode=fast len=4 report=16384", memory=("-m", "16"))
        source = self.lab.machine(namespace=ends[0], **details)
        receiver = self.lab.receiver_of(address="10.5.0.2:4906", namespace=ends[1], **details)
        sender = self.lab.sender(receiver.address, "--rate", "50mbit", namespace=ends[0])
        self.assert_error(sender, 3, "does not converge", "guest dirties", "line", "raise --downtime", "runs on here", seconds=40)
        self.assert_error(receiver, 130, "does not converge")
        self.assert_nothing_at_target()
        self.assert_runs_on(source)
        self.assertGreaterEqual(len([event for event in sender.events if event["event"] == "round"]), 4)

    def test_line_that_is_cut(self):
        """Silence is noticed by its length; a shorter limit than the product's is not to be had, so this is the slowest test."""
        ends = self.lab.lightpath(rate="100mbit", delay="5ms")
        details = dict(append="fill=1 mode=rate rate=4 len=1 report=64")
        source = self.lab.machine(namespace=ends[0], **details)
        receiver = self.lab.receiver_of(address="10.5.0.2:4906", namespace=ends[1], **details)
        sender = self.lab.sender(receiver.address, "--rate", "100mbit", namespace=ends[0])
        sender.wait_event("progress")
        cut = self.lab.start(lab.LIGHTPATH, "--control", self.lab.directory / "line.sock", "--tell", "cut")
        self.assertEqual(cut.wait(), 0, cut.transcript())
        before = source.wait_advance()
        for program in (sender, receiver):
            self.assertIn("silent for 30", program.wait_event("interrupted", 50)["why"])
        self.assertEqual(source.status(), "running")
        self.assertGreater(source.writes(), before + 1000, "it worked all the time")
        restore = self.lab.start(lab.LIGHTPATH, "--control", self.lab.directory / "line.sock", "--tell", "restore")
        self.assertEqual(restore.wait(), 0, restore.transcript())
        self.assertEqual((sender.wait(30), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        report = sender.wait_event("completed")["report"]
        self.assertEqual((report["attachments"], report["verification"]["stripesDiffering"]), (2, 0))
        self.lab.arrival().wait_text("PATTERN round")


if __name__ == "__main__":
    unittest.main()
