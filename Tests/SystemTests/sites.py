"""Two sites of two domains and everything that moves a machine between them, in namespaces of this computer.

    client ── anchor ─┬─ source ┐
                      └─ target ┘ a line of 1 Gb/s between the sites' hosts

At the anchor, to which the machine's address belongs: our controller of lightpaths, a gateway, and an orchestrator of each domain. West's site is
the source; its orchestrator is the one that is asked. East's site is the target, and east grants its part by its own policy and key. At each site:
an agent that trusts the domain of its site and no other, and a gateway.
"""
import json

import endpoints
import lab
import orchestra

POLICIES = {
    "west": "allow alice.test move m from source,target to source,target up-to 4G via lightpath\n",
    "east": "deny * move payroll\nallow anchor.test move m from source,target to source,target\n"}
DOMAINS = {"source": "west", "target": "east"}
# Where each domain's orchestrator answers, and whose certificate it shows.
CONTROLS = {"west": (4908, "anchor"), "east": (4918, "east")}
LIGHTPATHS_PORT = 4909


def put(api, path, body):
    answer = api.ask("PUT", f"/v1/{path}", body)
    assert answer.status == 201, answer.body


class Sites(orchestra.Stage):
    """The namespaces and everything that runs in them."""

    def __init__(self, delay):
        super().__init__()
        self.hosts = dict(zip(endpoints.SITES, self.lightpath(rate="1gbit", delay=delay)))
        self.round_trip_milliseconds = 2 * float(delay.removesuffix("ms"))
        self.net = endpoints.Network(self, list(self.hosts.values()))
        for host in self.hosts.values():
            self.net.ip(host, "tuntap", "add", "tap0", "mode", "tap")
            self.net.ip(host, "link", "set", "tap0", "master", "guests", "up")
        self._make_keys()
        self._describe()

    def _make_keys(self):
        """One authority; a host's certificate for each place, and one for the operator."""
        self.secrets = self.directory / "keys"
        lab.run(lab.TURNTABLE, "keys", "authority", "--in", self.secrets / "authority")
        for domain in POLICIES:
            lab.run(lab.TURNTABLE, "keys", "domain", "--in", self.secrets / domain)
        places = {"anchor": ["127.0.0.1"], "east": ["127.0.0.1"], "alice": ["127.0.0.1"], **{site: [endpoints.LINES[site][1]] for site in endpoints.SITES}}
        for name, addresses in places.items():
            more = [word for address in addresses for word in ("--address", address)]
            lab.run(lab.TURNTABLE, "keys", "host", f"{name}.test", "--authority", self.secrets / "authority", "--in", self.secrets / name, *more)

    def _describe(self):
        """What the controller of lightpaths and the orchestrators read."""
        ends = [{"node": site, "interface": "lp0", "address": address} for site, address in zip(endpoints.SITES, ("10.5.0.1", "10.5.0.2"))]
        (self.directory / "network.json").write_text(json.dumps({
            "addresses": "10.99.0.0/24", "nodes": {site: {"run": ["ip", "netns", "exec", host]} for site, host in self.hosts.items()},
            "links": [{
                "name": "line", "carrier": "vxlan", "bitsPerSecond": 950e6, "roundTripMilliseconds": self.round_trip_milliseconds, "labels": [100, 199],
                "ends": ends}]}))
        for domain, policy in POLICIES.items():
            (self.directory / f"{domain}.policy").write_text(policy)

    def at(self, place, *arguments, **options):
        return self.start(*arguments, namespace=self.net.namespace_of(place), **options)

    # --- What is installed at each place

    def control(self):
        """All that decides, by name, and what is described to it: the sites, and a line between them."""
        self.controls = {f"{place} gateway": gateway for place, gateway in self.net.tunnels().items()}
        self._install("lightpaths", self.at(
            "anchor", orchestra.ORCHESTRATOR, "lightpaths", self.directory / "network.json", "--json", "--listen", f"127.0.0.1:{LIGHTPATHS_PORT}", "--store",
            self.directory / "lightpaths.sqlite", "--user", "anchor.test", "--keys", self.secrets / "anchor"))
        for domain in POLICIES:
            self._install(domain, self._orchestrator_of(domain))
        for site in endpoints.SITES:
            self._install(f"{site} agent", self._agent_at(site))
        agents = {site: f"https://{endpoints.LINES[site][1]}:4907" for site in endpoints.SITES}
        west, east = (self.api_of(domain) for domain in POLICIES)
        put(west, "sites/source", {"agent": agents["source"]})
        put(west, "sites/target", {"agent": agents["target"], "authority": east.url.geturl()})
        put(east, "sites/target", {"agent": agents["target"]})
        put(west, "lines/lightpath", {
            "ends": list(endpoints.SITES), "bitsPerSecond": 800e6, "roundTripMilliseconds": self.round_trip_milliseconds,
            "provider": {"kind": "controller", "url": f"https://127.0.0.1:{LIGHTPATHS_PORT}", "ends": list(endpoints.SITES)}})

    def _install(self, name, program):
        program.wait_event("listening")
        self.controls[name] = program

    def kill_named(self, name):
        self.kill(self.controls[name])

    def start_named(self, name, environment=None):
        """The same again, after its end."""
        self._install(name, self.restart(self.controls[name], environment=environment))

    def _orchestrator_of(self, domain):
        port, host = CONTROLS[domain]
        return self.at(
            "anchor", orchestra.ORCHESTRATOR, "serve", "--json", "--listen", f"127.0.0.1:{port}", "--store", self.directory / f"{domain}.sqlite",
            "--domain", domain, "--policy", self.directory / f"{domain}.policy", "--domain-key", self.secrets / domain / "domain.key", "--operator",
            "alice.test", "--keys", self.secrets / host)

    def _agent_at(self, site):
        run_directory = self.run_directory(site)
        run_directory.mkdir()
        return self.at(
            site, orchestra.ORCHESTRATOR, "agent", "--json", "--listen", "0.0.0.0:4907", "--receive", "0.0.0.0", "--orchestrator", "anchor.test", "--orchestrator", "east.test",
            "--memory", "1G", "--processors", "4", "--allow-path", lab.GUESTS, "--allow-path", self.directory, "--turntable", lab.TURNTABLE,
            "--trust-domain", f"{DOMAINS[site]}={self.secrets / DOMAINS[site] / 'domain.pem'}", *self._announcing(site),
            "--announce-keys", self.net.key_path.parent, "--announce-sites", ",".join(endpoints.SITES), "--run-dir", run_directory, "--state-dir", f"{run_directory}-state", "--keys",
            self.secrets / site)

    def _announcing(self, site):
        return "--announce", f"127.0.0.1:{endpoints.PORT}", "--announce", f"{endpoints.LINES[site][0]}:{endpoints.PORT}"

    def announce(self, machine="m", site="source"):
        """A machine that was started there tells the gateways that it is there."""
        told = self.at(
            site, lab.TURNTABLE, "announce", machine, *self._announcing(site), "--announce-key", self.net.key_path, "--announce-site",
            endpoints.SITES.index(site), "--run-dir", self.run_directory(site))
        assert told.wait() == 0, told.transcript()

    # --- Asking

    def api_of(self, domain, keys="alice"):
        return self._api(CONTROLS[domain][0], keys)

    def _api(self, port, keys):
        return orchestra.API(f"https://127.0.0.1:{port}", self.secrets / keys, namespace=self.net.anchor)

    @property
    def api(self):
        return self.api_of("west")

    # --- What is left

    def lightpath_links(self):
        """Interfaces of lightpaths on the sites' hosts."""
        links = [link["ifname"] for host in self.hosts.values() for link in json.loads(lab.run("ip", "-n", host, "-j", "link"))]
        return [name for name in links if name.startswith("tt")]

    def reserved_lightpaths(self):
        """Those that the controller has not ended."""
        return [path for path in self._api(LIGHTPATHS_PORT, "anchor").get("/v1/lightpaths") if path["state"] != "terminated"]

    # --- What alice does

    def ctl(self, *words, seconds=60, domain="west"):
        environment = {"TURNTABLE_ORCHESTRATOR": f"https://127.0.0.1:{CONTROLS[domain][0]}", "TURNTABLE_KEYS": str(self.secrets / "alice")}
        asked = self.at("anchor", lab.TURNTABLE, "ctl", *words, environment=environment)
        assert asked.wait(seconds) == 0, asked.transcript()
        return asked.output

    def close(self):
        self.net.close()
        return super().close()
