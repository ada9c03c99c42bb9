"""Lightpaths over several networks on real links: each network has a controller of its own, and knows the others by what they say of themselves."""
import contextlib
import http.client
import json
import random
import shutil
import threading
import time
import unittest

import lab
from case import SystemTest
from orchestra import API, ORCHESTRATOR, Stage, free_port, identifier
from test_lightpaths import now, rates

CAPACITY = 200e6
#          wg ══ m ══ eg          west ══ middle ══ east, in 14 ms
#     w ── wg ══ s ══ eg ── e     west ══ south  ══ east, in 34 ms
PLACES = {"west": ("w", "wg"), "middle": ("m",), "south": ("s",), "east": ("eg", "e")}
LINKS = (("w", "wg", 1), ("eg", "e", 1))
BORDERS = (("wg", "m", 6), ("m", "eg", 6), ("wg", "s", 16), ("s", "eg", 16))


def urn(network):
    return f"urn:ogf:network:{network}.test:2026"


class Networks:
    """Each has a controller, and is every other's peer."""
    networks, links = PLACES, LINKS + BORDERS

    def __init__(self, stage, lease):
        self.stage, self.lease, self.controllers = stage, lease, {}
        self.network_of = {place: network for network, places in self.networks.items() for place in places}
        self.places = {place: stage.namespace() for place in self.network_of}
        self.ports = {network: free_port() for network in self.networks}
        self.files = {network: {"network": urn(network), "nodes": {}, "links": [], "borders": [], "peers": []} for network in self.networks}
        for place, network in self.network_of.items():
            self.files[network]["nodes"][place] = {"run": ["ip", "netns", "exec", self.places[place]]}
        for number, (one, other, milliseconds) in enumerate(self.links):
            self.connect(number, one, other, milliseconds)
        for index, (network, file) in enumerate(self.files.items()):
            file["addresses"] = f"10.99.{index}.0/24"
            file["peers"] = [{"network": urn(peer), "url": self.url(peer), "host": f"{peer}.test"} for peer in self.peers_of(network)]
            file.update(self.more(network))
            keys = lab.keys() / network
            if not keys.exists():
                lab.run(lab.TURNTABLE, "keys", "host", f"{network}.test", "--authority", lab.keys() / "authority", "--in", keys, "--address", "127.0.0.1")
            self.write(network)
            self.start(network)

    def url(self, network):
        return f"https://127.0.0.1:{self.ports[network]}"

    def peers_of(self, network):
        return [peer for peer in self.networks if peer != network]

    def more(self, network):
        """What else its description says."""
        return {}

    def connect(self, number, one, other, milliseconds):
        address = {one: f"192.0.2.{4 * number + 1}", other: f"192.0.2.{4 * number + 2}"}
        lab.run("ip", "-n", self.places[one], "link", "add", f"to-{other}", "mtu", "9000", "type", "veth", "peer", "name", f"to-{one}", "mtu", "9000", "netns", self.places[other])
        for place, far in ((one, other), (other, one)):
            lab.run("ip", "-n", self.places[place], "address", "add", f"{address[place]}/30", "dev", f"to-{far}")
            lab.run("ip", "-n", self.places[place], "link", "set", f"to-{far}", "up")
        common = {"carrier": "vxlan", "bitsPerSecond": CAPACITY, "roundTripMilliseconds": milliseconds}
        if self.network_of[one] == self.network_of[other]:
            ends = [{"node": place, "interface": f"to-{far}", "address": address[place]} for place, far in ((one, other), (other, one))]
            self.files[self.network_of[one]]["links"].append({"name": f"{one}-{other}", "ends": ends, "labels": [100, 199], **common})
            return
        for place, far in ((one, other), (other, one)):
            here, there = self.network_of[place], self.network_of[far]
            self.files[here]["borders"].append({
                "name": f"to-{there}", "node": place, "interface": f"to-{far}", "address": address[place], "labels": [500 + number, 599] if place == one else [490, 590],
                "peer": {"network": urn(there), "border": f"to-{here}", "address": address[far]}, **common})

    def write(self, network):
        (self.stage.directory / f"{network}.json").write_text(json.dumps(self.files[network]))

    def start(self, network):
        program = self.stage.start(
            ORCHESTRATOR, "lightpaths", self.stage.directory / f"{network}.json", "--json", "--listen", f"127.0.0.1:{self.ports[network]}",
            "--store", self.stage.directory / f"{network}.sqlite", "--user", "third.test", "--keys", lab.keys() / network, "--lease", self.lease)
        program.wait_event("listening")
        program.api = API(f"https://127.0.0.1:{self.ports[network]}", self.stage.keys("third"))
        self.controllers[network] = program

    def faults(self, network):
        """Of the networks that one knows, and of their borders."""
        views = self.controllers[network].api.get("/v1/networks")
        return {view["network"]: fault for view in views for fault in [view.get("fault"), *(border.get("fault") for border in view["borders"])] if fault}

    def remains(self, without=None):
        found = []
        for place, namespace in ((place, name) for place, name in self.places.items() if self.network_of[place] != without):
            names = [device["ifname"] for device in json.loads(lab.run("ip", "-n", namespace, "-j", "link", "show"))]
            found += [f"{place}: {name}" for name in names if name != "lo" and not name.startswith("to-")]
            found += [f"{place}: {line}" for line in lab.run("tc", "-n", namespace, "qdisc", "show").splitlines() if "htb" in line]
        return found

    def reserved(self, without=None):
        """What any book has that has not ended."""
        books = {network: program.api.get("/v1/lightpaths") for network, program in self.controllers.items() if network != without}
        return [(network, each["id"]) for network, book in books.items() for each in book if each["state"] != "terminated"]


