"""Lightpaths on real links: three places in namespaces, and the controller that sets paths up between them."""
import json
import os
import shutil
import subprocess
import time
import unittest

import lab
from case import SystemTest
from orchestra import API, ORCHESTRATOR, Stage, identifier

# Little enough for a computer that works beside; the laboratory's test has less, in a kernel that has VLANs on a processor that is slow.
CAPACITY = float(os.environ.get("TURNTABLE_LINK_CAPACITY", 200e6))
CARRIER = os.environ.get("TURNTABLE_LINK_CARRIER", "vxlan")
PATIENCE = float(os.environ.get("TURNTABLE_LINK_PATIENCE", lab.WAIT_SECONDS))
NSI_NETWORK = "urn:ogf:network:net.test:2026"


def now(seconds=0):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


class Network:
    """a ── b ── c, with two links, MTU 9000."""

    def __init__(self, stage, capacity=800e6):
        self.stage = stage
        self.places = {name: stage.namespace() for name in "abc"}
        links = []
        for number, (one, other) in enumerate(("ab", "bc")):
            ends = []
            lab.run("ip", "-n", self.places[one], "link", "add", f"to-{other}", "mtu", "9000", "type", "veth", "peer", "name", f"to-{one}", "mtu", "9000", "netns", self.places[other])
            for side, (place, name) in enumerate(((one, f"to-{other}"), (other, f"to-{one}"))):
                address = f"192.0.2.{4 * number + side + 1}"
                lab.run("ip", "-n", self.places[place], "address", "add", f"{address}/30", "dev", name)
                lab.run("ip", "-n", self.places[place], "link", "set", name, "up")
                ends.append({"node": place, "interface": name, "address": address})
            links.append({"name": one + other, "carrier": CARRIER, "bitsPerSecond": capacity, "roundTripMilliseconds": 1.5, "labels": [100, 199], "ends": ends})
        nodes = {place: {"run": ["ip", "netns", "exec", namespace]} for place, namespace in self.places.items()}
        self.file = stage.directory / "network.json"
        self.file.write_text(json.dumps({"addresses": "10.99.0.0/24", "nodes": nodes, "links": links}))

    def controller(self, store="lightpaths.sqlite", port=0):
        program = self.stage.start(
            ORCHESTRATOR, "lightpaths", self.file, "--json", "--listen", f"127.0.0.1:{port}", "--store", self.stage.directory / store, "--user", "third.test",
            "--keys", self.stage.keys("target"), "--nsi-network", NSI_NETWORK)
        program.port = int(program.wait_event("listening")["address"].rsplit(":", 1)[1])
        program.api = API(f"https://127.0.0.1:{program.port}", self.stage.keys("third"))
        return program

    def remains(self):
        """What is on the links that is no link's own."""
        found = []
        for place, namespace in self.places.items():
            for device in json.loads(lab.run("ip", "-n", namespace, "-j", "link", "show")):
                if device["ifname"] != "lo" and not device["ifname"].startswith("to-"):
                    found.append(f"{place}: {device['ifname']}")
            found += [f"{place}: {line}" for line in lab.run("tc", "-n", namespace, "qdisc", "show").splitlines() if "htb" in line]
        return found

    def iperf(self, place, address, *options):
        return self.stage.start("ip", "netns", "exec", self.places[place], "iperf3", "-c", address, "--json", *options)


def rates(program):
    """Bits in each second, as they were received or, within the run, sent."""
    report = json.loads("\n".join(program.output))
    assert "error" not in report, report["error"]
    return report["end"]["sum_received"]["bits_per_second"], [each["sum"]["bits_per_second"] for each in report["intervals"]]


