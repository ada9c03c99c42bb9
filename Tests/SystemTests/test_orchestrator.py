"""The orchestrator: real programs, real machines, a real etcd. Whatever is killed, one machine runs and nothing stays held."""
import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lab
import tokens
from case import SystemTest
from orchestra import API, Answer, ORCHESTRATOR, Etcd, Stage, free_port, identifier
from test_lightpaths import NSI_NETWORK, Network
from test_networks import Networks, urn


# A guest that is being copied for a second and a half on a line of 24 Mb/s, and tells every four seconds that it works.
SLOW = "mode=rate rate=1 len=4 check=1"


class OrchestratorTest(SystemTest):
    def setUp(self):
        self.lab = Stage()
        self.addCleanup(self._close)

    def begin(self, store=None, **details):
        """An orchestrator, two sites, and a machine at the first."""
        self.lab.orchestrator(store=store)
        self.lab.sites()
        self.machine = self.start_machine(**details)
        self.lab.wait_vm("source")
        return self.machine

    def start_machine(self, name="m", megabytes=64, append="mode=rate rate=5 len=16 check=1"):
        console = self.lab.directory / f"{name}.log"
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-m", str(megabytes), "-nodefaults", "-display", "none", "-kernel", lab.PATTERN, "-append",
            append, "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"]
        machine = lab.Machine(self.lab, "source", name)
        machine.console = console
        machine.program = self.lab.turntable("run", "--name", name, "--run-dir", self.lab.run_directory("source"), "--", *command)
        machine.program.wait_error("runs, process")
        self.lab.machines.append(machine)
        machine.wait_text(r"PATTERN filled.*\n")
        return machine

    def where(self, name="m"):
        """The sides at which the machine's QEMU lives."""
        return [side for side in ("source", "target") if (status := self.lab.status(name, side)) and status["state"] not in ("dead", "incoming")]

    def assert_one_at(self, side, name="m"):
        """It runs there and nowhere else, its memory is right, and nothing is held anywhere."""
        lab.wait_for(f"{name} at {side} alone", lambda: self.where(name) == [side])
        machine = next(each for each in self.lab.machines if each.name == name)
        machine.wait_advance()
        self.assertNotRegex(machine.text(), r"corrupt=[1-9]")
        api = self.lab.api
        self.assertEqual(self.lab.vm(name)["links"].get("migration"), None)
        self.assertEqual([line["reserved"] for line in api.get("/v1/lines")["items"] if line["reserved"]], [])
        lab.wait_for("slots to be given back", lambda: not any(self.slots()), 15)
        self.assertEqual([line for line in self.lab.processes().values() if " receive " in line], [])
        self.assertEqual(api.get("/v1/migrations?active=true")["items"], [])

    def freeze_and_kill(self, instant, target, **members):
        """The orchestrator stops where it is about to write this, is killed, and started again."""
        self.name = identifier()
        self.lab.kill(self.lab.orchestrators["one"])
        first = self.lab.orchestrator(environment=lab.freezing("before", instant.encode(), self.name.encode()))
        self.lab.wait_vm("source" if target == "target" else "target")
        self.lab.migrate(target, id=self.name, downtimeMilliseconds=members.pop("downtimeMilliseconds", 500), **members)
        first.wait_frozen()
        self.lab.kill(first)
        self.lab.orchestrator()

    def slots(self):
        """What the agents hold, by their files."""
        held = []
        for path in self.lab.directory.glob("run-*-state/agent/slots/*.json"):
            held += [path.stem] if '"state":"released"' not in path.read_text() else []
        return held


