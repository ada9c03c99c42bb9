"""Real processes, real machines and the line are struck down at each step of a migration, and everything must come right.

One process is frozen at an exact instant (freeze.c), the victim is killed with `kill -9` or the line is cut, and what is
frozen goes on. What must be true then stands in docs/promise.md:

    s  the machine runs on at the source; `send` again moves it
    S  it may stand still at the source; `send` again goes on with the migration, and it runs at the target
    r  the `send` that waits goes on by itself when `receive` is there again, and it runs at the target
    t  it comes to run at the target with nobody's help, and the source knows
    T  it comes to run at the target; `send` again hears so, and takes the remains at the source away
    l  when the line is back it comes to run at the target, and the source knows
    x  it has crashed with its QEMU at the source, whose it is; it can be started there
    X  the same at the target
    *  x or t: QEMU has saved the state by then, or not

                                                            killed: send  receive  QEMU here  QEMU there   line cut
    connecting   offer         OFFER written, not said                s      s         x
                 offered       OFFERED written, not said              S      s         x          s            s
    copying      first round   in the middle of it                    S      r         x          s
                 later round   after the first                        S      r         x          s
    paused       stopped       before the last scan                   S      r         x          s
                 save          QEMU has been told half of that        S      r         x          s
                 saving        QEMU saves the device state            S      r         *          s            l
    handed off   handoff       HANDOFF written, nothing said          S      r         t          s            l
                 last pages    the target waits for them              T      r         t          s
                 loading       half of the device state is loaded     T      r         t          s
    taken over   committed     COMMITTED written, not running         T      r         t          X
                 answer        it runs there, not said                T      r         t          X            l
                 comparison    the source knows, and compares         T      t         t          X            t

Afterwards one machine runs, or none where it crashed; its memory is what it wrote (the guest checks itself); `resolve` and
`journal` tell the truth at both ends; nothing is left behind.
"""
import concurrent.futures
import functools
import json
import os
import re
import signal
import struct
import unittest
from typing import NamedTuple

import lab
from case import SystemTest
from lab import wait_for

EPOCH = 2
MACHINE = dict(append="fill=1 mode=rate rate=4 len=1 report=64 check=1", memory=("-m", "16"))
# Two thirds of a second for the machine: a round has a middle. Nothing here is about the downtime.
OPTIONS = ("--rate", "200mbit", "--downtime", "60s")


def record(role, kind):
    """How a record of the journal begins: Sources/WireFormat/JournalRecord.swift."""
    return struct.pack("<BBQ", role, kind, EPOCH)


class Instant(NamedTuple):
    process: str  # the one that is frozen
    when: str
    data: bytes


INSTANTS = {
    "offer": Instant("send", "after", record(1, 1)),
    "offered": Instant("receive", "after", record(2, 2)),
    "first round": Instant("send", "after", b'"event":"progress"'),
    "later round": Instant("send", "after", b'"event":"round"'),
    "stopped": Instant("send", "after", b'"execute":"stop"'),
    "save": Instant("send", "within", b'"fd:turntable"'),
    "saving": Instant("send", "after", b'"fd:turntable"'),
    "handoff": Instant("send", "after", record(1, 3)),
    "last pages": Instant("receive", "after", b'"phase":"handedOff"'),
    "loading": Instant("receive", "within", b"QEVM"),
    "committed": Instant("receive", "before", b'"cont"'),
    "answer": Instant("receive", "after", b'"phase":"completed"'),
    "comparison": Instant("send", "after", b'"phase":"completed"'),
}
NOTICED_SECONDS = 70  # for a line that is dark: an end is silent for 30 s, and at worst the other one for as long after that
VICTIMS = ("send", "receive", "QEMU here", "QEMU there")
MATRIX = {
    "offer": "ssx ",
    "offered": "Ssxs",
    "first round": "Srxs",
    "later round": "Srxs",
    "stopped": "Srxs",
    "save": "Srxs",
    "saving": "Sr*s",
    "handoff": "Srts",
    "last pages": "Trts",
    "loading": "Trts",
    "committed": "TrtX",
    "answer": "TrtX",
    "comparison": "TttX",
}