@unittest.skipUnless(shutil.which("iperf3"), "there is no iperf3 (apt-get install iperf3)")
class Links(SystemTest):
    def setUp(self):
        self.lab = Stage()
        self.addCleanup(self._close)
        self.network = Network(self.lab, CAPACITY)
        self.controller = self.network.controller()

    def ask(self, method, path, body=None, status=200):
        answer = self.controller.api.ask(method, path, body)
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def path(self, rate, name=None, seconds=3600):
        """One from a to c, ready for traffic."""
        name = name or identifier()
        self.ask("PUT", f"/v1/lightpaths/{name}", {"ends": ["a", "c"], "bitsPerSecond": rate, "until": now(seconds)})
        self.ask("PUT", f"/v1/lightpaths/{name}/commitment")
        # Where commands are slow the answer comes before it is set up.
        path = lab.wait_for("its links", lambda: (path := self.ask("PUT", f"/v1/lightpaths/{name}/dataplane"))["isActive"] and path, PATIENCE)
        self.assertEqual((path["state"], path["bitsPerSecond"], path["roundTripMilliseconds"]), ("provisioned", rate, 3))
        return name, path["addresses"][1]

    def serve(self, place, address):
        self.lab.start("ip", "netns", "exec", self.network.places[place], "iperf3", "-s", "-B", address)

        def listens():
            return f"{address}:5201" in lab.run("ip", "netns", "exec", self.network.places[place], "ss", "-ltn")
        lab.wait_for("iperf3", listens)

    def assert_set_up(self, count):
        """So many interfaces, bridges and queues for lightpaths are on the links, as soon as they are made or taken away."""
        lab.wait_for(f"{count} on the links", lambda: len(self.network.remains()) == count, PATIENCE)

    def assert_rate(self, measured, reserved):
        self.assertTrue(0.95 < measured / reserved < 1.02, f"{measured / 1e6:.1f} Mb/s of {reserved / 1e6:.0f}")

    def test_alone(self):
        """Over two links with nothing else on them it has its rate, and no more; then nothing of it is left."""
        name, address = self.path(CAPACITY / 4)
        self.serve("c", address)
        alone = self.network.iperf("a", address, "-t", "4")
        self.assertEqual(alone.wait(), 0, alone.transcript())
        self.assert_rate(rates(alone)[0], CAPACITY / 4)
        self.ask("DELETE", f"/v1/lightpaths/{name}")
        self.assert_set_up(0)

    def test_what_is_reserved_is_what_there_is(self):
        """The path has its rate beside traffic that takes all it can get, and has another as soon as that is asked for."""
        name, address = self.path(CAPACITY / 4)
        self.serve("c", address)
        self.serve("b", "192.0.2.2")
        greedy = self.network.iperf("a", "192.0.2.2", "-t", "13", "-P", "4")
        time.sleep(1)
        beside = self.network.iperf("a", address, "-t", "10")
        time.sleep(4.5)
        changed = self.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": CAPACITY / 2})
        self.assertEqual(changed["bitsPerSecond"], CAPACITY / 2)
        for program in (beside, greedy):
            self.assertEqual(program.wait(), 0, program.transcript())
        seconds = rates(beside)[1]
        self.assert_rate(sum(seconds[1:4]) / 3, CAPACITY / 4)
        self.assert_rate(sum(seconds[6:9]) / 3, CAPACITY / 2)
        # The rest has what is left, and what is not used.
        self.assertGreater(rates(greedy)[0], 0.85 * CAPACITY / 2)
        # More than there is cannot be had, and changes nothing.
        problem = self.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": CAPACITY * 1.1}, status=409)
        self.assertIn("are free", problem["detail"])
        self.assertEqual(self.ask("GET", f"/v1/lightpaths/{name}")["bitsPerSecond"], CAPACITY / 2)

    def test_nothing_remains(self):
        """After the release, after the end, after the window; and after a kill at any of these."""
        self.assert_set_up(0)
        name, _ = self.path(CAPACITY / 8)
        self.assert_set_up(5 + 4)
        self.ask("DELETE", f"/v1/lightpaths/{name}/dataplane")
        self.assert_set_up(0)
        self.ask("PUT", f"/v1/lightpaths/{name}/dataplane")
        other, _ = self.path(CAPACITY / 8)
        self.ask("DELETE", f"/v1/lightpaths/{name}")
        self.assert_set_up(5 + 4)
        self.ask("DELETE", f"/v1/lightpaths/{other}")
        self.assert_set_up(0)
        self.path(CAPACITY / 8, seconds=8)
        self.assert_set_up(5 + 4)
        self.assert_set_up(0)

    def test_kill(self):
        """A controller that is started again goes on with what there was, and ends what is over."""
        name, address = self.path(CAPACITY / 8)
        self.path(CAPACITY / 8, seconds=3)
        self.lab.kill(self.controller)
        # What it was not asked for, as if it had been killed between writing and doing.
        lab.run("ip", "-n", self.network.places["c"], "link", "add", "tt77.0.1", "type", "bridge")
        lab.run("tc", "-n", self.network.places["a"], "class", "add", "dev", "to-b", "parent", "7470:1", "classid", "7470:4f", "htb", "rate", "1mbit")
        lab.run("ip", "-n", self.network.places["b"], "link", "del", "tt0.0.b")
        time.sleep(3)
        self.controller = self.network.controller()
        lab.wait_for("its links", lambda: self.ask("GET", f"/v1/lightpaths/{name}")["isActive"])
        self.assert_set_up(5 + 4)
        self.assertNotIn("7470:4f", lab.run("tc", "-n", self.network.places["a"], "class", "show", "dev", "to-b"))
        self.serve("c", address)
        again = self.network.iperf("a", address, "-t", "3")
        self.assertEqual(again.wait(), 0, again.transcript())
        self.assert_rate(rates(again)[0], CAPACITY / 8)
        self.lab.kill(self.controller)
        # Its store is lost: nobody has a lightpath.
        self.controller = self.network.controller("other.sqlite")
        self.assert_set_up(0)

    def test_who_may_have_which(self):
        name, _ = self.path(CAPACITY / 8)
        stranger = API(f"https://127.0.0.1:{self.controller.port}", self.lab.keys("source"))
        for method, path in (("GET", "/v1/topology"), ("GET", "/v1/lightpaths"), ("PUT", f"/v1/lightpaths/{name}/dataplane"), ("DELETE", f"/v1/lightpaths/{name}")):
            answer = stranger.ask(method, path)
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (403, "application/problem+json"), path)
        for name, ends, rate, words in (("x", "ac", 1e8, "none of that name"), (identifier(), "ad", 1e8, "no node d"), (identifier(), "ac", 9e8, "175.0 Mb/s")):
            answer = self.controller.api.ask("PUT", f"/v1/lightpaths/{name}", {"ends": list(ends), "bitsPerSecond": rate, "until": now(60)})
            self.assertIn(answer.status, (404, 409))
            self.assertIn(words, answer.json["detail"])


class InTheLaboratory(unittest.TestCase):
    """The same over VLANs, which not every kernel has, at a twentieth of the rate."""

    def test_vlans(self):
        variables = "TURNTABLE_LINK_CARRIER=vlan TURNTABLE_LINK_CAPACITY=40e6 TURNTABLE_LINK_PATIENCE=120"
        done = subprocess.run(
            [lab.TREE / "perf/lab/turntable-lab", "run", "--modules", "8021q,cls_flower,sch_htb,veth,bridge", "--memory", "768M", "--",
                f"cd {lab.TREE} && {variables} Tests/SystemTests/run test_lightpaths.Links.test_alone"],
            capture_output=True, text=True, timeout=300)
        if done.returncode == 125:
            self.skipTest(f"there is no laboratory (make lab): {done.stderr.strip()[-200:]}")
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-1000:])
        self.assertIn("1 passed, 0 failed, 0 skipped", done.stdout)


if __name__ == "__main__":
    unittest.main()