class Moving(OrchestratorTest):
    def test_there_and_back(self):
        self.begin()
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 1e9, "roundTripMilliseconds": 1})
        there = self.lab.migrate("target", downtimeMilliseconds=500, epoch=1)
        end = self.lab.wait_migration(there["id"])
        self.assertEqual((end["state"], end.get("problem"), end["report"]["epoch"]), ("completed", None, 2), end)
        self.assertEqual(end["bitsPerSecond"], 1e9)
        self.assertLessEqual(end["report"]["blackoutMilliseconds"], 500)
        told = [event["text"] for event in end["events"]]
        for words in ("holds 64.0 MiB", "may move it", "1.00 Gb/s of west", "waits for it at", "standing still", "completed"):
            self.assertTrue(any(words in text for text in told), (words, told))
        self.assert_one_at("target")
        answer = self.lab.api.ask("GET", "/v1/vms/m")
        self.assertEqual((answer.headers["ETag"], answer.json["rightToRun"]), ('"2"', {"site": "target", "epoch": 2}))
        self.assertEqual(self.lab.api.ask("GET", "/v1/vms/m", headers={"if-none-match": '"2"'}).status, 304)
        self.machine.run_directory = self.lab.run_directory("target")
        back = self.lab.ctl("migrate", "m", "source", "--downtime", "500ms", "--wait")
        self.assertEqual(back.wait(60), 0, back.transcript())
        self.assertIn("completed", back.output[-1])
        self.assert_one_at("source")
        self.assertEqual(self.lab.wait_vm("source")["rightToRun"]["epoch"], 3)
        both = self.lab.api.get("/v1/migrations?vm=m")["items"]
        self.assertEqual({each["target"] for each in both}, {"source", "target"})

    def test_a_budget_that_cannot_be_kept(self):
        self.begin(append="mode=rate rate=200 len=48 check=1")
        end = self.lab.wait_migration(self.lab.migrate(downtimeMilliseconds=1)["id"])
        self.assertEqual((end["state"], end["step"], end["problem"]["type"]), ("failed", "move", "urn:turntable:problem:refused"), end)
        self.assertRegex(end["problem"]["detail"], r"ms")
        self.assert_one_at("source")

    def test_no_room(self):
        self.lab.agent("target", memory="32M")
        self.begin()
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual((end["state"], end["step"]), ("failed", "hold"))
        self.assertIn("64.0 MiB", end["problem"]["detail"])
        self.assertIn("32.0 MiB of 32.0 MiB", end["problem"]["detail"])
        self.assert_one_at("source")

    def test_a_line_is_not_given_twice(self):
        self.begin(append=SLOW)
        self.start_machine("n")
        self.lab.wait_vm("source", "n")
        put = self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["target", "source"], "bitsPerSecond": 30e6})
        self.assertEqual(put.status, 201)
        first = self.lab.migrate(bitsPerSecond=24e6)
        self.lab.wait_migration(first["id"], lambda m: m["step"] == "move" and m.get("progress", {}).get("phase") == "copying")
        self.assertEqual(self.lab.api.get("/v1/lines/west")["reserved"], {first["id"]: 24e6})
        self.assertEqual(self.lab.api.get("/v1/vms/m")["links"]["line"], "/v1/lines/west")
        self.assertEqual(self.lab.api.ask("DELETE", "/v1/lines/west").status, 409)
        second = self.lab.wait_migration(self.lab.migrate(name="n", bitsPerSecond=20e6)["id"])
        self.assertEqual((second["state"], second["step"]), ("failed", "reserve"), second)
        self.assertIn("20.0 Mb/s are wanted and 6.0 Mb/s of 30.0 Mb/s are free", second["problem"]["detail"])
        end = self.lab.wait_migration(first["id"])
        self.assertEqual(end["state"], "completed", end)
        self.assert_one_at("source", "n")

    def test_asked_twice_it_moves_once(self):
        self.begin()
        name = identifier()
        with ThreadPoolExecutor(8) as pool:
            ask = lambda _: self.lab.api.ask("POST", "/v1/migrations", {"id": name, "vm": "m", "target": "target"})
            answers = sorted(answer.status for answer in pool.map(ask, range(8)))
        self.assertEqual(answers, [200] * 7 + [201])
        self.assertEqual(self.lab.migrate(id=name, downtimeMilliseconds=77, expect=409)["type"], "urn:turntable:problem:refused")
        self.assertEqual(self.lab.wait_migration(name)["state"], "completed")
        self.assert_one_at("target")
        self.assertEqual(self.lab.journal("target").count("committed"), 1)
        self.assertEqual(self.lab.migrate("source", epoch=1, expect=412)["status"], 412)
        self.assertEqual(self.lab.migrate("target", expect=409)["detail"], "it is at target already")

    def test_one_migration_of_a_machine_at_a_time(self):
        self.begin(append=SLOW)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})
        first = self.lab.migrate()
        problem = self.lab.migrate(expect=409)
        self.assertIn(first["id"], problem["detail"])
        self.lab.wait_migration(first["id"], lambda m: m.get("progress", {}).get("phase") == "copying")
        cancelled = self.lab.ctl("cancel", first["id"])
        self.assertEqual(cancelled.wait(), 0, cancelled.transcript())
        end = self.lab.wait_migration(first["id"])
        self.assertEqual((end["state"], end["problem"]["type"]), ("cancelled", "urn:turntable:problem:cancelled"), end)
        self.assert_one_at("source")
        self.assertEqual(self.lab.ctl("cancel", first["id"]).wait(), 0)

    def test_what_was_used_is_accounted_for(self):
        """One account for each migration, though the orchestrator is killed while it writes the end; and the sums."""
        self.begin()
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 200e6, "roundTripMilliseconds": 1})
        refused = self.lab.wait_migration(self.lab.migrate(bitsPerSecond=300e6)["id"])
        self.assertEqual(refused["state"], "failed", refused)
        began = time.time()
        self.freeze_and_kill('"state":"completed"', "target")
        moved = self.lab.wait_migration(self.name)
        self.assertEqual(moved["state"], "completed", moved)
        items = self.lab.api.get("/v1/accounting")["items"]
        self.assertEqual([(each["migration"], each["outcome"]) for each in items], [(refused["id"], "failed"), (moved["id"], "completed")])
        self.assertEqual((items[0]["bytesOnWire"], items[0]["lineSeconds"], items[0].get("line")), (0, 0, None))
        account = items[1]
        self.assertEqual([account[name] for name in ("requestedBy", "vm", "source", "target", "line", "ended", "diskBytes")],
                         ["third.test", "m", "source", "target", "west", moved["ended"], 0])
        self.assertEqual(account["bytesOnWire"], moved["report"]["bytesOnWire"])
        self.assertTrue(0 <= account["lineSeconds"] <= time.time() - began + 1, account)
        # Page by page, and some of them.
        first = self.lab.api.get("/v1/accounting?limit=1")
        self.assertEqual(first["items"] + self.lab.api.get(first["next"])["items"], items)
        for query, count in (("by=third.test", 2), ("by=source.test", 0), (f"since={moved['ended']}&by=third.test", 1), ("until=2020-01-01T00:00:00Z", 0)):
            found = [each for each in self.lab.api.get(f"/v1/accounting?{query}")["items"] if each["ended"] != refused["ended"] or "since" not in query]
            self.assertEqual(len(found), count, query)
        self.assertEqual(self.lab.api.ask("GET", "/v1/accounting?since=yesterday").status, 400)
        asked = self.lab.ctl("accounting", "--json")
        self.assertEqual(asked.wait(), 0, asked.transcript())
        totals = json.loads(asked.output[0])["totals"]
        self.assertEqual({each.get("line"): (each["migrations"], each["bytesOnWire"]) for each in totals}, {None: (1, 0), "west": (1, account["bytesOnWire"])})
        asked = self.lab.ctl("accounting", "--since", moved["ended"])
        self.assertEqual(asked.wait(), 0, asked.transcript())
        self.assertIn("BYTES ON WIRE", asked.output[0])

    def test_what_failed_is_accounted_for(self):
        """Two senders: one is killed, and the migration is cancelled in the middle of what the other sends."""
        self.begin(append="seed=5 fill=1 " + SLOW)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})
        name = self.lab.migrate()["id"]
        for number in (1, 2):
            sent = lambda: [event["progress"]["sent"]["bytesOnWire"] for event in self.said(name, number) if event["event"] == "progress"]
            lab.wait_for(f"sender {number} to have sent something", lambda: max(sent(), default=0) > 1 << 20, 60)
            if number == 1:
                os.kill(self.sender(name), signal.SIGKILL)
        self.assertEqual(self.lab.ctl("cancel", name).wait(), 0)
        self.assertEqual(self.lab.wait_migration(name)["state"], "cancelled")
        first = [event["progress"]["sent"] for event in self.said(name, 1) if event["event"] == "progress"][-1]
        last = [event["sent"] for event in self.said(name, 2) if event["event"] == "sent"][-1]
        account = self.lab.api.get("/v1/accounting")["items"][0]
        self.assertEqual((account["outcome"], account["bytesOnWire"], account["diskBytes"]), ("cancelled", first["bytesOnWire"] + last["bytesOnWire"], 0))
        self.assertLess(account["bytesOnWire"], 64 << 20)
        self.assert_one_at("source")

    def said(self, name, number=1):
        """What one of a migration's senders has printed."""
        path = Path(f"{self.lab.run_directory('source')}-state/agent/output/{name}-send-{number}")
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def sender(self, name):
        """Its process: it prints into that migration's file."""
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{name}-send-" in os.readlink(entry / "fd/1"):
                    return int(entry.name)
            except OSError:
                pass
        raise AssertionError("nobody sends")

    def test_another_rate_in_use(self):
        """From 16 Mb/s, at which it would take a minute, to 400 Mb/s; and to more than the line has, which leaves it as it is."""
        self.begin(megabytes=128, append="seed=5 fill=1 mode=rate rate=1 len=1")
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 400e6})
        name = self.lab.migrate(bitsPerSecond=16e6)["id"]
        rates = lambda: [event["progress"]["rateBitsPerSecond"] for event in self.said(name) if event["event"] == "progress"]
        lab.wait_for("it to send", lambda: len(rates()) >= 10, 60)
        self.assertLess(max(rates()[4:]), 24e6)
        before = len(rates())
        refused = self.lab.ctl("rate", name, "1gbit")
        self.assertEqual(refused.wait(), 0, refused.transcript())
        lab.wait_for("the refusal", lambda: any(
            "it stays at its rate" in event["text"] and "400.0 Mb/s are free for it" in event["text"] for event in self.lab.migration(name)["events"]), 30)
        self.assertEqual(self.lab.migration(name)["bitsPerSecond"], 16e6)
        asked = self.lab.ctl("rate", name, "400mbit")
        self.assertEqual(asked.wait(), 0, asked.transcript())
        end = self.lab.wait_migration(name)
        self.assertEqual((end["state"], end["bitsPerSecond"]), ("completed", 400e6), end)
        self.assertGreater(max(rates()[before:]), 100e6)
        self.assertLess(end["report"]["totalSeconds"], 45)
        self.assert_one_at("target")
        self.assertEqual(self.lab.api.ask("PUT", f"/v1/migrations/{name}/rate", {"bitsPerSecond": 4e8}).status, 409)
        self.assertEqual(self.lab.api.ask("PUT", f"/v1/migrations/{name}/rate", {"bitsPerSecond": 4}).status, 400)

    def test_at_its_time(self):
        self.begin()
        late, never = (time.time() + seconds for seconds in (3, 3600))
        at = lambda seconds: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
        forgotten = self.lab.migrate(startAt=at(never))
        planned = self.lab.migrate(startAt=at(late))
        self.assertEqual((planned["state"], self.lab.vm()["links"].get("migration")), ("scheduled", None))
        follower = self.lab.ctl("follow", planned["id"], "--json")
        self.assertEqual(self.lab.ctl("cancel", forgotten["id"]).wait(), 0)
        self.assertEqual(self.lab.wait_migration(forgotten["id"])["state"], "cancelled")
        end = self.lab.wait_migration(planned["id"])
        self.assertEqual(end["state"], "completed", end)
        self.assertGreaterEqual(end["events"][1]["time"], at(late))
        self.assertEqual(follower.wait(), 0, follower.transcript())
        self.assert_one_at("target")