class Case:
    """One machine on its way, and a process that is frozen at an instant."""

    def __init__(self, test, lab_, instant, line=False, options=()):
        self.test, self.lab = test, lab_
        process, when, data = INSTANTS[instant]
        freeze = {"environment": lab.freezing(when, data)}
        self.here, self.there = ({"namespace": end} for end in lab_.lightpath(rate="1gbit", delay="5ms")) if line else ({}, {})
        self.source = lab_.machine(**MACHINE, **self.here)
        self.source.wait_text("PATTERN sweep")
        self.target = lab.Machine(lab_, "target", "m")
        self.receiver = lab_.receiver(
            "--", *lab_.command("target", "m", **MACHINE), address="10.5.0.2:4906" if line else "127.0.0.1:0", **self.there,
            **(freeze if process == "receive" else {}))
        self.sender = lab_.sender(self.receiver.address, *OPTIONS, *options, **self.here, **(freeze if process == "send" else {}))
        self.frozen = self.sender if process == "send" else self.receiver
        self.frozen.wait_frozen()

    def kill(self, victim):
        program = {"send": self.sender, "receive": self.receiver}.get(victim)
        if program:
            self.lab.kill(program)
        else:
            self.number = (self.source if victim == "QEMU here" else self.target).number
            os.kill(self.number, signal.SIGKILL)
            wait_for("its end", lambda: not has_memory(self.number))
        if program is not self.frozen:
            self.frozen.thaw()

    # --- Steps towards the end

    def expect(self, program, *codes):
        try:
            code = program.wait(30)
        except lab.Timeout:
            code = "none within 30 s"
        self.test.assertIn(code, codes, f"{self.sender.transcript()}\n{self.receiver.transcript()}")

    def receive_again(self):
        """A receiver, if there is none any more."""
        if self.receiver.process.poll() is not None:
            self.receiver = self.lab.restart(self.receiver, environment=None)

    def send_again(self):
        self.receive_again()
        self.sender = self.lab.sender(self.receiver.address, *OPTIONS, **self.here)
        self.expect(self.sender, 0)

    def assert_resolved(self, source, target):
        """What both ends say: one word, or one of several while processes are still at it."""
        for side, words in (("source", source), ("target", target)):
            word, text = self.lab.resolve(side, **(self.here if side == "source" else self.there))
            self.test.assertIn(word, words.split(), f"{side}: {text}")

    def assert_journals(self, source, target, epoch=EPOCH):
        """The last records of both ends about an epoch."""
        for side, kinds in (("source", source), ("target", target)):
            self.test.assertEqual(self.lab.journal(side, epoch)[-len(kinds):], kinds, side)

    # --- Ends

    def runs_at_target(self):
        """It is the target's, all of it, and nothing else is there."""
        test, target = self.test, self.target
        at_source = self.source.writes()
        target.wait_advance()
        test.assertGreaterEqual(target.writes(), at_source, "it goes on from where it was, not from before")
        target.wait_text("PATTERN sweep")
        self.assert_intact()
        self.receive_again()
        self.assert_resolved("COMMITTED", "COMMITTED")
        epoch = self.lab.status(side="target")["epoch"]
        test.assertEqual(self.lab.journal("source", epoch)[-1], "committed")
        wait_for("the target to know that the source knows", lambda: self.lab.journal("target", epoch) == ["offered", "committed", "confirmed"])
        wait_for("the remains to go", lambda: not (self.lab.run_directory("source") / "m").exists())
        test.assertEqual(sorted(path.name for path in (self.lab.run_directory("target") / "m").iterdir()), ["machine.json", "qmp.sock"])
        test.assertEqual(self.lab.status(side="target")["state"], "here")

    def runs_at_source(self):
        self.test.assertEqual(self.source.status(), "running")
        self.source.wait_advance()
        self.assert_intact()

    def assert_intact(self):
        for machine in (self.source, self.target):
            self.test.assertEqual(re.findall(r"corrupt=[1-9].*|FAILED.*", machine.text()), [], machine.console.name)


def has_memory(number):
    """A process that is not gone, and no zombie."""
    try:
        with open(f"/proc/{number}/maps") as maps:
            return maps.read(1) != ""
    except OSError:
        return False


# --- What must be true after each fault: the letters of the matrix

def goes_on_at_source(case, victim):
    if victim != "send":
        case.expect(case.sender, 3, 4)
        case.test.assert_runs_on(case.source)
    case.runs_at_source()
    if victim == "QEMU there":
        case.expect(case.receiver, 6)
        case.test.assertIn(case.lab.journal("source")[-1], ("withdrawn", "refused"))
        case.test.assertEqual(case.lab.journal("target"), ["offered", "refused"])
        case.test.assertEqual(case.lab.resolve("target")[0], "REFUSED")
    case.send_again()
    case.expect(case.receiver, 0)
    case.runs_at_target()


def next_sender_goes_on(case, victim):
    case.assert_resolved("OFFERED UNKNOWN", "OFFERED")
    case.send_again()
    case.expect(case.receiver, 0)
    case.runs_at_target()


