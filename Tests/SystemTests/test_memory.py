"""Every page arrives as it was: compared one by one, at rest and in motion, and by the guest itself."""
import json
import re
import sys
import unittest
from pathlib import Path

import lab
from lab import wait_for
from case import SystemTest

NUMA = ("-m", "48", "-object", "memory-backend-ram,id=near,size=32M", "-object", "memory-backend-ram,id=far,size=16M",
        "-numa", "node,memdev=near", "-numa", "node,memdev=far")
DIMM = ("-m", "32M,slots=2,maxmem=128M", "-object", "memory-backend-ram,id=stick,size=24M", "-device", "pc-dimm,memdev=stick")


# Touching a page for the first time takes milliseconds under a KVM that is itself virtualised: small there, and patient.
LOADS = {
    "tcg": dict(memory=("-m", "48"), set="start=16 len=16", rate=60, least_pages=8000, seconds=lab.WAIT_SECONDS),
    "kvm": dict(memory=("-m", "4"), set="start=2 len=1", rate=1, least_pages=500, seconds=60),
}


class MemoryTest(SystemTest):
    def assert_same_memory(self, source, target, at_least):
        """`source` and `target` are the memory files of both."""
        self.assertEqual(sorted(source), sorted(target))
        filled = 0
        for name in source:
            differing, count = lab.differing_pages(source[name], target[name])
            self.assertEqual(differing[:20], [], f"{len(differing)} pages of {name} differ")
            filled += count
        self.assertGreater(filled, at_least, "too little of the memory holds anything: the comparison would say nothing")

    def exact(self, accelerator):
        # Loading the state of a paravirtual clock, KVM writes the time into guest memory before the guest runs.
        return "kvm, no clock" if accelerator == "kvm" else accelerator

    def move_paused(self, seed, streams, accelerator="tcg", memory=("-m", "32"), regions=1):
        details = dict(accelerator=self.exact(accelerator), memory=memory)
        load = LOADS[accelerator]
        report = 64 if accelerator == "kvm" else 256
        append = f"seed={seed} fill=1 zero=5 mode=rate {load['set']} rate={load['rate']} report={report}"
        source = self.lab.machine(append=append, seconds=load["seconds"], **details)
        source.wait_advance(load["seconds"])
        source.stop()
        if regions == 2:
            lab.scribble(source.memory(writable=True)[sorted(source.memory())[0]], seed)
        held = source.memory()
        self.assertEqual(len(held), regions)
        receiver = self.lab.receiver_of(append="seed=99", **details)
        sender = self.lab.sender(receiver.address, "--streams", streams)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        target = self.lab.arrival()
        self.assertEqual(target.status(), "paused", "a machine that was paused stays so")
        self.assert_same_memory(held, target.memory(), at_least=load["least_pages"] if accelerator == "kvm" else 1000)
        self.assertFalse(sender.wait_event("completed")["report"]["isRunning"])
        self.assertEqual(len(sender.wait_event("completed")["report"]["streams"]), streams)
        # The device state came too: it goes on where it was.
        before = source.writes()
        target.resume()
        target.wait_text(r"writes=(\d+)", load["seconds"])
        self.assertGreater(target.writes(), before)

    def test_paused_machine_seed_1_one_stream(self):
        self.move_paused(1, streams=1)

    def test_paused_machine_seed_2_four_streams(self):
        self.move_paused(2, streams=4)

    def test_paused_machine_seed_3_two_numa_regions(self):
        self.move_paused(3, streams=1, memory=NUMA, regions=2)

    def test_paused_machine_seed_4_dimm_four_streams(self):
        self.move_paused(4, streams=4, memory=DIMM, regions=2)

    def test_paused_machine_under_kvm(self):
        self.need_kvm()
        self.move_paused(5, streams=4, accelerator="kvm", memory=LOADS["kvm"]["memory"])

    def move_running(self, accelerator, streams, arguments=("--rate", "1gbit"), line=None, rate=None):
        """The target is kept from running its first instruction until it is compared."""
        load = LOADS[accelerator]
        details = dict(accelerator=self.exact(accelerator), memory=load["memory"])
        ends = line or (None, None)
        append = f"seed={streams} fill=1 zero=7 mode=rate rate={rate or load['rate']} {load['set']} check=1 report=64"
        source = self.lab.machine(append=append, namespace=ends[0], seconds=load["seconds"], **details)
        held = source.memory()
        source.wait_advance(load["seconds"])
        waiting = self.lab.machine(side="target", ready=None, options=("--incoming",), namespace=ends[1], append="seed=99", **details)
        gate = self.lab.start(
            sys.executable, Path(lab.__file__).parent / "qmp_gate.py", waiting.run_directory / "m/qmp.sock", self.lab.directory / "gate", waiting.number)
        gate.wait_event("ready")
        address = "127.0.0.1:0" if line is None else "10.5.0.2:4906"
        receiver = self.lab.receiver("--qmp", self.lab.directory / "gate", address=address, namespace=ends[1])
        sender = self.lab.sender(receiver.address, "--streams", streams, *arguments, namespace=ends[0])
        self.assertEqual((sender.wait(60), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        gate.wait_event("held")
        report = sender.wait_event("completed")["report"]
        self.assert_same_memory(held, waiting.memory(), at_least=load["least_pages"])
        self.assertTrue(report["isRunning"])
        again = sum(round["pagesSent"] for round in report["rounds"][1:]) + report["rounds"][-1]["pagesLeft"] + report["blackout"]["lastPages"]
        self.assertGreater(again, 0, "nothing was written meanwhile: the test shows too little")
        waiting.resume()
        waiting.wait_text(r"sweep n=\d+ pages=\d+ corrupt=0", load["seconds"])
        self.assertNotIn("CORRUPT", waiting.text())
        return report

    def test_running_machine_one_stream(self):
        self.move_running("tcg", streams=1)

    def test_running_machine_four_streams(self):
        self.move_running("tcg", streams=4)

    def test_running_machine_under_kvm(self):
        self.need_kvm()
        # It writes slowly there, so it is sent slowly.
        self.move_running("kvm", streams=4, arguments=("--rate", "50mbit"))

    def move_over_a_bad_line(self, streams):
        # Frames of 1500 bytes, so that a small machine is enough of them for some to be lost.
        line = self.lab.lightpath(rate="1gbit", delay="5ms", loss="0.01%", mtu=1500)
        self.move_running("tcg", streams=streams, arguments=("--downtime", "400ms"), line=line, rate=20)
        lost = json.loads(self.tell("stats"))
        self.assertGreater(sum(self.numbers_of(lost, "lost")), 0, f"the line lost nothing: {lost}")

    def tell(self, command):
        program = self.lab.start(lab.LIGHTPATH, "--control", self.lab.directory / "line.sock", "--tell", command, "--json")
        self.assertEqual(program.wait(), 0, program.transcript())
        return program.output[0]

    def numbers_of(self, value, word):
        if isinstance(value, dict):
            for key, member in value.items():
                if word in key.lower() and isinstance(member, int):
                    yield member
                yield from self.numbers_of(member, word)
        if isinstance(value, list):
            for member in value:
                yield from self.numbers_of(member, word)

    def test_line_with_loss_one_stream(self):
        self.move_over_a_bad_line(1)

    def test_line_with_loss_four_streams(self):
        self.move_over_a_bad_line(4)

    def self_check(self, accelerator):
        load = LOADS[accelerator]
        mode = "mode=fast start=16 len=4" if accelerator == "tcg" else f"mode=rate rate=1 {load['set']}"
        details = dict(accelerator=accelerator, memory=load["memory"], append=f"seed=6 fill=1 zero=3 {mode} check=1 report=64")
        source = self.lab.machine(seconds=load["seconds"], **details)
        receiver = self.lab.receiver_of(**details)
        sender = self.lab.sender(receiver.address)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        before = source.writes()
        target = self.lab.arrival()
        self.assertEqual(target.status(), "running")
        wait_for("the count to go on", lambda: target.writes() > before)
        sweeps = 2 if accelerator == "tcg" else 1
        wait_for(f"{sweeps} sweeps of all memory at the target", lambda: len(re.findall(r"PATTERN sweep.*corrupt=0", target.text())) >= sweeps, load["seconds"])
        self.assertNotIn("CORRUPT", source.text() + target.text())
        wait_for("the source's end", lambda: source.program.process.poll() is not None)

    def test_running_machine_checks_itself(self):
        self.self_check("tcg")

    def test_running_machine_checks_itself_under_kvm(self):
        self.need_kvm()
        self.self_check("kvm")


if __name__ == "__main__":
    unittest.main()