class Granted(OrchestratorTest):
    """Sites that demand tokens, and a domain with a policy."""

    def trusting(self, key="domain", **details):
        """Both sites trust the domain's key; the orchestrator signs with `key`."""
        for name in ("domain", "other"):
            self.assertEqual(self.lab.turntable("keys", "domain", "--in", self.lab.directory / name).wait(), 0)
        for side in ("source", "target"):
            self.lab.agent(side, options=("--trust-domain", f"lab={self.lab.directory}/domain/domain.pem"))
        options = ("--domain-key", self.lab.directory / key / "domain.key") if key else ()
        self.lab.orchestrator(options=(*options, *details.pop("options", ())))
        self.lab.sites()
        self.machine = self.start_machine(**details)
        self.lab.wait_vm("source")

    def remembered(self, side):
        return [path.read_text().splitlines()[1:] for path in sorted(Path(f"{self.lab.run_directory(side)}-state/tokens").iterdir())]

    def test_there_and_back(self):
        self.trusting()
        self.assertIn('["lab"]', self.lab_sites())
        there = self.lab.wait_migration(self.lab.migrate(downtimeMilliseconds=500)["id"])
        self.assertEqual(there["state"], "completed", there)
        self.assertTrue(any("; token " in event["text"] for event in there["events"]), there["events"])
        self.assert_one_at("target")
        self.machine.run_directory = self.lab.run_directory("target")
        back = self.lab.wait_migration(self.lab.migrate("source", downtimeMilliseconds=500)["id"])
        self.assertEqual(back["state"], "completed", back)
        self.assert_one_at("source")
        # Both sites know each token, in what it was used for and that it is void; the session is the receiver's word.
        for side, other in (("source", back), ("target", there)):
            for lines in self.remembered(side):
                self.assertIn(lines[0], [f"used migration {each['id']}" for each in (there, back)])
                self.assertEqual(lines[-1], "revoked")
            self.assertEqual([lines[0] for lines in self.remembered(side) if any(line.startswith("used session") for line in lines)], [f"used migration {other['id']}"])

    def test_over_a_link_element(self):
        """One on the way there, and none on the way back."""
        self.trusting()
        directory = self.lab.directory
        self.assertEqual(self.lab.turntable("keys", "link", "--in", directory / "link").wait(), 0)
        element = self.lab.turntable(
            "link", "west", "127.0.0.1", "--json", "--listen", "127.0.0.1:0", "--key", directory / "link/link.key", "--trust-domain",
            f"lab={directory}/domain/domain.pem", "--state-dir", directory / "state-link")
        via = f"target=127.0.0.1:{int(element.wait_event('listening')['port'])}={directory}/link/link.pem"
        described = self.lab.ctl("line", "west", "source", "target", "--rate", "1gbit", "--via", via)
        self.assertEqual(described.wait(), 0, described.transcript())
        for target, site in (("target", "target"), ("source", "source")):
            end = self.lab.wait_migration(self.lab.migrate(target, downtimeMilliseconds=500)["id"])
            self.assertEqual(end["state"], "completed", end)
            self.assert_one_at(site)
            self.machine.run_directory = self.lab.run_directory(site)
            self.assertEqual(sum(event["event"] == "passed" for event in element.events), 2)
        # It is the token that opens the line, not the line's description.
        self.lab.kill(element)
        other = self.lab.turntable(
            "link", "east", "127.0.0.1", "--json", "--listen", "127.0.0.1:0", "--key", directory / "link/link.key", "--trust-domain",
            f"lab={directory}/other/domain.pem", "--state-dir", directory / "state-other")
        via = f"target=127.0.0.1:{int(other.wait_event('listening')['port'])}={directory}/link/link.pem"
        self.assertEqual(self.lab.ctl("line", "west", "source", "target", "--rate", "1gbit", "--via", via).wait(), 0)
        end = self.lab.wait_migration(self.lab.migrate(downtimeMilliseconds=500)["id"])
        self.assertEqual(end["state"], "failed", end)
        self.assertIn("the signature of link 1", end["problem"]["detail"])
        self.assert_one_at("source")

    def lab_sites(self):
        asked = self.lab.ctl("sites")
        self.assertEqual(asked.wait(), 0, asked.transcript())
        return "\n".join(asked.output)

    def refused(self, key, words):
        self.trusting(key)
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual((end["state"], end["step"], end["problem"]["type"]), ("failed", "hold", "urn:turntable:problem:refused"), end)
        self.assertIn(words, end["problem"]["detail"])
        self.assert_one_at("source")

    def test_without_a_key_no_site_moves_anything(self):
        self.refused(None, "none is shown")

    def test_another_key_is_no_key_of_the_domain(self):
        self.refused("other", "the signature of link 1")

    def test_cancelling_revokes(self):
        self.trusting(append=SLOW)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})
        name = self.lab.migrate()["id"]
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        self.assertEqual(self.lab.ctl("cancel", name).wait(), 0)
        self.assertEqual(self.lab.wait_migration(name)["state"], "cancelled")
        self.assert_one_at("source")
        for side in ("source", "target"):
            self.assertEqual([lines[-1] for lines in self.remembered(side)], ["revoked"], side)
        # The next one has a token of its own, under an epoch of its own.
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual(end["state"], "completed", end)
        self.assert_one_at("target")

    def test_an_agent_takes_a_token_for_one_migration(self):
        """Asked as an orchestrator asks, with tokens of other tools than ours."""
        self.trusting()
        agent = API(f"https://127.0.0.1:{self.lab.agents['target'].port}", self.lab.keys("third"))
        key = self.lab.directory / "domain/domain.key"
        holder = tokens.key_digest(self.lab.keys("source") / "host.pem")

        def hold(name, token, machine="x", source="source.test"):
            body = {"machine": machine, "memoryBytes": 1 << 20, "processors": 1, "sourceHost": source, **({"token": token} if token else {})}
            return agent.ask("PUT", f"/v1/slots/{name}", body, headers={"turntable-term": "lab 1000"})

        def token(**other):
            return tokens.token(tokens.link(tokens.claims(holder, machine=other.pop("machine", "x"), **other), key))

        first, good = identifier(), token()
        now = int(time.time())
        for bad, words in (
                (None, "none is shown"), ("nonsense!", "no token"), (token(not_after=now - 5), "valid until"), (token(issuer="other"), "not trusted"),
                (token(machine="y"), "machine y"), (token(target="third.test"), "target third.test"), (token(source="third.test"), "from third.test")):
            answer = hold(first, bad)
            self.assertEqual(answer.status, 409, words)
            self.assertIn(words, answer.json["detail"])
        self.assertEqual([hold(first, good).status for _ in range(2)], [200, 200])
        replayed = hold(identifier(), good)
        self.assertEqual(replayed.status, 409)
        self.assertIn(f"used already, for migration {first}", replayed.json["detail"])
        self.assertEqual(agent.ask("DELETE", f"/v1/slots/{first}", headers={"turntable-term": "lab 1000"}).status, 200)
        self.assertIn("was revoked", hold(first, good).json["detail"])
        # Also for an agent that was started again.
        self.lab.kill(self.lab.agents["target"])
        self.lab.agent("target", options=("--trust-domain", f"lab={self.lab.directory}/domain/domain.pem"))
        self.assertIn("was revoked", hold(identifier(), good).json["detail"])

    def test_a_policy_decides_and_explains(self):
        policy = self.lab.directory / "policy"
        policy.write_text("allow source.test move m to target up-to 1G via west\nallow third.test move nothing\n")
        self.trusting(options=("--policy", policy))
        port = self.lab.orchestrators["one"].port
        asked = self.lab.ctl("policy", "check", "m", "target", "--as", "source.test")
        self.assertEqual((asked.wait(), asked.output[0][:31]), (0, "allowed: line 1 of the policy a"), asked.transcript())
        asked = self.lab.ctl("policy", "check", "m", "target")
        self.assertEqual(asked.wait(), 3, asked.transcript())
        self.assertIn("none is about third.test moving m", asked.output[0])
        # An operator of the domain needs a rule as anybody does.
        self.assertIn("none is about third.test moving m", self.lab.migrate(expect=403)["detail"])
        source = API(f"https://127.0.0.1:{port}", self.lab.keys("source"))
        self.assertEqual(source.ask("POST", "/v1/policy/check", {"vm": "m", "target": "target", "who": "third.test"}).status, 403)
        # The line that the rule names is not there; then it is.
        end = self.lab.wait_migration(self.lab.migrate(api=source)["id"])
        self.assertEqual((end["state"], end["step"]), ("failed", "reserve"), end)
        self.assertIn("west", end["problem"]["detail"])
        for line in ("east", "west"):
            self.lab.api.ask("PUT", f"/v1/lines/{line}", {"ends": ["source", "target"], "bitsPerSecond": 1e9 if line == "west" else 2e9})
        end = self.lab.wait_migration(self.lab.migrate(api=source)["id"])
        self.assertEqual((end["state"], end["links"]["line"]), ("completed", "/v1/lines/west"), end)
        self.assert_one_at("target")


    def test_a_policy_is_read_again(self):
        """On SIGHUP or when an operator asks; one with an error changes nothing, and says so."""
        policy = self.lab.directory / "policy"
        policy.write_text("deny * move m\n")
        one = self.lab.orchestrator(options=("--policy", policy))
        first = self.lab.api.get("/v1/policy")
        self.assertEqual((first["digest"], first["rules"]), (hashlib.sha256(policy.read_bytes()).hexdigest(), 1))
        policy.write_text("deny * move m\nallow * move n\n")
        one.signal(signal.SIGHUP)
        now = lab.wait_for("the new policy", lambda: (now := self.lab.api.get("/v1/policy"))["rules"] == 2 and now)
        self.assertEqual(now["digest"], hashlib.sha256(policy.read_bytes()).hexdigest())
        policy.write_text("allow everybody everything\n")
        one.signal(signal.SIGHUP)
        broken = lab.wait_for("the refusal", lambda: (now := self.lab.api.get("/v1/policy")).get("refused") and now)
        self.assertIn("line 1", broken["refused"])
        self.assertEqual((broken["digest"], broken["read"]), (now["digest"], now["read"]))
        one.wait_error("the policy stays as it was read at")
        asked = self.lab.ctl("policy", "reload")
        self.assertEqual(asked.wait(), 3, asked.transcript())
        policy.write_text("allow * move m\n")
        asked = self.lab.ctl("policy", "reload")
        self.assertEqual((asked.wait(), asked.output[0].split(",")[1]), (0, " 1 rules"), asked.transcript())
        self.assertEqual(API(f"https://127.0.0.1:{one.port}", self.lab.keys("source")).ask("POST", "/v1/policy/reload").status, 403)
        self.assertNotIn("refused", self.lab.api.get("/v1/policy"))


    def test_web_clients_show_a_token_and_no_certificate(self):
        """At a listener of their own, which offers what they may ask; the other one demands a certificate as before."""
        self.trusting(options=("--web", "127.0.0.1:0"))
        address = self.lab.orchestrators["one"].wait_event("listening for Web clients")["address"]
        context = ssl.create_default_context(cafile=self.lab.keys("third") / "authority.pem")

        def ask(token, method="GET", path="/v1/vms/m", body=None):
            connection = http.client.HTTPSConnection(address, context=context, timeout=20)
            headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return Answer(connection.getresponse())

        def issue(*options, key="domain", domain="lab", client="third.test"):
            issued = self.lab.turntable(
                "token", "web", "--domain", domain, "--domain-key", self.lab.directory / key / "domain.key", "--client", client, "--valid", "1h", *options)
            self.assertEqual(issued.wait(), 0, issued.transcript())
            return issued.output[0]

        reader, mover = issue(), issue("--scope", "move")
        for bad, words in ((None, "none is shown"), ("x.y.z", "it is no token"), (issue(key="other"), "its signature"), (issue(domain="other"), "other issued it")):
            answer = ask(bad)
            self.assertEqual((answer.status, answer.headers["WWW-Authenticate"]), (401, "Bearer"), answer.body)
            self.assertIn(words, answer.json["detail"])
        self.assertEqual(ask(reader).json["rightToRun"]["site"], "source")
        self.assertEqual(ask(reader, "POST", "/v1/policy/check", {"vm": "m", "target": "target"}).json["isAllowed"], True)
        wanted = {"vm": "m", "target": "target", "downtimeMilliseconds": 500}
        answer = ask(reader, "POST", "/v1/migrations", wanted)
        self.assertEqual((answer.status, answer.json["type"]), (403, "urn:turntable:problem:scope"), answer.body)
        # What the name may do decides as ever, and what only operators' tools ask is not there.
        self.assertEqual(ask(issue("--scope", "move", client="stranger.test"), "POST", "/v1/migrations", wanted).status, 403)
        self.assertEqual([ask(mover, "DELETE", "/v1/sites/target").status, ask(mover, "POST", "/v1/grants", {}).status], [405, 404])
        answer = ask(mover, "POST", "/v1/migrations", wanted)
        self.assertEqual((answer.status, answer.json["requestedBy"]), (201, "third.test"), answer.body)
        self.assertEqual(self.lab.wait_migration(answer.json["id"])["state"], "completed")
        self.assert_one_at("target")


