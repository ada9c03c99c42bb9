"""Machines that come back to a host that kept their memory: only what differs is sent, whatever became of what was kept."""
import os
import subprocess
from pathlib import Path

import lab
import test_memory
from case import SystemTest

FILLED = "seed=5 fill=1 zero=7 mode=rate start=4 len=2 rate=20 report=64"
MEMORY = ("-m", "32")


class RecycledMemory(SystemTest):
    assert_same_memory = test_memory.MemoryTest.assert_same_memory

    def image(self):
        """Where what was kept of the machine's one region lies."""
        return Path(f"{self.lab.run_directory('source')}-state") / "memory/m/0"

    def leave(self, *options):
        source = self.lab.machine(append=FILLED, memory=MEMORY)
        source.wait_advance()
        receiver = self.lab.receiver_of(append="seed=99", memory=MEMORY)
        sender = self.lab.sender(receiver.address, *options)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        return sender, self.lab.arrival()

    def come_back(self, target, *options, sending=(), meanwhile=lambda sender, receiver: receiver):
        """It is paused for that, so that every page can be compared."""
        target.wait_advance()
        target.stop()
        held = target.memory()
        receiver = self.lab.receiver(*options, "--", *self.lab.command("source", "m", append="seed=99", memory=MEMORY), side="source")
        sender = self.lab.sender(receiver.address, "--peer", "source.test", *sending, side="target")
        receiver = meanwhile(sender, receiver)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        back = self.lab.arrival(side="source")
        self.assert_same_memory(held, back.memory(), at_least=1000)
        report = sender.wait_event("completed")["report"]
        self.assertEqual(report["verification"]["stripesDiffering"], 0)
        return report

    def test_there_and_back(self):
        _, target = self.leave("--keep-memory")
        kept = os.stat(self.image())
        self.assertEqual((kept.st_mode & 0o777, os.stat(self.image().parent).st_mode & 0o777, kept.st_size), (0o600, 0o700, 32 << 20))
        report = self.come_back(target, "--recycle")
        # It wrote 2 MiB of 28 since.
        self.assertGreater(report["olderPages"], 5000, report)
        self.assertLess(report["pagesSent"], 1000, report)
        self.assertFalse(self.image().exists(), "what was kept is the machine's own memory again")

    def test_what_was_kept_is_damaged(self):
        _, target = self.leave("--keep-memory")
        with open(self.image(), "r+b") as file:
            lab.scribble(file.fileno(), 3)
        report = self.come_back(target, "--recycle")
        self.assertGreater(report["pagesSent"], 4000, report)

    def test_its_receiver_is_killed(self):
        """The next one finds the machine with what was kept in it, and what came since."""
        def kill(sender, receiver):
            sender.wait_event("progress")
            self.lab.kill(receiver)
            sender.wait_event("interrupted")
            return self.lab.restart(receiver)
        _, target = self.leave("--keep-memory")
        with open(self.image(), "r+b") as file:
            # Two thirds have to be sent, slowly, and one third stays.
            lab.scribble(file.fileno(), 3)
        report = self.come_back(target, "--recycle", sending=("--rate", "60mbit"), meanwhile=kill)
        self.assertEqual(report["attachments"], 2)
        self.assertGreater(report["olderPages"], 1000, report)

    def test_what_was_kept_is_of_another_size(self):
        _, target = self.leave("--keep-memory")
        os.truncate(self.image(), 16 << 20)
        self.assertEqual(self.come_back(target, "--recycle")["olderPages"], 0)

    def test_nothing_is_kept_or_used_unasked(self):
        _, target = self.leave()
        self.assertFalse(self.image().exists())
        self.image().parent.mkdir(parents=True)
        self.image().write_bytes(bytes(32 << 20))
        self.assertEqual(self.come_back(target)["olderPages"], 0)

    def test_no_room_to_keep_it(self):
        """The machine has left, and that is what counts."""
        state = self.image().parent.parent
        state.mkdir(parents=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", state], capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest(f"no file system of its own: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", state], check=True)
        sender, target = self.leave("--keep-memory")
        self.assertIn("its memory is not kept: keeping 32.0 MiB of memory", sender.transcript())
        self.assertIn("No space left on device", sender.transcript())
        self.assertEqual(os.listdir(state), [])
        target.wait_advance()
