"""Link elements: processes on the way that let through what a token grants, and nothing else. A part of their protocol is here a second time
(Sources/WireFormat/LinkPass.swift and Frame.swift are the original), for whoever stands between and would change or repeat what passes."""
import errno
import os
import socket
import struct
import threading
import time
import unittest

import lab
import tokens
from case import SystemTest

GUEST = dict(append="fill=1 mode=rate rate=4 len=2 report=64 check=1", memory=("-m", "16"))
PREFACE_BYTES, PROOF_BYTES, HEADER_BYTES = 32, 32, 40
REFUSED = 2


class Middle:
    """Whoever stands between a source and its link element: sees all that the source says, and may change it."""

    def __init__(self, to, change=None):
        self.to, self.change = to, change
        self.said = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            host, port = self.to.split(":")
            target = socket.create_connection((host, int(port)))
            said = bytearray()
            self.said.append(said)
            threading.Thread(target=self._forward, args=(source, target, said), daemon=True).start()
            threading.Thread(target=self._forward, args=(target, source, None), daemon=True).start()

    def _forward(self, one, other, said):
        try:
            while piece := one.recv(1 << 16):
                if said is not None:
                    start = len(said)
                    said += piece
                    if self.change:
                        self.change(said)
                        piece = bytes(said[start:])
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            one.close()
            other.close()

    def close(self):
        self.listener.close()


def first_frame(said):
    """Where the first frame of a data stream begins, once all of its header is there; None on others."""
    if len(said) < 8:
        return None
    preface = 8 + struct.unpack_from("<I", said, 4)[0]
    start = preface + PREFACE_BYTES + PROOF_BYTES
    return start if len(said) >= start + HEADER_BYTES and said[preface + 12] == 1 else None