class Peered(OrchestratorTest):
    """The target's site is of a domain of its own, with a policy and a key of its own; its agent trusts no other."""

    def begin_peered(self, policy):
        for name in ("lab", "east"):
            self.assertEqual(self.lab.turntable("keys", "domain", "--in", self.lab.directory / name).wait(), 0)
        self.lab.agent("source", options=("--trust-domain", f"lab={self.lab.directory}/lab/domain.pem"))
        target = self.lab.agent("target", options=("--trust-domain", f"east={self.lab.directory}/east/domain.pem", "--orchestrator", "target.test"))
        self.lab.orchestrator(options=("--domain-key", self.lab.directory / "lab/domain.key"))
        rules = self.lab.directory / "east.policy"
        rules.write_text(policy)
        east = self.lab.start(
            ORCHESTRATOR, "serve", "--json", "--listen", "127.0.0.1:0", "--store", self.lab.directory / "east.sqlite", "--domain", "east", "--policy", rules,
            "--domain-key", self.lab.directory / "east/domain.key", "--operator", "third.test", "--keys", self.lab.keys("target"))
        url = "https://" + east.wait_event("listening")["address"]
        self.east = API(url, self.lab.keys("third"))
        self.lab.sites()
        agent = f"https://127.0.0.1:{target.port}"
        self.assertEqual(self.lab.api.ask("PUT", "/v1/sites/target", {"agent": agent, "authority": url}).status, 200)
        self.assertEqual(self.east.ask("PUT", "/v1/sites/target", {"agent": agent}).status, 201)
        self.machine = self.start_machine()
        self.lab.wait_vm("source")
        self.lab.wait_site("target", self.east)

    def test_there_and_back(self):
        """Each site is shown the token of its own domain, whichever way the machine goes."""
        self.begin_peered("allow third.test move m from source,target to source,target\n")
        for there in ("target", "source"):
            end = self.lab.wait_migration(self.lab.migrate(there, downtimeMilliseconds=500)["id"])
            self.assertEqual(end["state"], "completed", end)
            self.assertTrue(any(event["text"].startswith("east grants its part: line 1") for event in end["events"]), end["events"])
            self.machine.run_directory = self.lab.run_directory(there)
            self.lab.wait_vm(there)
            self.assert_one_at(there)

    def test_the_other_domain_denies_it(self):
        self.begin_peered("deny third.test move m\nallow * move *\n")
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual((end["state"], end["step"]), ("failed", "authorise"), end)
        self.assertIn("line 1 of the policy denies it", end["problem"]["detail"])
        self.assert_one_at("source")

    def test_what_is_said_of_its_site_must_be_so(self):
        self.begin_peered("allow third.test move *\n")
        good = {
            "vm": "m", "epoch": 2, "memoryBytes": 1 << 26, "source": "source", "target": "target", "sourceHost": "source.test", "targetHost": "target.test",
            "holder": base64.b64encode(tokens.key_digest(self.lab.keys("source") / "host.pem")).decode()}
        for status, changes in ((200, {}), (409, {"targetHost": "third.test"}), (404, {"target": "nowhere"}), (400, {"holder": "AAAA"}), (400, {"memoryBytes": 0})):
            answer = self.east.ask("POST", "/v1/grants", {**good, **changes})
            self.assertEqual(answer.status, status, (changes, answer.body))
        stranger = API(self.east.url.geturl(), self.lab.keys("source")).ask("POST", "/v1/grants", good)
        self.assertEqual(stranger.status, 403, stranger.body)
        self.assertIn("source.test", stranger.json["detail"])


