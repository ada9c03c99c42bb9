"""Protection as an operator meets it: keys by the real command, both real ends, and whoever is not let in."""
import os
import shutil
import unittest
from pathlib import Path

import lab
import wire
from case import SystemTest
from wire import Connection

GUEST = dict(append="fill=1 mode=rate rate=4 len=2 report=64 check=1", memory=("-m", "16"))


class Protected(SystemTest):
    def move(self, **more):
        return super().move(**{**GUEST, **more})

    def keys(self, side="source"):
        """A copy of a host's keys that a test may spoil."""
        copy = self.lab.directory / f"keys-{len(list(self.lab.directory.glob('keys-*')))}"
        shutil.copytree(lab.keys() / side, copy)
        return copy

    def test_a_machine_moves_there_and_back(self):
        _, receiver = self.move()
        sender = self.lab.sender(receiver.address, "--streams", "2")
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        report = sender.wait_event("completed")["report"]
        self.assertTrue(all("AES-256-GCM" in stream for stream in report["streams"]), report["streams"])
        self.assertEqual(report["verification"]["stripesDiffering"], 0)
        self.assertEqual(receiver.wait_event("received")["from"], "source.test at 127.0.0.1")
        there = self.lab.arrival()
        there.wait_text(r"sweep.*corrupt=0")

    def test_a_source_without_protection_is_refused(self):
        machine, receiver = self.move()
        sender = self.lab.sender(receiver.address, "--protection", "none")
        self.assert_error(sender, 3, "without protection")
        self.assert_runs_on(machine)
        self.assert_nothing_at_target()

    def test_a_target_without_protection_gets_nothing(self):
        machine = self.lab.machine(**GUEST)
        receiver = self.lab.receiver("--protection", "none", "--", *self.lab.command("target", "m", **GUEST))
        self.assert_error(self.lab.sender(receiver.address), 4, "greeting the target", "protection")
        self.assert_runs_on(machine)
        self.assert_nothing_at_target()

    def test_another_host_of_the_authority_is_not_taken_for_the_target(self):
        """A faked recipient with a real certificate, that of another host."""
        machine = self.lab.machine(**GUEST)
        receiver = self.lab.receiver("--keys", self.keys("third"), "--", *self.lab.command("target", "m", **GUEST))
        self.assert_error(self.lab.sender(receiver.address, "--peer", "target.test"), 3, "third.test", "not of target.test")
        self.assert_runs_on(machine)
        self.assert_nothing_at_target()

    def test_a_host_of_another_authority_is_neither(self):
        machine, receiver = self.move()
        foreign = self.lab.directory / "keys-foreign"
        for arguments in (("authority", "--in", foreign), ("host", "source.test", "--authority", foreign, "--in", foreign)):
            self.assertEqual(self.lab.turntable("keys", *arguments).wait(), 0)
        self.assert_error(self.lab.sender(receiver.address, "--keys", foreign), 4, "TLS")
        self.assert_runs_on(machine)
        self.assert_nothing_at_target()

    def test_only_allowed_peers_send(self):
        machine = self.lab.machine(**GUEST)
        receiver = self.lab.receiver("--allow-peer", "somebody.else", "--", *self.lab.command("target", "m", **GUEST))
        self.assert_error(self.lab.sender(receiver.address), 3, "source.test is not among those")
        self.assert_runs_on(machine)
        self.assert_nothing_at_target()

    def test_strangers_get_no_machine_and_stop_nobody(self):
        machine, receiver = self.move()
        greetings = [
            (b"GET / HTTP/1.1\r\n\r\n" + bytes(32), "magic"),
            (wire.preface(protection=1) + b"\x16\x03\x01\x00\x05hello", "TLS"),
            (wire.preface(role=wire.DATA, protection=1, attachment=bytes(range(16))) + bytes(32), "prove"),
            (wire.preface(role=wire.DATA, attachment=bytes(range(16))), "without protection"),
        ]
        for bytes_sent, word in greetings:
            before = len(receiver.events)
            peer = Connection.to(receiver.address).send(bytes_sent)
            lab.wait_for(f"a note of {word}", lambda: any(word in event.get("text", "") for event in receiver.events[before:]), 15)
            peer.close()
        sender = self.lab.sender(receiver.address)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def test_keys_that_others_may_read_are_refused(self):
        machine = self.lab.machine(**GUEST)
        keys = self.keys()
        (keys / "host.key").chmod(0o644)
        self.assert_error(self.lab.sender("127.0.0.1:9", "--keys", keys), 2, "others may read it", "chmod 600")
        self.assert_error(
            self.lab.turntable("receive", "--listen", "127.0.0.1:0", "--run-dir", self.lab.run_directory("target"), "--keys", keys), 2, "others may read it")
        self.assert_runs_on(machine)

    def test_keys_that_are_not_there_or_do_not_fit(self):
        machine = self.lab.machine(**GUEST)
        self.assert_error(self.lab.sender("127.0.0.1:9", "--keys", self.lab.directory / "nowhere"), 2, "not there", "turntable keys")
        keys = self.keys()
        shutil.copy(lab.keys() / "target/host.pem", keys)
        self.assert_error(self.lab.sender("127.0.0.1:9", "--keys", keys), 2, "not that of host.key")
        (keys / "host.pem").write_text("nonsense\n")
        self.assert_error(self.lab.sender("127.0.0.1:9", "--keys", keys), 2, "host.pem", "no certificate")
        self.assert_error(self.lab.sender("127.0.0.1:9", "--protection", "rot13"), 2, "sealed or none")
        self.assert_runs_on(machine)

    def test_nothing_secret_is_said(self):
        """Not in arguments, events, errors or journals."""
        machine, receiver = self.move()
        sender = self.lab.sender(receiver.address)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0))
        said = "\n".join(sender.output + sender.errors + receiver.output + receiver.errors)
        written = b"".join(path.read_bytes() for side in ("source", "target") for path in Path(f"{self.lab.run_directory(side)}-state").rglob("*") if path.is_file())
        for side in ("source", "target"):
            secret = "".join((lab.keys() / side / "host.key").read_text().splitlines()[1:-1])
            self.assertNotIn(secret[:40], said)
            self.assertNotIn(secret[:40].encode(), written)
        self.assertFalse(os.path.exists(self.lab.directory / "core"))


if __name__ == "__main__":
    unittest.main()
