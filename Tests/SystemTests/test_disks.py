"""Machines that move with their disks: a Linux guest writes its disk in no order that helps, and checks all that it reads; at the
instant of the hand-over the images at both ends are compared byte for byte."""
import json
import mmap
import os
import re
import signal
import subprocess
import time
import unittest
from pathlib import Path

import lab
from case import SystemTest
from lab import wait_for
from test_faults import INSTANTS

MEBIBYTE = 1 << 20
DISK_BYTES = 48 * MEBIBYTE
# Nothing here is about the downtime: a busy computer must not decide what is tested.
OPTIONS = ("--downtime", "5s", "--verify", "after")
SLOW = ("--rate", "100mbit")


def differing_blocks(first, second):
    """Numbers of the blocks of 4 KiB in which two images differ, and how many hold something."""
    one, other = Path(first).read_bytes(), Path(second).read_bytes()
    assert len(one) == len(other), f"{len(one)} and {len(other)} bytes"
    assert not os.path.samefile(first, second), "this is the same file"
    nothing = bytes(4096)
    blocks = [(one[at:at + 4096], other[at:at + 4096]) for at in range(0, len(one), 4096)]
    return [number for number, (mine, theirs) in enumerate(blocks) if mine != theirs], sum(mine != nothing for mine, _ in blocks)


