"""The ways in which a guest moves between the two Xen hosts: Xen's own over ssh or a plain socket, and ours.

    make_keys(pair)
    SEALED.receive(b)
    since = guest.mark(b)
    print(figures(move(guest, a, b, SEALED), guest, b, since))
"""
import subprocess
import tempfile

from hosts import TREE, Way

BUILD = ".build/release"
HELPER, TURNTABLE = f"/tree/{BUILD}/turntable-xen-helper", f"/tree/{BUILD}/turntable"
# Under TCG, on a busy computer, a guest takes seconds to suspend: the budget is for what is tested, not for the emulator.
HELPERS = f"LIBXL_SAVE_HELPER={HELPER} TURNTABLE_DOWNTIME=30s"
GAP_SECONDS = 180


class SecureShell(Way):
    """What xl does unless it is told otherwise."""

    def receive(self, host):
        host.must(f"""mkdir -p /run/sshd; grep -q ^sshd: /etc/passwd || echo sshd:x:100:65534::/run/sshd:/bin/false >>/etc/passwd
            cp /lab/ssh/key /run/ssh-key; chmod 600 /run/ssh-key
            /usr/sbin/sshd -f /dev/null -p {self.port} -h /run/ssh-key -o AuthorizedKeysFile=/lab/ssh/key.pub -o StrictModes=no -o UseDNS=no""")

    def command(self, guest, target):
        ssh = f"ssh -q -p {self.port} -i /run/ssh-key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        return f"xl migrate -s '{ssh}' {guest.name} {target.address}"


SSH = SecureShell(22)
# By the engine, under xl's stream on a plain socket, or on our line, where libxl prepares the devices before the guest is suspended.
PLAIN = Way(8003, f"{HELPERS} TURNTABLE_PROTECTION=none")
LINE = Way(8004, f"{HELPERS} TURNTABLE_PROTECTION=none", TURNTABLE, "--protection none")
# The same with keys.
SEALED = Way(8005, f"{HELPERS} TURNTABLE_KEYS=/lab/keys", TURNTABLE, "--keys /lab/keys")


def is_built():
    return all((TREE / BUILD / name).exists() for name in ("turntable", "turntable-xen", "turntable-xen-helper"))


def make_keys(pair):
    """Keys of one authority for both hosts, and for each another's; and one key for ssh."""
    def keys(*words):
        subprocess.run([TREE / BUILD / "turntable", "keys", *words], check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{place}/key"], check=True, capture_output=True)
        for directory in ("keys", "foreign"):
            keys("authority", "--in", f"{place}/{directory}")
            for host in pair:
                # The source has the same keys for everything: it is the target's that are foreign.
                of = "keys" if directory == "foreign" and host is pair[0] else directory
                keys("host", f"{host.name}.test", "--authority", f"{place}/{of}", "--in", str(host.directory / "share" / directory), "--address", host.address)
        for host in pair:
            subprocess.run(["install", "-D", "-m", "600", "-t", host.directory / "share/ssh", f"{place}/key", f"{place}/key.pub"], check=True)


def received(host):
    """The end of what xl said where guests arrive."""
    path = host.results / "receive.log"
    return path.read_text(errors="replace")[-4000:] if path.exists() else ""


def ends(pair, guest):
    """The host that the guest runs on, and the other."""
    a, b = pair
    return (a, b) if guest.name in a.domains() else (b, a)


def figures(moved, guest, target, since):
    """What a move took, as the guest and the network saw it."""
    gap = guest.wait_for(target, lambda line: line.get("probe") == "gap" and line["hidden_ms"] > 0, GAP_SECONDS, since=since)
    return {"guest_ms": gap["total_ms"], "network_ms": moved.outage_ms, "seconds": round(moved.seconds, 1), "megabytes": round(moved.sent_bytes / 1e6, 1)}