class Chain(Networks):
    """west ══ middle ══ south ══ east: each is the peer of those that it meets, and known to others by their word."""
    networks = {"west": ("w",), "middle": ("m",), "south": ("s",), "east": ("e",)}
    links = (("w", "m", 6), ("m", "s", 6), ("s", "e", 6))

    def peers_of(self, network):
        names = list(self.networks)
        return [peer for peer in names if abs(names.index(peer) - names.index(network)) == 1]

    def more(self, network):
        return {"url": self.url(network), "others": True}


class NetworksTest(SystemTest):
    kind = Networks
    # For all to know each other.
    patience = lab.WAIT_SECONDS
    # Seconds: longer than a test goes without keeping what it has.
    lease = 60

    def setUp(self):
        self.lab = Stage()
        self.addCleanup(self._close)
        self.networks = self.kind(self.lab, self.lease)
        for network in self.networks.networks:
            self.wait_known(network)

    def wait_known(self, network):
        lab.wait_for(f"{network} to know the others", lambda: not self.networks.faults(network), self.patience)

    def answer(self, method, path, body=None, network="west"):
        return self.networks.controllers[network].api.ask(method, path, body)

    def ask(self, method, path, body=None, status=200):
        answer = self.answer(method, path, body)
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def request(self, rate, ends=("w", f"{urn('east')}:e")):
        return {"ends": list(ends), "bitsPerSecond": rate, "until": now(3600)}

    def reserve(self, rate, name=None):
        name = name or identifier()
        return name, self.ask("PUT", f"/v1/lightpaths/{name}", self.request(rate))

    def provision(self, name):
        return lab.wait_for("its links", lambda: (path := self.ask("PUT", f"/v1/lightpaths/{name}/dataplane"))["isActive"] and path)

    def path(self, rate):
        name, _ = self.reserve(rate)
        self.ask("PUT", f"/v1/lightpaths/{name}/commitment")
        return name, self.provision(name)

    def way(self, name):
        """The networks that it crosses."""
        path = next(each for each in self.ask("GET", "/v1/network-paths") if each["id"] == name)
        return [segment["leg"]["network"].split(":")[3].split(".")[0] for segment in path["segments"]]

    def iperf(self, place, address, *options):
        return self.lab.start("ip", "netns", "exec", self.networks.places[place], "iperf3", "-c", address, "--json", *options)

    def serve(self, place, address):
        self.lab.start("ip", "netns", "exec", self.networks.places[place], "iperf3", "-s", "-B", address)
        lab.wait_for("iperf3", lambda: f"{address}:5201" in lab.run("ip", "netns", "exec", self.networks.places[place], "ss", "-ltn"))

    def assert_bare(self, without=None):
        lab.wait_for("no network to have anything", lambda: self.networks.reserved(without) == [])
        lab.wait_for("bare links", lambda: self.networks.remains(without) == [])

    def assert_rate(self, measured, reserved):
        self.assertTrue(0.94 < measured / reserved < 1.02, f"{measured / 1e6:.1f} Mb/s of {reserved / 1e6:.0f}")