class Killed(OrchestratorTest):
    """kill -9 of each process, at each step."""

    def test_orchestrator_at_every_step(self):
        """It dies when a step is done and before that is remembered; the next one goes on."""
        self.begin()
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 1e9})
        here, there = "source", "target"
        for instant in ('"step":"hold"', '"step":"reserve"', '"step":"move"', '"receiver":"', '"step":"settle"', '"state":"completed"'):
            with self.subTest(instant):
                self.freeze_and_kill(instant, there)
                end = self.lab.wait_migration(self.name)
                self.assertEqual(end["state"], "completed", end)
                self.machine.run_directory = self.lab.run_directory(there)
                self.lab.wait_vm(there)
                self.assert_one_at(there)
                here, there = there, here

    def test_orchestrator_while_it_undoes(self):
        self.begin(append="mode=rate rate=200 len=48 check=1")
        for instant in ('"state":"undoing"', '"state":"failed"'):
            with self.subTest(instant):
                self.freeze_and_kill(instant, "target", downtimeMilliseconds=1)
                self.assertEqual(self.lab.wait_migration(self.name)["state"], "failed")
                self.assert_one_at("source")

    def test_source_agent(self):
        self.kill_agent("source")

    def test_target_agent(self):
        self.kill_agent("target")

    def kill_agent(self, side):
        """Its programs go on without it; started again it finds them."""
        self.begin(append=SLOW)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})
        name = self.lab.migrate()["id"]
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        self.lab.kill(self.lab.agents[side])
        time.sleep(1)
        self.lab.agent(side)
        end = self.lab.wait_migration(name)
        self.assertEqual(end["state"], "completed", end)
        self.assertEqual(self.lab.journal("target").count("committed"), 1)
        self.machine.run_directory = self.lab.run_directory("target")
        self.assert_one_at("target")

    def test_sender_and_receiver(self):
        """The engine's own processes: each is started again by its agent, and goes on."""
        self.begin(append=SLOW)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})
        name = self.lab.migrate()["id"]
        for command in (" send ", " receive "):
            self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
            found = [number for number, line in self.lab_processes() if command in line]
            self.assertEqual(len(found), 1, command)
            os.kill(found[0], signal.SIGKILL)
            lab.wait_for("its end", lambda: found[0] not in dict(self.lab_processes()))
        end = self.lab.wait_migration(name)
        self.assertEqual(end["state"], "completed", end)
        self.machine.run_directory = self.lab.run_directory("target")
        self.assert_one_at("target")

    def lab_processes(self):
        return [(n, line) for n, line in all_processes() if lab.TURNTABLE in line and str(self.lab.directory) in line or " send m 127.0.0.1" in line]


