"""Fig. 2 of the paper in namespaces: two sites with addresses of their own, an anchor to which a machine's address belongs, and a client.

    client 172.16.0.2 ── anchor ─┬─ source 198.51.100.2 ── bridge "guests", 10.1.1.1 ── 10.1.1.2?
                                 └─ target 203.0.113.2  ── bridge "guests", 10.1.1.1 ── 10.1.1.2?
"""
import contextlib
import ctypes
import json
import socket
import threading

import lab
import wire

MACHINE, MACHINE_ADDRESS, MACHINE_CARD = "m", "10.1.1.2", "52:54:00:09:00:10"
GATEWAY = str(lab.BUILD / "turntable-gateway")
SITES = ("source", "target")
# The anchor's and the site's end of the line between them.
LINES = {"source": ("198.51.100.1", "198.51.100.2"), "target": ("203.0.113.1", "203.0.113.2")}
# What the machine is called at each site where its packets are translated.
TRANSLATED = {"source": "198.51.100.10", "target": "203.0.113.10"}
TRANSLATED_V6 = {"source": "fd00:198::10", "target": "fd00:203::10"}
CLIENT = ("172.16.0.1", "172.16.0.2")
PORT, TUNNEL_PORT, TALK_PORT = 4910, 4911, 7

libc = ctypes.CDLL(None, use_errno=True)


def socket_in(namespace, *arguments):
    """A socket of another namespace, which it stays in."""
    made = []

    def make():
        with open(f"/run/netns/{namespace}") as place:
            if libc.setns(place.fileno(), 0x40000000) == 0:
                made.append(socket.socket(*arguments))
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert made, f"cannot enter {namespace}"
    return made[0]