@unittest.skipUnless(shutil.which("iperf3"), "there is no iperf3 (apt-get install iperf3)")
class Paths(NetworksTest):
    def test_what_is_reserved_is_what_there_is(self):
        """Three networks make one path of the reserved rate, beside traffic that takes all that it gets at a border; and of another rate."""
        name, path = self.path(CAPACITY / 4)
        self.assertEqual((path["state"], path["bitsPerSecond"], path["roundTripMilliseconds"]), ("provisioned", CAPACITY / 4, 14))
        self.assertEqual(self.way(name), ["west", "middle", "east"])
        near, far = path["addresses"]
        self.serve("e", far)
        border = next(each for each in self.networks.files["west"]["borders"] if each["name"] == "to-middle")["peer"]["address"]
        self.serve("m", border)
        greedy = self.iperf("wg", border, "-t", "14", "-P", "4")
        time.sleep(1)
        beside = self.iperf("w", far, "-B", near, "-t", "10")
        time.sleep(4.5)
        self.assertEqual(self.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": CAPACITY / 2})["bitsPerSecond"], CAPACITY / 2)
        for program in (beside, greedy):
            self.assertEqual(program.wait(), 0, program.transcript())
        seconds = rates(beside)[1]
        self.assert_rate(sum(seconds[1:4]) / 3, CAPACITY / 4)
        self.assert_rate(sum(seconds[6:9]) / 3, CAPACITY / 2)
        # More than there is cannot be had, and leaves all segments as they are.
        self.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": CAPACITY * 1.1}, status=409)
        self.assertEqual({each["bitsPerSecond"] for program in self.networks.controllers.values() for each in program.api.get("/v1/lightpaths")}, {CAPACITY / 2})
        self.ask("DELETE", f"/v1/lightpaths/{name}/dataplane")
        lab.wait_for("bare links", lambda: self.networks.remains() == [])
        self.assertTrue(self.provision(name)["isActive"])
        self.assertEqual(self.ask("DELETE", f"/v1/lightpaths/{name}")["state"], "terminated")
        self.assert_bare()
        self.assertEqual(self.ask("GET", f"/v1/lightpaths/{name}")["state"], "terminated")
        self.ask("PUT", f"/v1/lightpaths/{name}", self.request(1e6), status=409)

    def test_there_is_another_way(self):
        """A border without room is gone round, the other way has all of it too, and then there is none."""
        first, _ = self.path(CAPACITY * 0.8)
        second, _ = self.path(CAPACITY * 0.1)
        self.assertEqual((self.way(first), self.way(second)), (["west", "middle", "east"],) * 2)
        # What is left on w's own link is less than this.
        self.assertIn("are the most that is free", self.ask("PUT", f"/v1/lightpaths/{identifier()}", self.request(CAPACITY * 0.5), status=409)["detail"])
        self.ask("DELETE", f"/v1/lightpaths/{first}")
        # Somebody else has the border between middle and east.
        name = identifier()
        body = self.request(CAPACITY * 0.6, (f"{urn('middle')}:m", f"{urn('east')}:eg"))
        self.assertEqual(self.answer("PUT", f"/v1/lightpaths/{name}", body, "middle").status, 200)
        self.assertEqual(self.answer("PUT", f"/v1/lightpaths/{name}/commitment", network="middle").status, 200)
        third, path = self.path(CAPACITY * 0.5)
        self.assertEqual((self.way(third), path["roundTripMilliseconds"]), (["west", "south", "east"], 34))
        self.serve("e", path["addresses"][1])
        again = self.iperf("w", path["addresses"][1], "-t", "3")
        self.assertEqual(again.wait(), 0, again.transcript())
        self.assert_rate(rates(again)[0], CAPACITY * 0.5)
        # Backwards as well.
        backwards = identifier()
        self.ask("PUT", f"/v1/lightpaths/{backwards}", self.request(CAPACITY * 0.1, (f"{urn('east')}:e", f"{urn('west')}:w")))
        self.assertEqual(self.way(backwards), ["east", "middle", "west"])
        for each in (second, third, backwards):
            self.ask("DELETE", f"/v1/lightpaths/{each}")
        self.answer("DELETE", f"/v1/lightpaths/{name}", network="middle")
        self.assert_bare()

    def test_a_controller_is_killed(self):
        """What it set up stays while it is away; others are led round it; and it goes on with its segment when it is back."""
        name, path = self.path(CAPACITY / 4)
        self.lab.kill(self.networks.controllers["middle"])
        other, _ = self.path(CAPACITY / 4)
        self.assertEqual(self.way(other), ["west", "south", "east"])
        self.assertTrue(self.ask("GET", f"/v1/lightpaths/{name}")["isActive"])
        self.assertEqual(self.answer("PUT", f"/v1/lightpaths/{name}/lease").status, 503)
        self.networks.start("middle")
        self.ask("PUT", f"/v1/lightpaths/{name}/lease")
        self.serve("e", path["addresses"][1])
        over = self.iperf("w", path["addresses"][1], "-t", "2")
        self.assertEqual(over.wait(), 0, over.transcript())
        self.assert_rate(rates(over)[0], CAPACITY / 4)
        for each in (name, other):
            self.ask("DELETE", f"/v1/lightpaths/{each}")
        self.assert_bare()

    def test_many_at_once(self):
        """From both ends at the same time, for all that there is: each gets its path, whoever is faster with a label."""
        answers = {}

        def attempt(network, ends):
            name = identifier()
            answers[name] = network, self.answer("PUT", f"/v1/lightpaths/{name}", self.request(CAPACITY / 8, ends), network)

        ways = ("west", ("w", f"{urn('east')}:e")), ("east", ("e", f"{urn('west')}:w"))
        threads = [threading.Thread(target=attempt, args=ways[number % 2]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([(answer.status, answer.body) for _, answer in answers.values() if answer.status != 200], [])
        self.assertEqual({answer.json["bitsPerSecond"] for _, answer in answers.values()}, {CAPACITY / 8})
        # Nothing more: the links of w and e are full.
        self.ask("PUT", f"/v1/lightpaths/{identifier()}", self.request(1e6), status=409)
        for name, (network, _) in answers.items():
            self.assertEqual(self.answer("DELETE", f"/v1/lightpaths/{name}", network=network).status, 200)
        self.assert_bare()

    def test_contradictions_are_shown(self):
        """A border that the two sides describe differently is not used, and both say so; the other way is."""
        self.lab.kill(self.networks.controllers["middle"])
        border = next(each for each in self.networks.files["middle"]["borders"] if each["name"] == "to-east")
        border["peer"]["border"] = "to-nowhere"
        self.networks.write("middle")
        self.networks.start("middle")
        lab.wait_for("east to see it", lambda: "leads to to-nowhere" in self.networks.faults("east").get(urn("east"), ""))
        self.assertIn("has no border to-nowhere", self.networks.faults("middle")[urn("middle")])
        lab.wait_for("west to see it", lambda: urn("east") in self.networks.faults("west"))
        name, _ = self.reserve(CAPACITY / 4)
        self.assertEqual(self.way(name), ["west", "south", "east"])

    def test_who_may_have_which(self):
        """Another network's controller has segments that begin or end at a border, and sees no inner links."""
        west = API(f"https://127.0.0.1:{self.networks.ports['middle']}", lab.keys() / "west")
        document = west.get("/v1/network")
        self.assertEqual(document["nodes"], ["m"])
        self.assertNotIn("to-wg", json.dumps(document))
        for method, path, body in (("GET", "/v1/topology", None), ("GET", "/v1/networks", None), ("GET", "/v1/lightpaths", None),
                                   ("PUT", f"/v1/lightpaths/{identifier()}", self.request(1e6, ("m", f"{urn('east')}:e")))):
            self.assertEqual(west.ask(method, path, body).status, 403, path)
        stranger = API(f"https://127.0.0.1:{self.networks.ports['middle']}", self.lab.keys("source"))
        self.assertEqual(stranger.ask("GET", "/v1/network").status, 403)
        self.assertEqual(self.answer("PUT", f"/v1/lightpaths/{identifier()}", self.request(1e6, ("x", f"{urn('east')}:e"))).status, 409)
        self.assertEqual(self.answer("PUT", f"/v1/lightpaths/{identifier()}", self.request(1e6, ("w", f"{urn('north')}:e"))).status, 409)


class InARow(NetworksTest):
    """The first meets only the second, and has a path to the fourth."""
    kind = Chain
    # Each hears of the next but one when it asks again.
    patience = 90

    def views(self, network):
        return {view["network"]: view for view in self.networks.controllers[network].api.get("/v1/networks")}

    def wait_all_known(self):
        for network in self.networks.networks:
            lab.wait_for(f"{network} to know all", lambda: len(self.views(network)) == 4, self.patience)

    def test_a_path_over_four_networks(self):
        self.wait_all_known()
        self.assertEqual(self.views("west")[urn("east")]["toldBy"], urn("middle"))
        name, path = self.path(CAPACITY / 4)
        self.assertEqual(self.way(name), ["west", "middle", "south", "east"])
        self.assertEqual((path["state"], path["roundTripMilliseconds"]), ("provisioned", 18))
        lab.run("ip", "netns", "exec", self.networks.places["w"], "ping", "-c", "3", "-i", "0.2", "-W", "10", path["addresses"][1])
        rate = self.ask("PUT", f"/v1/lightpaths/{name}/rate", {"bitsPerSecond": CAPACITY / 8})
        self.assertEqual(rate["bitsPerSecond"], CAPACITY / 8)
        self.ask("DELETE", f"/v1/lightpaths/{name}")
        self.assert_bare()

    def test_the_last_one_disappears(self):
        """It is asked once, and nothing is left of the attempt; those on the way are no less known."""
        self.wait_all_known()
        self.lab.kill(self.networks.controllers["east"])
        answer = self.answer("PUT", f"/v1/lightpaths/{identifier()}", self.request(CAPACITY / 4))
        self.assertEqual(answer.status, 409, answer.body)
        self.assert_bare(without="east")
        name = identifier()
        self.ask("PUT", f"/v1/lightpaths/{name}", self.request(CAPACITY / 4, ("w", f"{urn('south')}:s")))
        self.assertEqual(self.way(name), ["west", "middle", "south"])
        self.networks.start("east")
        lab.wait_for("a path to it again", lambda: self.answer("PUT", f"/v1/lightpaths/{identifier()}", self.request(CAPACITY / 8)).status == 200, 60)


class Leases(NetworksTest):
    """What nobody keeps, and what is left by whoever was killed."""
    lease = 6

    def test_nothing_is_left_whoever_is_killed_when(self):
        """After each step, and at any moment within one, either controller is killed: nothing is left after the lease."""
        generator = random.Random(seed := random.randrange(1 << 30))
        for victim in ("west", "middle"):
            for step, part in enumerate(("", "/commitment", "/dataplane")):
                for is_within in (False, True):
                    with self.subTest(f"seed {seed}: {victim} at {part or 'reserve'}, within {is_within}"):
                        name = identifier()
                        parts = ("", "/commitment", "/dataplane")[:step + 1]
                        for each in parts[:-1]:
                            self.ask("PUT", f"/v1/lightpaths/{name}{each}", self.request(CAPACITY / 4) if not each else None)
                        last = threading.Thread(target=self.attempt, args=(name, parts[-1]))
                        last.start()
                        if is_within:
                            time.sleep(generator.uniform(0, 0.1))
                        else:
                            last.join()
                        self.lab.kill(self.networks.controllers[victim])
                        last.join()
                        # Nobody tells the others: their leases end what they have.
                        self.assert_bare(without=victim)
                        self.networks.start(victim)
                        self.wait_known("west")
                        self.assert_bare()

    def attempt(self, name, part):
        # Whoever is asked may be killed before, within or after the answer.
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.answer("PUT", f"/v1/lightpaths/{name}{part}", None if part else self.request(CAPACITY / 4))

    def test_a_controller_is_away_for_longer_than_its_lease(self):
        """The path is over, everywhere, also where it was kept."""
        name, _ = self.path(CAPACITY / 4)
        self.lab.kill(self.networks.controllers["middle"])
        deadline = time.monotonic() + self.lease + 1
        while time.monotonic() < deadline:
            self.answer("PUT", f"/v1/lightpaths/{name}/lease")
            time.sleep(0.5)
        self.networks.start("middle")
        lab.wait_for("its end", lambda: self.ask("GET", f"/v1/lightpaths/{name}")["state"] == "terminated")
        self.assert_bare()


if __name__ == "__main__":
    unittest.main()