class Links(SystemTest):
    def setUp(self):
        super().setUp()
        for kind in ("domain", "link"):
            self.assertEqual(self.lab.turntable("keys", kind, "--in", self.lab.directory / kind).wait(), 0)
        self.holder = tokens.key_digest(lab.keys() / "source/host.pem")
        self.machine = self.lab.machine(**GUEST)
        self.receiver = self.lab.receiver("--", *self.lab.command("target", "m", **GUEST))
        self.middles = []

    def tearDown(self):
        for middle in self.middles:
            middle.close()

    def middle(self, to, change=None):
        self.middles.append(Middle(to, change))
        return self.middles[-1]

    def element(self, *arguments, line="west", to=(), key="link", listen="127.0.0.1:0"):
        element = self.lab.turntable(
            "link", line, *(to or ["127.0.0.1"]), "--json", "--listen", listen, "--key", self.lab.directory / key / "link.key",
            "--trust-domain", f"lab={self.lab.directory}/domain/domain.pem", "--state-dir", self.lab.directory / f"state-{line}", *arguments)
        element.address = f"127.0.0.1:{int(element.wait_event('listening')['port'])}"
        return element

    def token(self, key="domain", holder=None, **claims):
        said = tokens.claims(holder or self.holder, **{"epoch": self.lab.status()["nextEpoch"], "path": "west", **claims})
        return tokens.write(self.lab.directory / f"token-{os.urandom(4).hex()}", tokens.token(tokens.link(said, self.lab.directory / key / "domain.key")))

    def send(self, address, token, *arguments, keys=("link",), **options):
        addresses = [address] if isinstance(address, str) else address
        links = [word for one, key in zip(addresses, keys) for word in ("--via", f"{one}={self.lab.directory / key / 'link.pem'}")]
        return self.lab.sender(self.receiver.address, "--token", token, *links, *arguments, **options)

    def receive_again(self):
        """A receiver has one machine's attempt; it is there again for the next."""
        self.receiver.wait()
        self.receiver = self.lab.restart(self.receiver)

    def assert_moves(self, sender):
        self.assertEqual(sender.wait(), 0, sender.transcript() + self.receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def assert_refused(self, sender, *words):
        self.assert_error(sender, 3, *words)
        self.assert_runs_on(self.machine)
        self.assert_nothing_at_target()

    def test_a_machine_passes(self):
        element = self.element()
        # A rate at which nothing may be counted for a round trip that nobody has measured yet.
        sender = self.send(element.address, self.token(), "--streams", "3", "--rate", "10gbit")
        self.assert_moves(sender)
        passed = [element.wait_event("passed", stream=stream)["token"] for stream in ("control", "data 0", "data 1", "data 2")]
        self.assertEqual(len(set(passed)), 1)
        self.assertEqual([event for event in element.events if event["event"] == "refused"], [])
        # All of its 16 MiB went by there.
        carried = sum(element.wait_event("ended", stream=f"data {stream}")["bytes"] for stream in range(3))
        self.assertGreater(carried, 12 << 20)

    def test_two_elements_on_one_way(self):
        self.assertEqual(self.lab.turntable("keys", "link", "--in", self.lab.directory / "second").wait(), 0)
        second = self.element(key="second")
        first = self.element(to=[second.address])
        token = self.token()
        self.assert_refused(self.send(first.address, token), f"it goes on to {self.receiver.address}, and this element does not")
        self.assert_refused(self.send([first.address, second.address], token, keys=("link", "link")), "no key is sealed to this element")
        self.assert_moves(self.send([first.address, second.address], token, "--streams", "2", keys=("link", "second")))
        for element in (first, second):
            element.wait_event("passed", stream="data 1")

    def test_who_is_not_let_through(self):
        element = self.element()
        now = int(time.time())
        for name in ("other", "strange"):
            self.assertEqual(self.lab.turntable("keys", "domain", "--in", self.lab.directory / name).wait(), 0)
        self.assertEqual(self.lab.turntable("keys", "link", "--in", self.lab.directory / "strange-link").wait(), 0)
        cases = {
            "it was valid until": dict(not_after=now - 1),
            "it is valid from": dict(not_before=now + 300),
            "it is for the line east, not for west": dict(path="east"),
            "another host's key": dict(holder=tokens.key_digest(lab.keys() / "third/host.pem")),
            "the signature of link 1": dict(key="other"),
            "the domain foreign, which is not trusted": dict(key="strange", issuer="foreign"),
        }
        for words, wrong in cases.items():
            with self.subTest(words):
                self.assert_refused(self.send(element.address, self.token(**wrong)), "the line west", words)
        with self.subTest("revoked"):
            token = self.token()
            self.assertEqual(self.lab.turntable("token", "revoke", token, "--state-dir", self.lab.directory / "state-west").wait(), 0)
            self.assert_refused(self.send(element.address, token), "was revoked")
        with self.subTest("for another element"):
            self.assert_refused(self.send(element.address, self.token(), keys=("strange-link",)), "no key is sealed to this element")
        with self.subTest("without a pass"):
            sender = self.lab.sender(element.address, "--resume-window", "0s")
            self.assertEqual(sender.wait(), 4, sender.transcript())
            element.wait_event("refused")
            self.assert_runs_on(self.machine)
        self.assert_moves(self.send(element.address, self.token()))

    def test_what_stands_before_an_element_can_change_nothing(self):
        element = self.element()
        for offset, bit, what in ((20, 2, "its round"), (17, 16, "its length"), (39, 128, "its mark")):
            def change(said):
                start = first_frame(said)
                if start is not None and id(said) not in changed:
                    changed.add(id(said))
                    said[start + offset] ^= bit
            changed = set()
            with self.subTest(what):
                sender = self.send(self.middle(element.address, change).address, self.token(), "--resume-window", "0s")
                self.assertIn(sender.wait(), (3, 4), sender.transcript())
                self.assertTrue(changed)
                self.assert_runs_on(self.machine)
                self.receive_again()
        reasons = [event["why"] for event in element.events if event["event"] == "refused"]
        self.assertEqual(sum("does not have the mark" in reason for reason in reasons), 3, reasons)
        self.assert_moves(self.send(element.address, self.token()))

    def test_what_was_said_before_is_not_heard_again(self):
        element = self.element()
        middle = self.middle(element.address)
        self.assert_moves(self.send(middle.address, self.token()))
        self.assertGreaterEqual(len(middle.said), 2)
        for said in middle.said:
            with socket.create_connection(("127.0.0.1", int(element.address.split(":")[1])), timeout=30) as again:
                again.sendall(said[:8 + struct.unpack_from("<I", said, 4)[0] + PREFACE_BYTES])
                magic, verdict, count = struct.unpack("<4sBI", self.exactly(again, 9))
                self.assertEqual((magic, verdict), (b"TTLA", REFUSED))
                self.assertIn("it was shown before", self.exactly(again, count).decode())

    def exactly(self, connection, count):
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            self.assertTrue(piece, data)
            data += piece
        return data

    def test_no_more_bytes_than_the_token_grants(self):
        element = self.element()
        self.assert_refused(self.send(element.address, self.token(bytes=64 << 10)), "the line west", "the token grants 64.0 KiB")
        self.receive_again()
        self.assert_moves(self.send(element.address, self.token(bytes=1 << 30)))

    def test_the_window_ends_while_a_machine_is_copied(self):
        element = self.element()
        end = int(time.time()) + 4
        sender = self.send(element.address, self.token(not_after=end), "--rate", "10mbit", "--downtime", "60s")
        sender.wait_event("progress")
        self.assert_refused(sender, "the line west", "it was valid until")
        self.assertGreaterEqual(time.time(), end)

    def test_a_token_is_revoked_while_a_machine_is_copied(self):
        element = self.element()
        token = self.token()
        sender = self.send(element.address, token, "--rate", "10mbit", "--downtime", "60s")
        sender.wait_event("progress")
        self.assertEqual(self.lab.turntable("token", "revoke", token, "--state-dir", self.lab.directory / "state-west").wait(), 0)
        self.assert_refused(sender, "was revoked")

    def test_what_was_handed_off_is_heard_after_the_window(self):
        """The sender dies when it has given the right away, the token's window ends and it is revoked: the machine comes to run all the same."""
        element = self.element()
        end = int(time.time()) + 8
        token = self.token(not_after=end)
        # HANDOFF is in the journal: Sources/WireFormat/JournalRecord.swift.
        sender = self.send(element.address, token, environment=lab.freezing("after", struct.pack("<BBQ", 1, 3, 2)))
        sender.wait_frozen()
        self.lab.kill(sender)
        self.assertEqual(self.lab.turntable("token", "revoke", token, "--state-dir", self.lab.directory / "state-west").wait(), 0)
        lab.wait_for("the end of the window", lambda: time.time() > end + 1)
        self.assert_moves(self.send(element.address, token))

    def test_an_element_is_killed_and_started_again(self):
        element = self.element()
        sender = self.send(element.address, self.token(), "--rate", "20mbit", "--downtime", "60s")
        sender.wait_event("progress")
        self.lab.kill(element)
        sender.wait_event("interrupted")
        self.element(listen=element.address)
        self.assert_moves(sender)

    def test_what_is_next_is_not_there_yet(self):
        self.lab.kill(self.receiver)
        element = self.element()
        sender = self.send(element.address, self.token())
        self.assert_error(sender, 4, "the line west", "connecting to")
        self.assert_runs_on(self.machine)

    def test_strangers(self):
        element = self.element()
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"TTLP" + struct.pack("<I", 0xffffffff), b"TTLP" + struct.pack("<I", 64) + bytes(64), os.urandom(4096)):
            with self.subTest(said[:8]), socket.create_connection(("127.0.0.1", int(element.address.split(":")[1])), timeout=30) as stranger:
                answer = b""
                try:
                    stranger.sendall(said)
                    stranger.shutdown(socket.SHUT_WR)
                    while piece := stranger.recv(4096):
                        answer += piece
                except OSError as error:
                    # The element may be gone at any of these, with what it did not read.
                    self.assertIn(error.errno, (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN))
                self.assertTrue(answer == b"" or answer[4] != 0, answer)
        lab.wait_for("their refusals", lambda: sum(event["event"] == "refused" for event in element.events) == 5)
        self.assert_moves(self.send(element.address, self.token()))


if __name__ == "__main__":
    unittest.main()
