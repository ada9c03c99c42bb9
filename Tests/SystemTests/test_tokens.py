"""Tokens at a real receiver: made by other tools than ours, as whoever holds a key may make them."""
import os
import struct
import time
import unittest

import lab
import tokens
from case import SystemTest

GUEST = dict(append="fill=1 mode=rate rate=4 len=2 report=64 check=1", memory=("-m", "16"))


class InBand(SystemTest):
    def setUp(self):
        super().setUp()
        for name in ("lab", "other"):
            self.assertEqual(self.lab.turntable("keys", "domain", "--in", self.lab.directory / name).wait(), 0)
        self.holder = tokens.key_digest(lab.keys() / "source/host.pem")
        self.machine = self.lab.machine(**GUEST)

    def key(self, name):
        return self.lab.directory / name / "domain.key"

    def receiver(self):
        return self.lab.receiver(
            "--require-token", "--trust-domain", f"lab={self.lab.directory}/lab/domain.pem", "--", *self.lab.command("target", "m", **GUEST))

    def claims(self, holder=None, **other):
        """For the next attempt, which has an epoch of its own."""
        return tokens.claims(holder or self.holder, **{"epoch": self.lab.status()["nextEpoch"], **other})

    def send(self, receiver, *links):
        arguments = ["--token", tokens.write(self.lab.directory / f"token-{os.urandom(4).hex()}", tokens.token(*links))] if links else []
        return self.lab.sender(receiver.address, *arguments)

    def refused(self, receiver, words, *links):
        self.assert_error(self.send(receiver, *links), 3, *words)
        self.assert_runs_on(self.machine)
        self.assert_nothing_at_target()

    def delegated(self, **wider):
        """A link that the domain "other" may narrow, and what it says."""
        said = self.claims(**wider)
        del said[tokens.CONFIRMATION]
        said[tokens.DELEGATE] = tokens.public_key(self.key("other"))
        narrowed = {**said, tokens.CONFIRMATION: {3: self.holder}}
        del narrowed[tokens.DELEGATE]
        return tokens.link(said, self.key("lab")), narrowed

    def test_without_a_valid_token_nothing_comes(self):
        receiver = self.receiver()
        lab_key, now = self.key("lab"), int(time.time())
        cases = {
            "none is shown": lambda: (),
            "valid until": lambda: [tokens.link(self.claims(not_after=now - 1), lab_key)],
            "valid from": lambda: [tokens.link(self.claims(not_before=now + 300), lab_key)],
            "another host's key": lambda: [tokens.link(self.claims(tokens.key_digest(lab.keys() / "third/host.pem")), lab_key)],
            "the domain other, which is not trusted": lambda: [tokens.link(self.claims(issuer="other"), self.key("other"))],
            "the signature of link 1": lambda: [tokens.link(self.claims(), self.key("other"))],
            "not for m": lambda: [tokens.link(self.claims(machine="n"), lab_key)],
            "not from source.test": lambda: [tokens.link(self.claims(source="third.test"), lab_key)],
            "not for target.test": lambda: [tokens.link(self.claims(target="third.test"), lab_key)],
            "for epoch 1, not for": lambda: [tokens.link(self.claims(epoch=1), lab_key)],
        }
        for words, links in cases.items():
            with self.subTest(words):
                self.refused(receiver, ("the token", words), *links())
        # The same machine, line and receiver, with one.
        sender = self.send(receiver, tokens.link(self.claims(), lab_key))
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def test_a_delegate_narrows_and_never_widens(self):
        receiver = self.receiver()
        for claim, words in (("not_after", "its window"), ("bytes", "its byte budget"), ("target", "its target")):
            with self.subTest(claim):
                first, narrowed = self.delegated(bytes=1 << 30)
                wider = {"not_after": narrowed[tokens.NOT_AFTER] + 1, "bytes": 1 << 31, "target": "third.test"}[claim]
                second = tokens.link({**narrowed, getattr(tokens, claim.upper()): wider}, self.key("other"), first)
                self.refused(receiver, ("link 2 widens", words), first, second)
        with self.subTest("a link left out"):
            first, _ = self.delegated()
            self.refused(receiver, ("for a delegate to narrow",), first)
        with self.subTest("not the delegate"):
            first, narrowed = self.delegated()
            self.refused(receiver, ("the signature of link 2",), first, tokens.link(narrowed, self.key("lab"), first))
        with self.subTest("too long"):
            links = [tokens.link(self.delegated()[1], self.key("lab"))]
            for _ in range(8):
                links.append(tokens.link({tokens.ISSUER: "lab"} | tokens.claims(self.holder), self.key("lab"), links[-1]))
            self.refused(receiver, ("a chain of 9 links, the most is 8",), *links)
        first, narrowed = self.delegated(bytes=1 << 30)
        sender = self.send(receiver, first, tokens.link({**narrowed, tokens.BYTES: 1 << 29}, self.key("other"), first))
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def test_no_more_bytes_than_it_grants(self):
        receiver = self.receiver()
        self.refused(receiver, ("more has come than the 64.0 kib",), tokens.link(self.claims(bytes=64 << 10), self.key("lab")))

    def test_what_was_handed_off_is_heard_after_the_window(self):
        """The sender dies when it has given the right away, and the token's window ends: the machine comes to run all the same."""
        receiver = self.receiver()
        end = int(time.time()) + 8
        path = tokens.write(self.lab.directory / "token", tokens.token(tokens.link(self.claims(not_after=end), self.key("lab"))))
        # HANDOFF is in the journal: Sources/WireFormat/JournalRecord.swift.
        sender = self.lab.sender(receiver.address, "--token", path, environment=lab.freezing("after", struct.pack("<BBQ", 1, 3, 2)))
        sender.wait_frozen()
        self.lab.kill(sender)
        lab.wait_for("the end of the window", lambda: time.time() > end + 1)
        again = self.lab.sender(receiver.address, "--token", path)
        self.assertEqual((again.wait(), receiver.wait()), (0, 0), again.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")
        used = list((lab.Path(f"{self.lab.run_directory('target')}-state") / "tokens").iterdir())
        self.assertEqual([path.read_text().split()[2:4] for path in used], [["used", "session"]])

    def test_by_our_own_hand(self):
        """Issued, narrowed and shown by the commands; what would widen it is not made."""
        def token(name, *arguments, code=0):
            program = self.lab.turntable("token", *arguments)
            self.assertEqual(program.wait(), code, program.transcript())
            if code == 0 and arguments[0] != "show":
                tokens.write(self.lab.directory / name, program.output[0])
            return "\n".join(program.output + program.errors)

        own, other, wide, narrow = (self.lab.directory / name for name in ("lab", "other", "wide", "narrow"))
        holder = ("--holder", lab.keys() / "source/host.pem")
        details = ("--domain", "lab", "--domain-key", own / "domain.key", "--machine", "m", "--epoch", self.lab.status()["nextEpoch"], "--source", "source.test",
            "--target", "target.test")
        token("nobody's", "issue", *details, code=2)
        token("wide", "issue", *details, "--bytes", "1G", "--valid", "10min", "--delegate", other / "domain.pem")
        self.assertIn("for a delegate", token("", "show", wide, "--trust-domain", f"lab={own}/domain.pem", code=3))
        self.assertIn("widens", token("", "narrow", wide, "--domain-key", other / "domain.key", *holder, "--bytes", "2G", code=3))
        token("narrow", "narrow", wide, "--domain-key", other / "domain.key", *holder, "--bytes", "500M")
        self.assertIn("valid now", token("", "show", narrow, "--trust-domain", f"lab={own}/domain.pem"))
        self.assertIn("not trusted", token("", "show", narrow, "--trust-domain", f"other={other}/domain.pem", code=3))
        receiver = self.receiver()
        sender = self.lab.sender(receiver.address, "--token", narrow)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def test_what_cannot_be_asked_for(self):
        self.assert_error(self.lab.turntable("receive", "--listen", "127.0.0.1:0", "--run-dir", self.lab.run_directory("target"), "--require-token"), 2, "belong together")
        trust = ("--require-token", "--trust-domain", f"lab={self.lab.directory}/lab/domain.pem")
        self.assert_error(
            self.lab.turntable("receive", "--listen", "127.0.0.1:0", "--run-dir", self.lab.run_directory("target"), "--protection", "none", *trust), 2, "whose key")
        self.assert_error(self.lab.sender("127.0.0.1:9", "--token", self.lab.directory / "nowhere"), 2, "not there")
        self.key("lab").chmod(0o644)
        orchestrator = self.lab.start(
            str(lab.BUILD / "turntable-orchestrator"), "serve", "--store", self.lab.directory / "o.sqlite", "--domain-key", self.key("lab"), "--keys", lab.keys() / "third")
        self.assert_error(orchestrator, 2, "others may read it", "chmod 600")
        self.assert_runs_on(self.machine)


if __name__ == "__main__":
    unittest.main()