class Network:
    """The namespaces and their lines; sites may be there already. Nothing of it outlives the lab. `delay` is of each site's line."""

    def __init__(self, a_lab, sites=None, delay=None):
        self.lab = a_lab
        self.anchor, self.client = a_lab.namespace(), a_lab.namespace()
        self.sites = dict(zip(SITES, sites or (a_lab.namespace(), a_lab.namespace())))
        self.sockets, self.threads = [], []
        self.address, self.next_hop, self.family = MACHINE_ADDRESS, "10.1.1.1", socket.AF_INET
        self._line(self.anchor, "client", CLIENT[0], self.client, "anchor", CLIENT[1])
        self.ip(self.client, "route", "add", "default", "via", CLIENT[0])
        for site, namespace in self.sites.items():
            if delay:
                self._long_line(site, namespace, delay)
            else:
                self._line(self.anchor, site, LINES[site][0], namespace, "anchor", LINES[site][1])
            self.ip(namespace, "route", "add", "default", "via", LINES[site][0])
            self.ip(namespace, "link", "add", "guests", "address", "02:00:0a:01:01:01", "type", "bridge")
            self.ip(namespace, "link", "set", "guests", "up")
        for namespace in (self.anchor, *self.sites.values()):
            settings = "for way in ip_forward=1 conf/all/rp_filter=0 conf/default/rp_filter=0; do echo ${way#*=} >/proc/sys/net/ipv4/${way%=*}; done"
            lab.run("ip", "netns", "exec", namespace, "sh", "-c", settings)
        key = a_lab.directory / "m.key"
        self.program("key", key).wait()
        self.key_path, self.key = key, bytes.fromhex(key.read_text())

    def use_v6(self):
        """Of the machine and the client; the lines between anchor and sites stay as they are."""
        self.address, self.next_hop, self.family = "fd00:10:1::2", "fd00:10:1::1", socket.AF_INET6
        for namespace, device, own in ((self.anchor, "client", "fd00:172::1"), (self.client, "anchor", "fd00:172::2")):
            self.ip(namespace, "addr", "add", f"{own}/64", "dev", device, "nodad")
        self.ip(self.client, "route", "add", "default", "via", "fd00:172::1")
        for namespace in (self.anchor, *self.sites.values()):
            lab.run("ip", "netns", "exec", namespace, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")

    def ip(self, namespace, *words):
        lab.run("ip", "-n", namespace, *words)

    def _line(self, here, name, address, there, peer_name, peer_address):
        self.ip(here, "link", "add", name, "type", "veth", "peer", "name", peer_name, "netns", there)
        for namespace, device, own in ((here, name, address), (there, peer_name, peer_address)):
            self.ip(namespace, "addr", "add", f"{own}/24", "dev", device)
            self.ip(namespace, "link", "set", device, "up")

    def _long_line(self, site, namespace, delay):
        here, there = LINES[site]
        line = self.lab.start(
            lab.LIGHTPATH, "--a", self.anchor, "--b", namespace, "--device", site, "--address-a", f"{here}/24", "--address-b", f"{there}/24",
            "--rate", "1gbit", "--delay", delay, "--json")
        line.wait_event("ready")

    def anchored_at_sites(self):
        """Each site's bridge is the machine's next hop, with one address and one card everywhere."""
        for namespace in self.sites.values():
            self.ip(namespace, "addr", "add", self.next_hop, "dev", "guests", *(["nodad"] if self.family == socket.AF_INET6 else []))

    # --- Gateways

    def program(self, *words, **options):
        return self.lab.start(GATEWAY, *words, **options)

    def namespace_of(self, place):
        return self.sites.get(place, self.anchor)

    def state(self, place):
        return self.lab.directory / f"gateway-{place}"

    def describe(self, place, sites, tell=(), **more):
        endpoint = {
            "machine": MACHINE, "address": self.address, "mac": MACHINE_CARD, "key": str(self.key_path), "home": "source", "sites": sites,
            "tell": [f"{address}:{PORT}" for address in tell]}
        path = self.lab.directory / f"gateway-{place}.json"
        more |= {"here": place} if place in SITES else {}
        path.write_text(json.dumps({"listen": f"0.0.0.0:{PORT}", "state": str(self.state(place)), "endpoints": [endpoint], **more}))
        return path

    def start(self, place):
        gateway = self.program("run", self.lab.directory / f"gateway-{place}.json", "--json", namespace=self.namespace_of(place))
        gateway.wait_event("listening")
        return gateway

    def tunnels(self, telling=True):
        """User space at the anchor and at both sites. Gives their gateways by place."""
        self.anchored_at_sites()
        far = {site: {"name": site, "tunnel": f"{LINES[site][1]}:{TUNNEL_PORT}"} for site in SITES}
        tunnel = {"device": "tunnel", "listen": f"0.0.0.0:{TUNNEL_PORT}"}
        self.describe("anchor", list(far.values()), [LINES[site][1] for site in SITES] if telling else (), tunnel=tunnel)
        for site in SITES:
            sites = [{"name": name, "deliver": "guests"} if name == site else far[name] for name in SITES]
            self.describe(site, sites, [LINES[site][0]] if telling else (), tunnel={**tunnel, "anchor": f"{LINES[site][0]}:{TUNNEL_PORT}"})
        return {place: self.start(place) for place in ("anchor", *SITES)}

    def routes(self):
        """The kernel's routes at the anchor and at both sites."""
        self.anchored_at_sites()
        self.describe("anchor", [{"name": site, "route": {"device": site, "via": LINES[site][1]}} for site in SITES], [LINES[site][1] for site in SITES])
        for site in SITES:
            away = {"device": "anchor", "via": LINES[site][0]}
            self.describe(site, [{"name": name, "route": {"device": "guests"} if name == site else away} for name in SITES])
        return {place: self.start(place) for place in ("anchor", *SITES)}

    def vxlan(self):
        """A VXLAN from the anchor to both sites' bridges; only the anchor has a gateway."""
        link = ("type", "vxlan", "id", "42", "dstport", "4789")
        self.ip(self.anchor, "link", "add", "vx", *link, "nolearning")
        self.ip(self.anchor, "addr", "add", "10.1.1.1/24", "dev", "vx")
        self.ip(self.anchor, "link", "set", "vx", "up")
        for site, namespace in self.sites.items():
            lab.run("bridge", "-n", self.anchor, "fdb", "append", "00:00:00:00:00:00", "dev", "vx", "dst", LINES[site][1])
            self.ip(namespace, "link", "add", "vx", *link, "remote", LINES[site][0])
            self.ip(namespace, "link", "set", "vx", "master", "guests", "up")
        self.describe("anchor", [{"name": site, "vxlan": {"device": "vx", "end": LINES[site][1]}} for site in SITES])
        return {"anchor": self.start("anchor")}

    def nftables(self):
        """The kernel's translation at the anchor and at both sites, which route what it makes of the machine's address."""
        self.anchored_at_sites()
        is_v6 = self.family == socket.AF_INET6
        translated = TRANSLATED_V6 if is_v6 else TRANSLATED
        for number, (site, namespace) in enumerate(self.sites.items()):
            here, there = LINES[site]
            if is_v6:
                here, there = f"fd00:{number}::1", f"fd00:{number}::2"
                for end, device, own in ((self.anchor, site, here), (namespace, "anchor", there)):
                    self.ip(end, "addr", "add", f"{own}/64", "dev", device, "nodad")
                self.ip(namespace, "route", "add", "default", "via", here)
            self.ip(self.anchor, "route", "add", translated[site], "via", there)
        self.describe("anchor", [{"name": site, "nftables": translated[site]} for site in SITES], [LINES[site][1] for site in SITES])
        for site in SITES:
            sites = [{"name": name, "nftables": translated[name], **({"deliver": "guests"} if name == site else {})} for name in SITES]
            self.describe(site, sites, [LINES[site][0]])
        return {place: self.start(place) for place in ("anchor", *SITES)}

    def nft(self, place, *words):
        """What `nft` says there."""
        return lab.run("ip", "netns", "exec", self.namespace_of(place), "nft", *words)

    def status(self, place="anchor"):
        asked = self.program("status", "--state-dir", self.state(place))
        assert asked.wait() == 0, asked.transcript()
        return json.loads(asked.output[0])

    def site_of(self, place="anchor"):
        """Where the machine is, as the gateway there says, and under which epoch."""
        endpoint = self.status(place)["endpoints"][0]
        return endpoint["site"], endpoint["epoch"]

    def announcement(self, epoch, site, **changes):
        return wire.announcement(**{"machine": MACHINE, "key": self.key, "epoch": epoch, "site": SITES.index(site), **changes})

    def tell(self, datagram, place="anchor"):
        """A datagram from the target, as it would be sent."""
        address = "127.0.0.1" if place == "target" else LINES["target"][0] if place == "anchor" else LINES["source"][1]
        sender = self.own(socket_in(self.sites["target"], socket.AF_INET, socket.SOCK_DGRAM))
        sender.sendto(datagram, (address, PORT))

    # --- In the place of a machine

    def own(self, a_socket):
        self.sockets.append(a_socket)
        return a_socket

    def stand_ins(self):
        """At each site something that has the machine's address and says where it is."""
        for site, namespace in self.sites.items():
            inside = self.lab.namespace()
            self.ip(namespace, "link", "add", "guest", "type", "veth", "peer", "name", "eth0", "netns", inside)
            self.ip(namespace, "link", "set", "guest", "master", "guests", "up")
            self.ip(inside, "link", "set", "eth0", "address", MACHINE_CARD, "up")
            is_v6 = self.family == socket.AF_INET6
            self.ip(inside, "addr", "add", f"{self.address}/{64 if is_v6 else 24}", "dev", "eth0", *(["nodad"] if is_v6 else []))
            self.ip(inside, "route", "add", "default", "via", self.next_hop)
            answering = self.own(socket_in(inside, self.family, socket.SOCK_DGRAM))
            answering.bind((self.address, TALK_PORT))
            self.threads.append(threading.Thread(target=self._answer, args=(answering, site.encode()), daemon=True))
            self.threads[-1].start()

    @staticmethod
    def _answer(answering, name):
        while True:
            _, sender = answering.recvfrom(64)
            if sender is None:
                return  # shut down: the test is over
            answering.sendto(name, sender)

    def asker(self):
        asking = self.own(socket_in(self.client, self.family, socket.SOCK_DGRAM))
        asking.connect((self.address, TALK_PORT))
        asking.settimeout(0.5)
        return asking

    def where(self, seconds=5):
        """Which site answers the client under the machine's address; repeated, for a first packet may be lost to ARP."""
        asking = self.asker()

        def answer():
            try:
                asking.send(b"where are you?")
                return asking.recv(64).decode()
            except OSError:
                return None
        return lab.wait_for("an answer from the machine's address", answer, seconds)

    def close(self):
        for one in self.sockets:
            # Wakes a thread that waits in it.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        for one in self.sockets:
            one.close()