def next_receiver_goes_on(case, victim):
    case.receive_again()
    case.expect(case.sender, 0)
    case.runs_at_target()


def comes_to_run(case, victim):
    case.expect(case.sender, 0)
    case.runs_at_target()


def source_hears_later(case, victim):
    case.expect(case.receiver, 0)
    case.target.wait_advance()
    case.receive_again()
    case.send_again()
    case.runs_at_target()


def crashed_at_source(case, victim):
    case.expect(case.sender, 6)
    case.expect(case.receiver, 130)
    case.test.assertEqual(case.source.program.wait(), 128 + signal.SIGKILL)
    case.test.assert_nothing_at_target()
    case.assert_resolved("WITHDRAWN", "REFUSED")
    case.assert_journals(["withdrawn"], ["refused"])
    case.source = case.lab.machine(**MACHINE, **case.here)
    case.runs_at_source()


def crashed_or_saved(case, victim):
    case.expect(case.sender, 0, 6)
    (comes_to_run if case.sender.process.returncode == 0 else crashed_at_source)(case, victim)


def crashed_at_target(case, victim):
    case.expect(case.receiver, 0, 6)
    case.receive_again()
    case.expect(case.sender, 0)
    case.assert_resolved("COMMITTED", "COMMITTED")
    wait_for("the remains to go", lambda: not (case.lab.run_directory("source") / "m").exists())
    starts_at_target(case)


def starts_at_target(case):
    wait_for("the target to know that the source knows", lambda: case.lab.journal("target")[-1] == "confirmed")
    case.lab.machine(side="target", **MACHINE, **case.there)
    case.target.wait_advance()
    case.assert_intact()


THEN = {
    "s": goes_on_at_source, "S": next_sender_goes_on, "r": next_receiver_goes_on, "t": comes_to_run, "T": source_hears_later,
    "x": crashed_at_source, "X": crashed_at_target, "*": crashed_or_saved,
}


class Killed(SystemTest):
    """A test for each letter of the matrix."""

    def strike(self, instant, victim, letter):
        case = Case(self, self.lab, instant)
        case.kill(victim)
        THEN[letter](case, victim)


for instant, letters in MATRIX.items():
    for victim, letter in zip(VICTIMS, letters):
        if letter != " ":
            name = f"test_{instant}_{victim}".replace(" ", "_").lower()
            setattr(Killed, name, functools.partialmethod(Killed.strike, instant, victim, letter))