def all_processes():
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append((int(entry), Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")))
            except OSError:
                pass
    return found


@unittest.skipUnless(shutil.which("etcd"), "there is no etcd (apt-get install etcd-server)")
class SeveralOrchestrators(OrchestratorTest):
    def begin_two(self, **details):
        self.etcd = Etcd(self.lab)
        self.begin(store=self.etcd.address, **details)
        self.lab.orchestrator("two", store=self.etcd.address)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 24e6})

    def masters(self):
        return {name: each.api.get("/v1/status") for name, each in self.lab.orchestrators.items() if each.process.poll() is None}

    def test_the_master_dies(self):
        """The other one takes over in the middle of the copy; what it decides no third one decides again."""
        self.begin_two(append=SLOW)
        known = lab.wait_for("a master", lambda: self.masters()["one"].get("master"))
        master, other = ("one", "two") if known == self.masters()["one"]["name"] else ("two", "one")
        name = self.lab.migrate(api=self.lab.orchestrators[other].api)["id"]
        follower = self.lab.ctl("follow", name)
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying", api=self.lab.orchestrators[other].api)
        self.lab.kill(self.lab.orchestrators.pop(master))
        end = self.lab.wait_migration(name)
        self.assertEqual(end["state"], "completed", end)
        self.assertEqual(self.masters()[other]["master"], self.masters()[other]["name"])
        self.assertEqual(self.lab.journal("target").count("committed"), 1)
        self.assertEqual(follower.wait(), 0, follower.transcript())
        self.machine.run_directory = self.lab.run_directory("target")
        self.assert_one_at("target")

    def test_a_master_that_sleeps_is_deposed(self):
        """Stopped for longer than its lease it comes back with a term that nobody heeds, neither the store nor a site."""
        self.begin_two(append=SLOW)
        known = lab.wait_for("a master", lambda: self.masters()["one"].get("master"))
        master, other = ("one", "two") if known == self.masters()["one"]["name"] else ("two", "one")
        api = self.lab.orchestrators[other].api
        name = self.lab.migrate(api=api)["id"]
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying", api=api)
        self.lab.orchestrators[master].signal(signal.SIGSTOP)
        lab.wait_for("another master", lambda: api.get("/v1/status").get("master") not in (None, known))
        self.lab.orchestrators[master].signal(signal.SIGCONT)
        end = self.lab.wait_migration(name, api=api)
        self.assertEqual(end["state"], "completed", end)
        self.assertEqual([event["text"] for event in end["events"]].count("completed"), 1)
        self.assertEqual(self.lab.journal("target").count("committed"), 1)
        self.machine.run_directory = self.lab.run_directory("target")
        self.assert_one_at("target")

    def test_etcd_is_gone_for_a_while(self):
        self.begin_two(append=SLOW)
        name = self.lab.migrate()["id"]
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        self.lab.kill(self.etcd.program)
        time.sleep(2)
        self.etcd.start()
        end = self.lab.wait_migration(name)
        self.assertEqual(end["state"], "completed", end)
        self.machine.run_directory = self.lab.run_directory("target")
        self.assert_one_at("target")


