"""Peers that are something else, break the protocol or break off: one clear error, and the machine runs on where it was."""
import random
import select
import socket
import struct
import unittest

import lab
import wire
from case import SystemTest
from wire import Connection, Server

MEBI = 1 << 20
GARBAGE = random.Random(4).randbytes(4096)


class InTheClear(SystemTest):
    """A peer spoken by hand, without protection: one with keys could say the same, and nothing more is believed of it."""

    def setUp(self):
        super().setUp()
        self.lab.protection = ["--protection", "none"]


class WrongTarget(InTheClear):
    """`send` meets something that is no receiver, or a bad one."""

    def refuse(self, serve, code, *words, arguments=()):
        source = self.lab.machine(append="mode=rate rate=4 len=1 report=64 fill=1", memory=("-m", "16"))
        server = Server(serve)
        self.addCleanup(server.close)
        self.assert_error(self.lab.sender(server.address, *arguments), code, *words)
        self.assert_runs_on(source)

    def test_http_server(self):
        def serve(peer):
            peer.read(32)
            peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").close()
        self.refuse(serve, 5, "greeting the target", "turntable receive")

    def test_random_bytes(self):
        self.refuse(lambda peer: peer.send(GARBAGE), 5, "greeting the target", "turntable receive")

    def test_closes_at_once(self):
        self.refuse(lambda peer: peer.close(), 4, "greeting the target")

    def test_another_version(self):
        self.refuse(lambda peer: peer.send(wire.refused("the greeting is of a protocol version that this end does not speak")), 3, "version")

    def test_length_over_the_limit(self):
        self.refuse(lambda peer: peer.send(wire.message(wire.WELCOME, length=2 * MEBI)), 5, "length over the limit", str(2 * MEBI))

    def test_closes_after_the_offer(self):
        def serve(peer):
            peer.read(32)
            peer.send(wire.welcome())
            peer.read(16)
            peer.close()
        self.refuse(serve, 4, "control stream")

    def test_closes_in_the_middle_of_the_copy(self):
        def serve(peer):
            head = peer.read(32)
            if struct.unpack("<H", head[12:14])[0] == wire.CONTROL:
                peer.send(wire.welcome())
                peer.receive_kind(wire.OFFER)
                peer.send(wire.offered())
                peer.receive_kind(wire.HANDOFF)
            peer.read(MEBI)
            peer.close()
        self.refuse(serve, 4, "data stream", arguments=("--rate", "50mbit", "--resume-window", "0s"))

    def test_says_that_it_runs_what_it_was_not_given(self):
        def serve(peer):
            peer.read(32)
            peer.send(wire.welcome())
            peer.receive_kind(wire.OFFER)
            peer.send(wire.message(wire.COMMITTED, struct.pack("<QQQQ", 2, 0, 0, 0)))
        self.refuse(serve, 5, "the target")

    def test_nothing_listens(self):
        source = self.lab.machine(append="mode=rate rate=4 len=1 report=64", memory=("-m", "16"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.assert_error(self.lab.sender(address), 4, "connection refused", address)
        self.assert_runs_on(source)


class WrongSource(InTheClear):
    """Something connects to `receive` that is no source, or a bad one."""

    def test_strangers_do_not_stop_a_receiver(self):
        strangers = [
            (b"GET / HTTP/1.1\r\nHost: target.example\r\n\r\n", "magic"),
            (GARBAGE, "magic"),
            (wire.preface(lowest=7, highest=9), "version"),
            (wire.preface(role=5), "unknown kind"),
            (wire.preface(role=wire.DATA, stream=200), "number of things"),
            (wire.preface(role=wire.DATA, attachment=bytes(16)), "not here"),
        ]
        source, receiver = self.move(append="mode=rate rate=4 len=1 report=64", memory=("-m", "16"))
        for count, (greeting, _) in enumerate(strangers, 1):
            stranger = Connection.to(receiver.address).send(greeting)
            notes = lambda: [event["text"] for event in receiver.events if event["event"] == "note"]
            lab.wait_for(f"a note about stranger {count}", lambda: len(notes()) == count)
            stranger.close()
        for note, (_, word) in zip(notes(), strangers):
            self.assertIn("turned away", note)
            self.assertIn(word, note)
        # A short greeting is noticed when the peer goes.
        Connection.to(receiver.address).send(wire.preface()[:10]).close()
        lab.wait_for("a note about the short greeting", lambda: "10 of 32" in notes()[-1])
        sender = self.lab.sender(receiver.address)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript())
        self.assertEqual(self.lab.arrival().status(), "running")

    def test_the_refusal_of_a_version_says_why(self):
        receiver = self.lab.receiver_of()
        peer = Connection.to(receiver.address).send(wire.preface(lowest=7, highest=9))
        self.assertIn(b"version", peer.receive_kind(wire.REFUSED))
        self.assert_interrupted(receiver)

    def assert_interrupted(self, receiver):
        receiver.signal(15)
        self.assert_error(receiver, 130, "interrupted")

    def assert_turned_away(self, receiver, *words):
        """The receiver says why, and goes on waiting for the machine that is to come."""
        note = receiver.wait_event("note")["text"]
        for word in ("turned away", *words):
            self.assertIn(word, note)
        self.assert_nothing_at_target()
        self.assert_interrupted(receiver)

    def control(self, receiver):
        control = Connection.to(receiver.address).send(wire.preface())
        control.receive_kind(wire.WELCOME)
        self.addCleanup(control.close)
        return control

    def test_closes_in_the_middle_of_the_offer(self):
        receiver = self.lab.receiver_of()
        offer = wire.offer(["qemu-system-x86_64"], [("turntable.ram", 16 * MEBI)])
        self.control(receiver).send(offer[:20]).close()
        self.assert_turned_away(receiver, "closed it after 12 of")

    def test_says_nothing_after_the_greeting_and_goes(self):
        receiver = self.lab.receiver_of()
        self.control(receiver).close()
        self.assert_turned_away(receiver, "control stream", "closed")

    def test_control_message_over_the_limit(self):
        receiver = self.lab.receiver_of()
        self.control(receiver).send(wire.message(wire.OFFER, length=2 * MEBI))
        self.assert_turned_away(receiver, "length over the limit", str(2 * MEBI))

    def test_description_over_the_limit(self):
        receiver = self.lab.receiver_of()
        self.control(receiver).send(wire.offer(["qemu-system-x86_64", "x" * (300 << 10)], [("turntable.ram", 16 * MEBI)]))
        self.assert_turned_away(receiver, "length over the limit")

    def test_too_many_streams_offered(self):
        receiver = self.lab.receiver_of()
        self.control(receiver).send(wire.offer(["qemu-system-x86_64"], [("turntable.ram", 16 * MEBI)], streams=17))
        self.assert_turned_away(receiver, "number of things", "17")

    def test_hand_off_before_the_offer(self):
        receiver = self.lab.receiver_of()
        self.control(receiver).send(wire.handoff([]))
        self.assert_turned_away(receiver, "the source", "not for now")

    def session(self):
        """A session with a prepared machine, and its only data stream."""
        receiver = self.lab.receiver_of(memory=("-m", "16"))
        control, attachment = wire.open_session(receiver.address, wire.offer(["qemu-system-x86_64"], [("turntable.ram", 16 * MEBI)]))
        self.addCleanup(control.close)
        data = Connection.to(receiver.address).send(wire.preface(role=wire.DATA, attachment=attachment))
        self.addCleanup(data.close)
        self.assertNotEqual(self.lab.target_leftovers(), [], "a machine is prepared")
        return receiver, control, attachment, data

    def assert_refused(self, receiver, control, code, *words):
        """The source is told, the receiver ends, and the machine it prepared is gone."""
        reason = control.receive_kind(wire.REFUSED).decode(errors="replace").lower()
        self.assertIn(words[-1].lower(), reason)
        self.assert_error(receiver, code, *words)
        self.assert_nothing_at_target()

    def test_a_stream_too_many(self):
        receiver, control, attachment, _ = self.session()
        Connection.to(receiver.address).send(wire.preface(role=wire.DATA, stream=1, attachment=attachment))
        self.assert_refused(receiver, control, 5, "data stream 1", "one too many")

    def test_the_same_stream_twice(self):
        receiver, control, attachment, data = self.session()
        again = Connection.to(receiver.address).send(wire.preface(role=wire.DATA, stream=0, attachment=attachment))
        # A recorded beginning that somebody says again is turned away; the stream that came first goes on.
        ended, _, _ = select.select([again.socket, data.socket], [], [], lab.WAIT_SECONDS)
        self.assertEqual([peer.recv(1) for peer in ended], [b""])
        (data if again.socket in ended else again).send(wire.frame([(300, 4, 0, 0)], b"", payload_bytes=MEBI + 4096))
        self.assert_refused(receiver, control, 5, "data stream 0", "length over the limit")

    def test_closes_in_the_middle_of_a_frame(self):
        receiver, control, _, data = self.session()
        whole = wire.frame([(300, 4, 0, 0)], bytes(range(256)) * 64)
        data.send(whole[:5000]).close()
        self.assert_refused(receiver, control, 4, "data stream 0", "closed")

    def test_frame_over_the_limit(self):
        receiver, control, _, data = self.session()
        data.send(wire.frame([(300, 256, 0, 0)], b"", payload_bytes=MEBI + 4096))
        self.assert_refused(receiver, control, 5, "data stream 0", "length over the limit")

    def test_pages_outside_the_memory(self):
        receiver, control, _, data = self.session()
        data.send(wire.frame([(4096, 1, 0, 0)], bytes(4096)))
        self.assert_refused(receiver, control, 5, "data stream 0", "outside its region")

    def test_frame_that_is_not_the_next(self):
        receiver, control, _, data = self.session()
        data.send(wire.frame([(300, 1, 0, 0)], bytes(4096), sequence=3))
        self.assert_refused(receiver, control, 5, "data stream 0", "not the next")

    def test_hand_off_with_fewer_frames_than_were_sent(self):
        receiver, control, attachment, data = self.session()
        data.send(wire.frame([(300, 1, 0, 0)], b"x" * 4096))
        data.send(wire.frame([(301, 1, 0, 0)], b"x" * 4096, sequence=1))
        lab.time.sleep(0.3)
        control.send(wire.handoff([1], attachment=attachment))
        self.assert_refused(receiver, control, 5, "data stream 0", "hand-off")

    def test_hand_off_without_device_state(self):
        receiver, control, attachment, _ = self.session()
        control.send(wire.handoff([0], attachment=attachment))
        self.assert_refused(receiver, control, 6, "device state")

    def test_hand_off_of_another_epoch(self):
        receiver, control, attachment, _ = self.session()
        control.send(wire.handoff([0], epoch=9, attachment=attachment))
        self.assert_refused(receiver, control, 5, "the hand-off", "epoch 9")

    def test_memory_that_the_host_does_not_have(self):
        receiver = self.lab.receiver_of()
        control = self.control(receiver).send(wire.offer(["qemu-system-x86_64"], [("turntable.ram", 512 << 30)]))
        reason = control.receive_kind(wire.REFUSED)
        self.assertIn(b"512", reason)
        self.assert_error(receiver, 7, "512", "available")
        self.assert_nothing_at_target()
        self.assertFalse((self.lab.run_directory("target") / "m.log").exists(), "QEMU was started")


class WrongMachine(SystemTest):
    """Both ends are ours, but do not fit."""

    def refuse(self, receiver, source, code, *words, send=3):
        sender = self.lab.sender(receiver.address)
        self.assert_error(sender, send, *words)
        self.assert_error(receiver, code, *words)
        self.assert_runs_on(source)
        self.assert_nothing_at_target()

    def setUp(self):
        super().setUp()
        self.source = self.lab.machine(append="mode=rate rate=4 len=1 report=64", memory=("-m", "24"))

    def test_another_memory_size(self):
        self.refuse(self.lab.receiver_of(memory=("-m", "16")), self.source, 3, "16.0 MiB", "24.0 MiB", "same machine")

    def test_other_regions(self):
        memory = ("-m", "24", "-object", "memory-backend-ram,id=near,size=24M", "-numa", "node,memdev=near")
        self.refuse(self.lab.receiver_of(memory=memory), self.source, 3, "near", "turntable.ram")

    def test_memory_of_the_target_command_that_the_host_does_not_have(self):
        self.refuse(self.lab.receiver_of(memory=("-m", "900G")), self.source, 6, "900", "available")

    def test_target_command_that_does_not_start(self):
        self.refuse(self.lab.receiver_of(extra=("-no-such-option",)), self.source, 6, "did not come up", "ended with code 1")

    def test_other_devices(self):
        # Accepted until the device state comes: then the target gives the right to run back.
        memory = ("-m", "16")
        source = self.lab.machine("more", append="mode=rate rate=4 len=1 report=64", memory=memory, extra=("-device", "virtio-rng-pci"))
        receiver = self.lab.receiver_of("more", memory=memory)
        words = ("device state", "virtio-rng", "same QEMU version")
        self.assert_error(self.lab.sender(receiver.address, name="more"), 3, *words)
        self.assert_error(receiver, 6, *words)
        self.assert_runs_on(source)
        self.assert_nothing_at_target()

    def described(self, extra=()):
        """A machine whose description has nothing that names the lab but what the policy is asked about."""
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none", *extra]
        return self.lab.machine(name="d", command=command, ready=None)

    def send_described(self, *allowed):
        receiver = self.lab.receiver(*[word for path in allowed for word in ("--allow-path", path)])
        return receiver, self.lab.sender(receiver.address, name="d")

    def test_description_that_the_policy_refuses(self):
        self.described(("-kernel", lab.PATTERN))
        for allowed in ((), ("/srv/images",)):
            receiver, sender = self.send_described(*allowed)
            self.assert_error(sender, 3, "does not allow", "-kernel", lab.PATTERN)
            self.assert_error(receiver, 3, "does not allow", "--allow-path")
            self.assert_nothing_at_target()
        self.assertEqual(self.lab.status("d")["state"], "here")

    def test_description_that_the_policy_allows(self):
        self.described(("-kernel", lab.PATTERN))
        receiver, sender = self.send_described(lab.GUESTS)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival("d")
        self.assertEqual(self.lab.status("d", "target")["epoch"], 2)

    def test_memory_over_the_policy(self):
        self.described()
        receiver = self.lab.receiver("--max-memory", "8M")
        sender = self.lab.sender(receiver.address, name="d")
        for program in (sender, receiver):
            self.assert_error(program, 3, "16.0 MiB", "limit is 8", "--max-memory")
        self.assert_nothing_at_target()


if __name__ == "__main__":
    unittest.main()
