"""Evacuations: several real machines leave a site over one line, in the order and at the rates that were planned."""
import json
import time
from concurrent.futures import ThreadPoolExecutor

import lab
from orchestra import identifier
from test_orchestrator import OrchestratorTest

# It tells every second that it works, and has little to send again: it writes the same megabyte.
IDLE = "mode=rate rate=16 len=1 check=1"
LINE = 160e6


class Evacuations(OrchestratorTest):
    def begin_fleet(self, busy=("b",), quiet=("q1", "q2", "q3", "q4", "q5"), rate=LINE, filled=""):
        self.lab.orchestrator()
        self.lab.sites()
        self.fleet = {}
        for name in (*busy, *quiet):
            self.fleet[name] = self.start_machine(name, megabytes=24, append="mode=rate rate=4 len=8 check=1" if name in busy else filled + IDLE)
        for name in self.fleet:
            self.lab.wait_vm("source", name)
        self.lab.wait_site("target")
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": rate})

    def evacuate(self, expect=201, **members):
        answer = self.lab.api.ask(
            "POST", "/v1/evacuations", {"source": "source", "target": "target", "downtimeMilliseconds": 2000, **members})
        self.assertEqual(answer.status, expect, answer.body)
        return answer.json

    def show(self, name):
        return self.lab.api.get(f"/v1/evacuations/{name}")

    def wait(self, name, condition=lambda e: e["state"] not in ("scheduled", "running"), seconds=90):
        def look():
            try:
                now = self.show(name)
            except OSError:
                return None
            return condition(now) and now
        return lab.wait_for(f"evacuation {name}", look, seconds)

    def assert_fleet_at(self, side, names):
        for name in names:
            self.fleet[name].run_directory = self.lab.run_directory(side)
            self.lab.wait_vm(side, name)
            self.assert_one_at(side, name)

    def test_six_machines_leave_though_the_orchestrator_is_killed(self):
        self.begin_fleet()
        name = identifier()
        with ThreadPoolExecutor(4) as pool:
            answers = sorted(pool.map(lambda _: self.lab.api.ask("POST", "/v1/evacuations", {
                "id": name, "source": "source", "target": "target", "downtimeMilliseconds": 2000, "priorities": {"q5": 1}}).status, range(4)))
        self.assertEqual(answers, [200, 200, 200, 201])
        first = self.wait(name, lambda e: e["machines"]["moving"] > 0)
        self.assertEqual(first["moves"][0]["vm"], "q5", first)
        self.assertGreater({move["vm"]: move for move in first["moves"]}["b"]["dirtyBytesPerSecond"], 0)
        self.wait(name, lambda e: e["machines"]["moved"] >= 2 and e["machines"]["moving"] > 0)
        self.lab.kill(self.lab.orchestrators["one"])
        self.lab.orchestrator()
        end = self.wait(name)
        self.assertEqual((end["state"], end["machines"]), ("completed", {"waiting": 0, "moving": 0, "moved": 6, "failed": 0}), end)
        self.assert_fleet_at("target", self.fleet)
        # A slow computer's machines may need more than one attempt; none is made twice.
        for move in end["moves"]:
            made = self.lab.api.get(f"/v1/migrations?vm={move['vm']}")["items"]
            self.assertEqual((len(made), sum(one["state"] == "completed" for one in made)), (move["attempts"], 1), made)
        # At no time had they more of the line than there is.
        moved = [self.lab.migration(move["migration"]) for move in end["moves"]]
        for one in moved:
            beside = [each for each in moved if each["created"] <= one["created"] < each["ended"]]
            self.assertLessEqual(sum(each["bitsPerSecond"] for each in beside), LINE * 1.001)
        self.assertEqual(self.lab.ctl("evacuations").wait(), 0)

    def test_it_is_cancelled(self):
        """Who was handed off is at the target, everybody else stays. The line needs ten seconds for all that they hold."""
        self.begin_fleet(busy=(), quiet=("q1", "q2", "q3"), rate=60e6, filled="seed=5 fill=1 ")
        begun = self.lab.ctl("evacuate", "source", "target", "--downtime", "2s")
        self.assertEqual(begun.wait(), 0, begun.transcript())
        name = begun.output[0]
        self.wait(name, lambda e: e["machines"]["moving"] > 0)
        cancelled = self.lab.ctl("evacuate", "--cancel", name)
        self.assertEqual(cancelled.wait(), 0, cancelled.transcript())
        end = self.wait(name)
        self.assertEqual(end["state"], "cancelled", end)
        self.assertGreater(end["machines"]["failed"], 0)
        for move in end["moves"]:
            self.assert_fleet_at("target" if move["state"] == "moved" else "source", [move["vm"]])

    def test_what_cannot_be_is_refused_before_anything_moves(self):
        self.lab.agent("target", memory="40M")
        self.begin_fleet(busy=(), quiet=("q1", "q2"))
        end = self.wait(self.evacuate()["id"])
        self.assertEqual((end["state"], end["problem"]["type"]), ("failed", "urn:turntable:problem:refused"), end)
        self.assertIn("48.0 MiB", end["problem"]["detail"])
        self.assertIn("40.0 MiB", end["problem"]["detail"])
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        end = self.wait(self.evacuate(vms=["q1"], deadline=soon)["id"])
        self.assertEqual(end["state"], "failed", end)
        self.assertRegex(end["problem"]["detail"], r"the plan takes .* left to its deadline")
        self.evacuate(409, target="source")
        end = self.wait(self.evacuate(vms=["q1", "elsewhere"])["id"])
        self.assertIn("elsewhere is not there", end["problem"]["detail"])
        self.assertEqual(self.lab.api.get("/v1/migrations")["items"], [])
        # One fits.
        waiting = self.lab.ctl("evacuate", "source", "target", "--vm", "q1", "--downtime", "2s", "--wait")
        self.assertEqual(waiting.wait(60), 0, waiting.transcript())
        self.assertIn("completed", waiting.output[-1])
        self.assert_fleet_at("target", ["q1"])
        self.assert_fleet_at("source", ["q2"])


class DirtyRate(OrchestratorTest):
    def test_what_a_machine_writes_is_measured(self):
        rates = {}
        for name, append in (("idle", "mode=idle"), ("busy", "mode=rate rate=20 len=32")):
            self.start_machine(name, append=append)
            asked = self.lab.turntable("status", name, "--json", "--dirty-rate", "--run-dir", self.lab.run_directory("source"))
            self.assertEqual(asked.wait(), 0, asked.transcript())
            rates[name] = json.loads(asked.output[0])["dirtyBytesPerSecond"]
        self.assertLessEqual(rates["idle"], 1 << 20)
        # It is asked for 20 MB/s; QEMU looks at a sample of the pages.
        self.assertTrue(4 << 20 <= rates["busy"] <= 40 << 20, rates)

    def test_memory_that_was_never_written_is_known(self):
        """The pattern guest writes all of it, if only with zeroes; a machine that has nothing to boot, what its firmware needs."""
        self.start_machine("written", append="mode=idle len=1")
        self.lab.machine("bare", command=["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none"], ready=None)
        used = {}
        for name in ("written", "bare"):
            asked = self.lab.turntable("status", name, "--json", "--dirty-rate", "--run-dir", self.lab.run_directory("source"))
            self.assertEqual(asked.wait(), 0, asked.transcript())
            used[name] = json.loads(asked.output[0])["usedMemoryBytes"]
        self.assertTrue(60 << 20 < used["written"] <= 64 << 20, used)
        self.assertTrue(0 < used["bare"] < 32 << 20, used)