class Lightpaths(OrchestratorTest):
    """A line that a provider sets up for each migration; whatever is killed, nothing of it remains."""

    def begin_with(self, kind, rate=400e6, **details):
        if kind == "networks":
            self.network = Networks(self.lab, lease=120)
            self.controller = self.network.controllers["west"]
            self.controller.port = self.network.ports["west"]
            lab.wait_for("the networks to know each other", lambda: not any(self.network.faults(each) for each in self.network.controllers))
        else:
            self.network = Network(self.lab)
            self.controller = self.network.controller()
        url = f"https://127.0.0.1:{self.controller.port}"
        port = free_port()
        if kind == "nsi":
            self.lab.orchestrator(port=port, options=("--nsi-name", "urn:ogf:network:lab:nsa", "--nsi-url", f"https://127.0.0.1:{port}"))
            provider = {"kind": "nsi", "url": url + "/v1/nsi", "nsa": f"{NSI_NETWORK}:nsa", "ends": [f"{NSI_NETWORK}:a", f"{NSI_NETWORK}:c"]}
        else:
            self.lab.orchestrator()
            provider = {"kind": "controller", "url": url, "ends": ["w", f"{urn('east')}:e"] if kind == "networks" else ["a", "c"]}
        self.lab.sites()
        self.machine = self.start_machine(**details)
        self.lab.wait_vm("source")
        answer = self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": rate, "roundTripMilliseconds": 2, "provider": provider})
        self.assertEqual(answer.status, 201, answer.body)

    def paths(self):
        if isinstance(self.network, Networks):
            known = [(path["request"]["ends"], self.controller.api.get(f"/v1/lightpaths/{path['id']}")) for path in self.controller.api.get("/v1/network-paths")]
            return [(path["state"], ends, path["bitsPerSecond"]) for ends, path in known]
        return [(path["state"], path["ends"], path["bitsPerSecond"]) for path in self.controller.api.get("/v1/lightpaths")]

    def assert_given_back(self):
        self.assertEqual({state for state, *_ in self.paths()}, {"terminated"})
        self.assertEqual(self.network.remains(), [])

    def there_and_back(self, kind, ends=("a", "c"), interfaces=5):
        self.begin_with(kind, 24e6, append=SLOW)
        for here, there, ends in (("source", "target", list(ends)), ("target", "source", list(reversed(ends)))):
            name = self.lab.migrate(there)["id"]
            self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
            self.assertIn(("provisioned", ends, 24e6), self.paths())
            self.assertEqual(len([line for line in self.network.remains() if "tt" in line]), interfaces)
            end = self.lab.wait_migration(name)
            self.assertEqual((end["state"], end["bitsPerSecond"]), ("completed", 24e6), end)
            self.assert_given_back()
            self.machine.run_directory = self.lab.run_directory(there)
            self.lab.wait_vm(there)
            self.assert_one_at(there)

    def test_controller(self):
        self.there_and_back("controller")

    def test_nsi(self):
        self.there_and_back("nsi")

    def test_several_networks(self):
        """The line is a path over three networks, of which only the first is asked for it."""
        self.there_and_back("networks", ("w", f"{urn('east')}:e"), 11)
        self.assertEqual(self.network.reserved(), [])

    def test_the_path_is_changed_in_use(self):
        """By somebody else than this migration: it follows."""
        self.begin_with("controller", 16e6, megabytes=128, append="seed=5 fill=1 mode=rate rate=1 len=1")
        name = self.lab.migrate()["id"]
        self.lab.wait_migration(name, lambda m: (m.get("progress") or {}).get("rateBitsPerSecond", 0) > 0)
        changed = self.controller.api.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": 400e6})
        self.assertEqual(changed.status, 200, changed.body)
        end = self.lab.wait_migration(name)
        self.assertEqual((end["state"], end["bitsPerSecond"]), ("completed", 400e6), end)
        self.assertTrue(any("it has 400.0 Mb/s of west now" in event["text"] for event in end["events"]), end["events"])
        self.assertLess(end["report"]["totalSeconds"], 45)
        self.assert_given_back()

    def kill_at(self, kind, instants):
        self.begin_with(kind)
        here, there = "source", "target"
        for instant in instants:
            with self.subTest(instant):
                self.freeze_and_kill(instant, there, downtimeMilliseconds=2000)
                end = self.lab.wait_migration(self.name)
                self.assertEqual(end["state"], "completed", end)
                self.assert_given_back()
                self.machine.run_directory = self.lab.run_directory(there)
                self.lab.wait_vm(there)
                self.assert_one_at(there)
                here, there = there, here

    def test_orchestrator_killed_with_a_controller(self):
        self.kill_at("controller", ('"line":"west"', '"step":"move"', '"receiver":"', '"step":"settle"', '"state":"completed"'))

    def test_orchestrator_killed_with_nsi(self):
        self.kill_at("nsi", ('"line":"west"', '"step":"move"', '"state":"completed"'))

    def test_undone(self):
        """A machine that cannot be moved gives its lightpath back, also when the orchestrator dies meanwhile."""
        self.begin_with("controller", append="mode=rate rate=200 len=48 check=1")
        for instant in ('"state":"undoing"', '"state":"failed"'):
            with self.subTest(instant):
                self.freeze_and_kill(instant, "target", downtimeMilliseconds=1)
                self.assertEqual(self.lab.wait_migration(self.name)["state"], "failed")
                self.assert_given_back()
                self.assert_one_at("source")

    def test_controller_killed(self):
        """It comes back and has the path; the machine moved on meanwhile."""
        self.begin_with("controller", 24e6, append=SLOW)
        name = self.lab.migrate()["id"]
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        port = self.controller.port
        self.lab.kill(self.controller)
        self.controller = self.network.controller(port=port)
        self.assertEqual(self.paths(), [("provisioned", ["a", "c"], 24e6)])
        self.assertEqual(self.lab.wait_migration(name)["state"], "completed")
        self.assert_given_back()

    def test_no_room(self):
        """What somebody else has is not given; the machine stays, and the refusal says why."""
        self.begin_with("controller")
        other = identifier()
        answer = self.controller.api.ask(
            "PUT", f"/v1/lightpaths/{other}", {"ends": ["a", "b"], "bitsPerSecond": 700e6, "until": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))})
        self.assertEqual(answer.status, 200, answer.body)
        end = self.lab.wait_migration(self.lab.migrate(bitsPerSecond=200e6)["id"])
        self.assertEqual((end["state"], end["problem"]["type"]), ("failed", "urn:turntable:problem:refused"), end)
        self.assertIn("100.0 Mb/s are the most that is free", end["problem"]["detail"])
        self.assert_one_at("source")
        # Who asks for no rate takes what there is.
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual((end["state"], end["bitsPerSecond"]), ("completed", 100e6), end)