class DiskTest(SystemTest):
    seed = 1

    def image(self, side, bytes=None, format="raw"):
        path = self.lab.directory / f"{side}.img"
        if bytes:
            subprocess.run(["qemu-img", "create", "-q", "-f", format, path, str(bytes)], check=True)
        return path

    def command(self, side, drive=None, work="tt.disk=6 tt.diskset=4 tt.diskfill=16"):
        machine = lab.Machine(self.lab, side, "m")
        return [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-erms,-pclmulqdq", "-smp", "1", "-m", "96", "-nodefaults", "-display", "none",
            "-serial", f"file:{machine.console}", "-qmp", f"unix:{machine.monitor_path},server=on,wait=off",
            *(drive or ["-drive", f"file={self.image(side)},format=raw,if=virtio"]),
            "-kernel", str(lab.GUESTS / "vmlinux"), "-initrd", str(lab.GUESTS / "demo.cpio"),
            "-append", f"console=ttyS0 quiet panic=-1 tt.run=disk tt.seed={self.seed} {work}"]

    def boot(self, drive=None, format="raw", **details):
        """A machine that writes its disk."""
        self.image("source", DISK_BYTES, format)
        source = self.lab.machine(
            command=self.command("source", drive, **details), ready=r'"disk":"progress".*\n[^$]*"disk":"progress"', seconds=40)
        return source

    def receiver(self, *arguments, drive=None, **options):
        return self.lab.receiver("--disk", f"virtio0={self.image('target')}", *arguments, "--", *self.command("target", drive), **options)

    def frozen_receiver(self, *arguments, **options):
        """One that stands still when all is taken over and durable, before the machine runs."""
        instant = INSTANTS["committed"]
        return self.receiver(*arguments, environment=lab.freezing(instant.when, instant.data), **options)

    def assert_images_are_equal(self, least=16 * 256):
        differing, filled = differing_blocks(self.image("source"), self.image("target"))
        self.assertEqual(differing, [], f"seed {self.seed}")
        self.assertGreaterEqual(filled, least)

    def lines(self, machine):
        found = re.findall(r"^\{.*\}", machine.text(), re.MULTILINE)
        return [line for line in map(json.loads, found) if "disk" in line]

    def wait_work(self, machine):
        """It writes on where it was, and all that it filled is what it wrote."""
        def swept():
            lines = self.lines(machine)
            self.assertEqual([line for line in lines if line["disk"] not in ("start", "progress")], [], f"seed {self.seed}")
            return len(lines) >= 2 and lines[-1]["swept"] - lines[0]["swept"] >= 16 * 16
        wait_for(f"the guest to have read its disk on {machine.console.name}", swept, 40)

    def finish(self, sender, receiver, seconds=40):
        self.assertEqual((sender.wait(seconds), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        report = sender.wait_event("completed")["report"]
        self.assertEqual(report["verification"]["stripesDiffering"], 0)
        target = self.lab.arrival()
        self.wait_work(target)
        return report, target

    def assert_source_is_clean(self, source):
        """No export, no bitmap, no socket is left in a QEMU that goes on."""
        self.assertEqual(source._ask("query-block-exports"), [])
        bitmaps = [bitmap["name"] for node in source._ask("query-named-block-nodes") for bitmap in node.get("dirty-bitmaps", [])]
        self.assertEqual(bitmaps, [])
        self.assertEqual(self.lab.source_leftovers(), [])


class Moves(DiskTest):
    def move_and_compare(self, *options, drive=None, sending=("--disk", "all"), **details):
        source = self.boot(**details)
        receiver = self.frozen_receiver(*options, drive=drive)
        sender = self.lab.sender(receiver.address, *OPTIONS, *sending)
        receiver.wait_frozen()
        self.assert_images_are_equal()
        receiver.thaw()
        return self.finish(sender, receiver)

    def test_raw(self):
        report, target = self.move_and_compare()
        # What is used, what was written meanwhile, and little else.
        self.assertEqual(report["diskBytes"], DISK_BYTES)
        self.assertGreaterEqual(report["blocksSent"], 16 * 256)
        self.assertLess(report["blocksSent"], 30 * 256)
        self.assertGreater(report["blackout"]["lastDeltaMilliseconds"], 0)

    def test_several_streams(self):
        self.seed = 2
        self.move_and_compare(sending=("--disk", "virtio0", "--streams", "3"))

    def test_qcow2_becomes_raw(self):
        """What the guest sees is the same, whatever the image at the source is made of."""
        self.seed = 3
        image = self.image("source")
        source = self.boot(["-drive", f"file={image},format=qcow2,if=virtio"], format="qcow2")
        receiver = self.frozen_receiver()
        sender = self.lab.sender(receiver.address, *OPTIONS, "--disk", "all")
        receiver.wait_frozen()
        # QEMU has given the image up by now, and holds it still.
        raw = self.lab.directory / "converted.img"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", image, raw], check=True)
        differing, filled = differing_blocks(raw, self.image("target"))
        self.assertEqual(differing, [])
        self.assertGreaterEqual(filled, 16 * MEBIBYTE // 4096)
        receiver.thaw()
        self.finish(sender, receiver)
        del source

    def move_described(self, place):
        """The target starts the source's own command line, in which the disk has another place. Gives the arguments there."""
        console = self.lab.directory / "console.log"
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-erms,-pclmulqdq", "-smp", "1", "-m", "96", "-nodefaults", "-display", "none",
            "-chardev", f"file,id=c,path={console},append=on", "-device", "isa-serial,chardev=c", "-hda", str(self.image("source", DISK_BYTES)),
            "-kernel", str(lab.GUESTS / "vmlinux"), "-initrd", str(lab.GUESTS / "demo.cpio"), "-append", "console=ttyS0 quiet panic=-1"]
        self.image("source").write_bytes(os.urandom(MEBIBYTE) + bytes(DISK_BYTES - MEBIBYTE))
        self.lab.machine(command=command, ready=None)
        wait_for("the guest is up", lambda: console.exists() and '"init":"up"' in console.read_text(), 40)
        receiver = self.lab.receiver("--allow-path", self.lab.directory, "--allow-path", lab.GUESTS, "--disk", f"ide0-hd0={place}")
        sender = self.lab.sender(receiver.address, *OPTIONS, "--disk", "all")
        self.assertEqual((sender.wait(40), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival()
        return json.loads((self.lab.run_directory("target") / "m/machine.json").read_text())["arguments"]

    def test_from_the_description(self):
        self.assertIn(f"file={self.image('target')},index=0,media=disk,format=raw", self.move_described(self.image("target")))
        self.assert_images_are_equal(least=256)

    def test_to_a_larger_device(self):
        """The guest sees no more of it than it had."""
        self.image("target", 64 * MEBIBYTE)
        made = subprocess.run(["losetup", "-f", "--show", self.image("target")], capture_output=True, text=True)
        if made.returncode:
            self.skipTest(f"no loop device: {made.stderr.strip()}")
        device = made.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=True)
        arguments = self.move_described(device)
        self.assertIn(f"file={device},index=0,media=disk,format=raw,size={DISK_BYTES}", arguments)
        with open(device, "rb") as file:
            self.assertEqual(file.read(DISK_BYTES), self.image("source").read_bytes())

    def test_there_and_back(self):
        _, target = self.move_and_compare()
        # Both paths are known by now: the older copy is compared, and little goes.
        back = self.lab.receiver(
            "--disk", f"virtio0={self.image('source')}", "--recycle", "--", *self.command("source"), side="source")
        sender = self.lab.sender(back.address, *OPTIONS, "--disk", "all", "--peer", "source.test", side="target")
        self.assertEqual((sender.wait(40), back.wait()), (0, 0), sender.transcript() + back.transcript())
        report = sender.wait_event("completed")["report"]
        self.assertGreater(report["olderPages"], 10 * 256, report)
        self.assertLess(report["blocksSent"], 10 * 256, report)
        self.wait_work(self.lab.arrival(side="source"))


class StaysBehind(DiskTest):
    def test_without_disk_it_is_said(self):
        """Both ends see the same image, as without --disk they must."""
        self.boot()
        same = ["-drive", f"file={self.image('source')},format=raw,if=virtio"]
        receiver = self.lab.receiver("--", *self.command("target", same))
        sender = self.lab.sender(receiver.address, *OPTIONS)
        report, _ = self.finish(sender, receiver)
        self.assertEqual((report["diskBytes"], report["blocksSent"]), (0, 0))
        self.assertIn(f"virtio0 ({self.image('source')}) does not come along", sender.wait_event("note")["text"])

    def refused(self, code, *words, receiving=(), sending=("--disk", "all"), target=None):
        source = self.lab.machine(
            command=self.command("source", work="tt.disk=0 tt.diskfill=1"), ready='"disk":"start"', seconds=40)
        if target:
            self.image("target", target)
        receiver = self.receiver(*receiving)
        sender = self.lab.sender(receiver.address, *OPTIONS, *sending)
        self.assert_error(sender, code, *words)
        self.assertEqual(source.status(), "running")
        self.assert_source_is_clean(source)
        receiver.signal(signal.SIGTERM)
        return source

    def test_no_such_disk(self):
        self.image("source", DISK_BYTES)
        self.refused(2, "moving the disk sda of m", "it has virtio0", sending=("--disk", "sda"))

    def test_a_target_that_is_too_small(self):
        self.image("source", DISK_BYTES)
        self.refused(3, "the target", "it has 32.0 MiB", target=32 * MEBIBYTE)

    def test_a_target_that_holds_something(self):
        self.image("source", DISK_BYTES)
        self.image("target", DISK_BYTES)
        with open(self.image("target"), "r+b") as file:
            file.seek(5 * MEBIBYTE)
            file.write(b"precious")
        self.refused(3, "the target", "it holds something", "--overwrite")
        with open(self.image("target"), "rb") as file:
            file.seek(5 * MEBIBYTE)
            self.assertEqual(file.read(8), b"precious")


class Interrupted(DiskTest):
    def setUp(self):
        super().setUp()
        self.source = self.boot()

    def begin(self, *receiving, once=True, **options):
        self.receiving = self.receiver(*receiving, once=once, **options)
        self.sending = self.lab.sender(self.receiving.address, *OPTIONS, *SLOW, "--disk", "all")
        self.sending.wait_event("progress")
        self.receiving.wait_event("phase", phase="copying")

    def test_send_is_cancelled(self):
        self.begin()
        self.sending.signal(signal.SIGINT)
        self.assert_error(self.sending, 130, "cancelled", "runs on here")
        self.receiving.wait()
        self.assert_nothing_at_target()
        self.assertFalse(self.image("target").exists(), "the file that was made for it")
        self.assert_source_is_clean(self.source)
        # And now it moves.
        receiver = self.frozen_receiver()
        sender = self.lab.sender(receiver.address, *OPTIONS, "--disk", "all")
        receiver.wait_frozen()
        self.assert_images_are_equal()
        receiver.thaw()
        self.finish(sender, receiver)

    def test_send_is_killed(self):
        self.begin()
        time.sleep(1)
        self.lab.kill(self.sending)
        self.receiving.wait_event("interrupted")
        time.sleep(1)  # the guest writes on
        again = self.lab.sender(self.receiving.address, *OPTIONS, "--disk", "all")
        report, _ = self.finish(again, self.receiving)
        self.assertIn("an earlier process began", again.wait_event("note")["text"])
        self.assertEqual(self.lab.status(side="target")["epoch"], 2)

    def test_receive_is_killed(self):
        self.begin()
        time.sleep(1)
        self.lab.kill(self.receiving)
        self.sending.wait_event("interrupted")
        receiver = self.receiver(address=self.receiving.address)
        report, _ = self.finish(self.sending, receiver)
        self.assertEqual(report["attachments"], 2)

    def test_qemu_is_killed_at_the_source(self):
        self.begin()
        os.kill(self.source.number, signal.SIGKILL)
        self.assert_error(self.sending, 6, "m")
        self.receiving.wait()
        self.assert_nothing_at_target()
        self.assertFalse(self.image("target").exists())

    def test_qemu_is_killed_at_the_target(self):
        self.begin()
        os.kill(lab.Machine(self.lab, "target", "m").number, signal.SIGKILL)
        self.assert_error(self.sending, 3, "the target", "its QEMU died")
        self.receiving.wait()
        self.assertFalse(self.image("target").exists())
        self.assertEqual(self.source.status(), "running")
        self.assert_source_is_clean(self.source)

    def test_the_targets_storage_is_full(self):
        full = self.lab.directory / "full"
        full.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", full], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", full], check=True)
        self.image = lambda side, *_: self.lab.directory / "source.img" if side == "source" else full / "target.img"
        receiver = self.receiver()
        sender = self.lab.sender(receiver.address, *OPTIONS, "--disk", "all")
        self.assert_error(sender, 3, "the target", "no space left")
        receiver.wait()
        self.assertEqual(list(full.iterdir()), [])
        self.assertEqual(self.source.status(), "running")
        self.assert_source_is_clean(self.source)


class DarkLine(DiskTest):
    def tell(self, word):
        control = self.lab.start(lab.LIGHTPATH, "--control", self.lab.directory / "line.sock", "--tell", word)
        self.assertEqual(control.wait(), 0, control.transcript())

    def test_a_line_that_is_cut(self):
        """What the guest writes while it is dark is not forgotten, and what had arrived does not go again."""
        ends = self.lab.lightpath(rate="200mbit", delay="5ms")
        self.image("source", DISK_BYTES)
        source = self.lab.machine(command=self.command("source"), ready=r'"disk":"progress"', seconds=40, namespace=ends[0])
        receiver = self.frozen_receiver(address="10.5.0.2:4906", namespace=ends[1])
        sender = self.lab.sender(receiver.address, *OPTIONS, *SLOW, "--disk", "all", namespace=ends[0])
        sender.wait_event("progress")
        time.sleep(2)
        self.tell("cut")
        sender.wait_event("interrupted", 70)
        self.assertEqual(source.status(), "running")
        self.tell("restore")
        receiver.wait_frozen()
        self.assert_images_are_equal()
        receiver.thaw()
        report, _ = self.finish(sender, receiver)
        self.assertEqual(report["attachments"], 2)


class Coherence(SystemTest):
    """What the engine relies on: an image that QEMU has open and gave up is written past the page cache, and read as written when
    QEMU has it again. Without turntable."""

    def qemu(self, name, image, cache="off", *more):
        driver = "host_device" if str(image).startswith("/dev/") else "file"
        monitor = self.lab.directory / f"{name}.qmp"
        program = self.lab.start(
            "qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none", "-S", *more,
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-blockdev", f"driver={driver},node-name=f,filename={image},cache.direct={cache}",
            "-blockdev", f"driver=raw,node-name=d,file=f,cache.direct={cache}", "-device", "virtio-blk-pci,drive=d,share-rw=on")
        return program, lab.Monitor(monitor)

    def check(self, image, cache):
        state = self.lab.directory / "state"
        source, monitor = self.qemu("source", self.make("source"))
        monitor.execute("migrate", uri=f"exec:cat >{state}")
        wait_for("the state", lambda: monitor.execute("query-migrate").get("status") == "completed")
        target, monitor = self.qemu("target", image, cache, "-incoming", "defer")
        read = lambda pattern, *place: monitor.execute("human-monitor-command", **{"command-line": f'qemu-io d "read -q -P {pattern} {place[0]} {place[1]}"'})
        # Into the page cache, if there is one.
        read(0, 0, "1M")
        page = mmap.mmap(-1, 65536)
        page.write(b"Z" * 65536)
        file = os.open(image, os.O_RDWR | os.O_DIRECT)
        os.pwritev(file, [page], 65536)
        os.close(file)
        monitor.execute("migrate-incoming", uri=f"exec:cat {state}")
        wait_for("the machine", lambda: monitor.execute("query-status")["status"] != "inmigrate")
        read(ord("Z"), "64k", "64k")
        read(0, "128k", "64k")
        for program in (source, target):
            program.signal(signal.SIGTERM)
            self.assertEqual(program.wait(), 0)
        self.assertEqual(target.output, [], f"{image} with cache.direct={cache}")

    def make(self, name):
        path = self.lab.directory / f"{name}.img"
        with open(path, "wb") as file:
            file.truncate(16 * MEBIBYTE)
        return path

    def test_files(self):
        for cache in ("off", "on"):
            self.check(self.make(f"target-{cache}"), cache)

    def test_devices(self):
        for cache in ("off", "on"):
            made = subprocess.run(["losetup", "-f", "--show", self.make(f"target-{cache}")], capture_output=True, text=True)
            if made.returncode:
                self.skipTest(f"no loop device: {made.stderr.strip()}")
            try:
                self.check(made.stdout.strip(), cache)
            finally:
                subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


if __name__ == "__main__":
    unittest.main()