class HandedOff(SystemTest):
    """What an operator can and cannot do about a machine that is the target's, or may be."""

    def command(self, *words, namespace=None):
        return self.lab.turntable(*words, "--run-dir", self.lab.run_directory("source"), namespace=namespace)

    def fence(self, *words):
        return self.command("fence", "m", "--by", "alice", *words)

    def dead_host(self, instant):
        """The target's host as it is seen from here when it has died: nothing of it runs, nobody answers."""
        case = Case(self, self.lab, instant, options=("--resume-window", "1s"))
        os.kill(case.target.number, signal.SIGKILL)
        self.lab.kill(case.receiver)
        self.assert_error(case.sender, 8, "preserved here", "resolve")
        self.assertNotEqual(case.source.status(), "running")
        self.assertEqual(self.lab.resolve()[0], "UNKNOWN")
        return case

    def test_cancel(self):
        case = Case(self, self.lab, "last pages")
        cancel = self.command("cancel", "m")
        self.assert_error(cancel, 8, "handed off already", "look at the target")
        self.assertEqual(cancel.output, [])
        case.sender.signal(signal.SIGINT)
        self.assertIn("too late to cancel", case.sender.wait_event("note", text="too late to cancel: the right to run was handed off")["text"])
        self.assertNotEqual(case.source.status(), "running")
        case.frozen.thaw()
        case.expect(case.sender, 0)
        case.runs_at_target()

    def test_fence_of_what_nobody_saw(self):
        case = self.dead_host("loading")
        again = self.command("run", "--name", "m", "--anew", "--", *self.lab.command("source", "m", **MACHINE))
        self.assert_error(again, 3, "may have it under epoch 2", "turntable fence")
        self.assert_error(self.fence("--clients", "unseen"), 2, "nobody says", case.receiver.address, "--host-is-off")
        self.assertNotEqual(case.source.status(), "running")
        fence = self.fence("--clients", "unseen", "--host-is-off")
        self.assertEqual(fence.wait(), 0, fence.transcript())
        self.assertIn("FENCED  epoch 2", fence.output[0])
        case.runs_at_source()
        self.assertEqual(self.lab.status()["epoch"], 3)
        self.assertEqual(self.lab.source_leftovers(), [])
        self.assertEqual(self.lab.journal("source"), ["offer", "handoff", "fenced"])
        self.assertEqual(self.lab.resolve()[0], "FENCED")
        # It counts for good.
        self.assert_error(self.fence("--clients", "may-have-seen", "--host-is-off"), 3, "this host's already")
        case.send_again()
        case.runs_at_target()
        self.assertEqual(self.lab.status(side="target")["epoch"], 4)

    def test_fence_of_what_clients_may_have_seen(self):
        case = self.dead_host("answer")
        fence = self.fence("--clients", "may-have-seen", "--host-is-off", "--json")
        self.assertEqual(fence.wait(), 0, fence.transcript())
        self.assertEqual((json.loads(fence.output[0])["state"], json.loads(fence.output[0])["epoch"]), ("FENCED", 2))
        self.assertEqual(case.source.program.wait(), 0, "what waited has ended")
        self.assertFalse((self.lab.run_directory("source") / "m").exists())
        self.assertEqual(self.lab.journal("source"), ["offer", "handoff", "fencedSeen"])
        # From its disk, under an epoch that nothing else ever ran under.
        self.lab.machine(**MACHINE)
        self.assertEqual(self.lab.status()["epoch"], 4)
        self.assertEqual(self.lab.journal("source", epoch=4), ["started"])
        self.assertEqual(self.lab.resolve()[0], "STARTED")

    def test_start_at_the_target_that_the_source_does_not_know_of(self):
        case = Case(self, self.lab, "answer")
        case.kill("send")
        case.expect(case.receiver, 0)
        os.kill(case.target.number, signal.SIGKILL)
        start = ("run", "--name", "m", "--run-dir", self.lab.run_directory("target"), "--", *self.lab.command("target", "m", **MACHINE))
        wait_for("the end of the machine", lambda: self.lab.status(side="target") is None)
        self.assert_error(self.lab.turntable(*start), 3, "not confirmed", "resolve", "--anew")
        # Whoever learns it at the source tells the target.
        case.receive_again()
        self.assertEqual(self.lab.resolve()[0], "COMMITTED")
        case.send_again()
        self.assertFalse((self.lab.run_directory("source") / "m").exists())
        starts_at_target(case)

    def test_no_fence_while_somebody_can_answer(self):
        case = Case(self, self.lab, "handoff")
        words = ("--clients", "unseen", "--host-is-off")
        self.assert_error(self.fence(*words), 3, "being moved already")
        case.kill("send")
        self.assert_error(self.fence(*words), 3, case.receiver.address, "waits", "resolve")
        self.assertEqual(self.lab.journal("source"), ["offer", "handoff"])
        next_sender_goes_on(case, "send")
        self.assert_error(self.fence(*words), 3, "it is the target's")


class Cut(SystemTest):
    """The line goes dark while a process is frozen, and comes back when both ends have noticed. Silence is noticed by its
    length, so they wait side by side."""

    # What `send` and `receive` then do: end with that code, or wait for the line.
    WAITS = None
    THEN = {"offered": (4, WAITS), "saving": (WAITS, WAITS), "handoff": (WAITS, WAITS), "answer": (WAITS, 0), "comparison": (0, 0)}

    def strike(self, instant):
        own = lab.Lab()
        try:
            case = Case(self, own, instant, line=True)
            self.tell(own, "cut")
            case.frozen.thaw()
            for program, code in zip((case.sender, case.receiver), self.THEN[instant]):
                if code == self.WAITS:
                    program.wait_event("interrupted", NOTICED_SECONDS)
                else:
                    self.assertEqual(program.wait(NOTICED_SECONDS), code, program.transcript())
            self.tell(own, "restore")
            if case.sender.process.poll():
                # It gave up before it knew that the target waits, and the target does not know that it did.
                case.runs_at_source()
                case.receiver.signal(signal.SIGTERM)
                case.expect(case.receiver, 130)
                case.send_again()
            case.receive_again()
            case.expect(case.sender, 0)
            case.runs_at_target()
        finally:
            problems = own.close()
        self.assertEqual(problems, [], f"something is left of {instant}")

    def tell(self, own, word):
        control = own.start(lab.LIGHTPATH, "--control", own.directory / "line.sock", "--tell", word)
        self.assertEqual(control.wait(), 0, control.transcript())

    def test_line(self):
        lab.freezer()  # made once, before there are threads
        with concurrent.futures.ThreadPoolExecutor(len(self.THEN)) as pool:
            strikes = {instant: pool.submit(self.strike, instant) for instant in self.THEN}
        for instant, strike in strikes.items():
            with self.subTest(instant):
                strike.result()


if __name__ == "__main__":
    unittest.main()