class Asking(OrchestratorTest):
    def test_who_may_ask(self):
        self.lab.orchestrator()
        port = self.lab.orchestrators["one"].port
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            context = ssl.create_default_context(cafile=self.lab.keys("third") / "authority.pem")
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
            connection.request("GET", "/v1/status")
            connection.getresponse()
        other = API(f"https://127.0.0.1:{port}", self.lab.keys("source"))
        self.assertEqual(other.get("/v1/status")["mayChange"], False)
        for method, path, body in (
                ("PUT", "/v1/sites/x", {"agent": "https://x:1"}), ("PUT", "/v1/lines/x", {"ends": ["a", "b"], "bitsPerSecond": 1e9}),
                ("POST", "/v1/migrations", {"vm": "m", "target": "x"}), ("DELETE", "/v1/sites/x", None),
                ("POST", f"/v1/migrations/{identifier()}/cancel", None)):
            answer = other.ask(method, path, body)
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (403, "application/problem+json"), path)
            self.assertIn("source.test is no operator", answer.json["detail"])
        # An agent heeds orchestrators only, and no master after a later one.
        agent = self.lab.agent("source")
        for keys, term, status in (("source", "lab 5", 403), ("third", "lab 5", 200), ("third", "lab 4", 409), ("third", "other 1", 200), ("third", "nonsense", 400)):
            answer = API(f"https://127.0.0.1:{agent.port}", self.lab.keys(keys)).ask("GET", "/v1/site", headers={"turntable-term": term})
            self.assertEqual(answer.status, status, (keys, term, answer.body))

    def test_one_orchestrator_uses_a_file(self):
        self.lab.orchestrator()
        second = self.lab.start(
            *self.lab.orchestrators["one"].arguments, environment={})
        self.assertEqual(second.wait(), 3, second.transcript())
        self.assertIn("another process has it open", second.errors[-1])

    def test_the_description_is_true(self):
        """schemathesis asks for what docs/openapi.yaml describes, and for what it does not."""
        program = lab.TREE / ".cache/python/bin/schemathesis"
        if not program.exists():
            self.skipTest("there is no schemathesis (perf/schemathesis)")
        self.begin()
        self.lab.wait_migration(self.lab.migrate()["id"])
        keys = self.lab.keys("third")
        done = subprocess.run(
            [program, "--config-file", Path(__file__).with_name("schemathesis.toml"), "run", lab.TREE / "docs/openapi.yaml", "--url", f"https://127.0.0.1:{self.lab.orchestrators['one'].port}",
                "--tls-verify", keys / "authority.pem", "--request-cert", keys / "host.pem", "--request-cert-key", keys / "host.key", "--max-examples", "20",
                "--seed", "2005", "--no-color", "--phases", "examples,coverage,fuzzing"],
            capture_output=True, text=True, cwd=self.lab.directory, timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])


if __name__ == "__main__":
    unittest.main()
