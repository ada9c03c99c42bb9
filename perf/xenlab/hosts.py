"""A pair of real Xen hosts, a and b, under QEMU/TCG: Debian's Xen and dom0, joined by a line, and guests that move between them.

    with XenPair() as (a, b):
        set_line((a, b), delay_ms=87.5, rate="1gbit")
        guest = Guest("web", memory_mib=192, dirty=8)
        guest.create(a)
        STOCK.receive(b)
        print(move(guest, a, b).outage_ms)

A host is a machine of perf/lab: commands, results and the end of it all are as there. Times under TCG say little, ratios more.
"""
import json
import shlex
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))
from machines import GUESTS, TREE, LabError, Machine, Machines, blank_disk, line_netdev, share, swift_runtime  # noqa: E402

CACHE = TREE / ".cache/xenlab"
# The only one on which PV guests move while they run.
SHADOW_XEN = CACHE / "xen-shadow"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Xen runs without these under TCG, and without erms and fsrm twice as fast: it emulates them one byte at a time.
PROCESSOR = "max,-smap,-smep,-pku,-pks,-avx,-avx2,-mpx,-erms,-fsrm"
HOST_MIB, DOM0_MIB = 1536, 640
# /dev/vda of each host: for logical volumes.
DISK_BYTES = 512 << 20
# eager-fpu: without it programs of dom0 crash now and then under TCG.
XEN_OPTIONS = (f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 dom0=pv smap=0 smep=0 "
               "spec-ctrl=no,eager-fpu=1 bootscrub=0 edid=no vga=keep cpufreq=none loglvl=warning guest_loglvl=warning")
DOM0_OPTIONS = "console=hvc0 quiet panic=-1 mitigations=off audit=0 cryptomgr.notests tsc=reliable random.trust_cpu=on"
CLOCK_PORT = 7001
# What never happens unless something hangs: several times what a busy computer takes.
COMMAND_SECONDS, GUEST_UP_SECONDS, MOVE_SECONDS = 180, 300, 600
OUTAGE_INTERVAL_MS = 50
DISK_EXTENTS_PER_MIB = 16
# Of one frame more than what is on its way on the longest line with the smallest frames.
LINE_QUEUE_FRAMES = 20000


class XenHost(Machine):
    def __init__(self, name, directory, index, netdev, xen):
        self.address = f"10.8.0.{index}"
        swift = swift_runtime()
        words = f"lab.name={name} lab.address={self.address}/24 lab.swift={swift}"
        super().__init__(name, directory, [
            "-cpu", PROCESSOR, "-m", str(HOST_MIB), "-kernel", str(xen), "-append", XEN_OPTIONS,
            "-initrd", f"{GUESTS}/vmlinux {DOM0_OPTIONS} {words},{CACHE}/dom0.cpio",
            *share("guests", GUESTS), *share("tree", TREE), *share("swift", swift), *share("libraries", LIBRARIES), *blank_disk(directory, 0, DISK_BYTES), "-netdev", f"{netdev},id=line",
            "-device", f"virtio-net-pci,netdev=line,host_mtu=9000,romfile=,mac=52:54:00:08:00:0{index}"])

    def must(self, command, seconds=COMMAND_SECONDS):
        """Runs a command that does not fail unless the laboratory does; what it says."""
        outcome = self.run(command, seconds)
        if outcome.code != 0:
            raise LabError(f"host {self.name}: `{command}` ended with {outcome.code}:\n{outcome.output}")
        return outcome.output

    def domains(self):
        """The names of the guests that it has, in whatever state; one that is gone, (null), is waited for until its memory is free."""
        return self.must("""for try in $(seq 300); do xl list | grep -qF '(null)' || break; sleep 0.2; done
            xl list | awk 'NR > 2 { print $1 }'""").split()

    def make_volume(self, name, mib, is_thin=False):
        """An empty logical volume of the group `vg`, which is made with the first; a thin one has a pool of its own."""
        what = f"-V {mib}M --type thin -L {2 * mib}M --poolmetadatasize 4M -c 64k --thinpool {name}-pool" if is_thin else f"-L {mib}M"
        self.must(f"""[ -e /sys/module/dm_snapshot ] || modprobe -a crc32c_generic dm-mod dm-snapshot dm-thin-pool
            vgs vg >/dev/null 2>&1 || {{ pvcreate -q /dev/vda && vgcreate -q vg /dev/vda; }}
            lvcreate -q -y {what} -n {name} vg""")

    def snapshots(self):
        """Those of a move that are there."""
        return [name for name in self.must("lvs --noheadings -o lv_name vg").split() if name.startswith("turntable_")]

    def checksum(self, volume):
        """Of a volume's content, past what is cached of it."""
        return self.must(f"set -o pipefail; dd if=/dev/vg/{volume} bs=1M iflag=direct status=none | cksum")

    def troubles(self):
        """What Xen and the kernel complained of."""
        return self.run(
            "xl dmesg | grep -vE '(Std\\.|Guest) Loglevel' | grep -iE 'fail|mismatch|crash|error|fatal|oops'; dmesg | grep -E 'traps:|segfault|BUG|Oops|Call Trace'").output


def clock_error_us(a, b):
    return abs(int(b.must(f"hostclock ask {a.address} {CLOCK_PORT}")))


class XenPair(Machines):
    """Host a has 10.8.0.1, b has 10.8.0.2. Their clocks are set together: a guest's time goes on by Xen's after a move."""

    def __init__(self, xen=CACHE / "xen"):
        if not (CACHE / "dom0.cpio").exists() or not xen.exists():
            raise LabError(f"there is no Xen in .cache/xenlab: run `make {'lab-xen' if xen != SHADOW_XEN else 'lab-xen-pv'}`")

        def make(place):
            for name, index in (("a", 1), ("b", 2)):
                directory = place / name
                directory.mkdir()
                yield XenHost(name, directory, index, line_netdev(place, index), xen)
        super().__init__(make)
        try:
            a, b = self.machines
            a.must(f"setsid hostclock serve {CLOCK_PORT} &")
            b.must(f"hostclock set {a.address} {CLOCK_PORT}")
        except BaseException:
            self.close()
            raise


def set_line(hosts, delay_ms=0, rate=None, loss="0%"):
    """The line from now on: one way's delay, its rate as tc says it, and what it loses."""
    words = [f"delay {delay_ms}ms limit {LINE_QUEUE_FRAMES}"] * bool(delay_ms) + [f"rate {rate}"] * bool(rate)
    words += [f"loss {loss}"] * (loss != "0%")
    command = f"tc qdisc replace dev lan0 root netem {' '.join(words)}" if words else "tc qdisc del dev lan0 root 2>/dev/null || true"
    for host in hosts:
        host.must(command)


class Guest:
    """The guest of perf/guest with `dirty` MB/s written over `working_set` MiB: it verifies its memory, and answers at `address`."""
    # What it writes to its first disk: MB/s, over so many MiB, and how many it filled before.
    DISK_RATE, DISK_SET, DISK_FILLED = 4, 4, 8

    def __init__(self, name, kind="pvh", memory_mib=192, dirty=8, working_set=32, address="10.8.0.50", disks=(), is_thin=False):
        """Without an address it has no network, and with it no device whose rings dom0 writes. `disks` are as xl has them; on thin volumes or not."""
        self.name, self.kind, self.memory_mib, self.address, self.disks, self.is_thin = name, kind, memory_mib, address, disks, is_thin
        self.programs = ["search"] + ["disk"] * bool(disks)
        # tsc_mode and rdtscp: Xen would emulate both for a guest that it starts under TCG's unsteady clock.
        options = 'tsc_mode="native"\n' + ('cpuid="host,rdtscp=0"\ntype="%s"' % kind if kind != "pv" else "")
        if kind == "hvm":
            # A screen for its memory's sake; nobody looks.
            options += '\nvga="stdvga"\nvideoram=16\nsdl=0\nvnc=0\nusb=0'
        append = (f"console=hvc0 quiet panic=-1 mitigations=off tsc=reliable {'idle=halt ' if kind != 'pv' else ''}"
                  f"{f'tt.ip={address}/24 ' if address else ''}tt.dirty={dirty} tt.set={working_set} tt.period=1000 "
                  f"tt.disk={self.DISK_RATE} tt.diskset={self.DISK_SET} tt.diskfill={self.DISK_FILLED} "
                  f"tt.run=\"probe talk {' '.join(self.programs)}\"")
        self.config = "\n".join([
            f'name="{name}"', options, f'kernel="/guests/{"vmlinuz" if kind == "hvm" else "vmlinux"}"', 'ramdisk="/guests/demo.cpio"', f"memory={memory_mib}", "vcpus=1",
            'vif=["bridge=xenbr0,mac=00:16:3e:08:00:32,type=vif"]' if address else "",
            f"disk={json.dumps(list(disks))}" if disks else "", f"extra='{append}'",
            'on_crash="preserve"', ""])

    def create(self, host):
        # An earlier guest of that name spoke to the same file.
        since = self.mark(host)
        host.must(f"printf %s {shlex.quote(self.config)} >/run/{self.name}.cfg; xl create -q /run/{self.name}.cfg")
        self.wait_for(host, lambda line: "probe" in line, GUEST_UP_SECONDS, since)
        for program in self.programs:
            self.wait_for(host, lambda line, program=program: line.get(program) == "progress", GUEST_UP_SECONDS, since)

    def _consoles(self, host):
        """On arrival it is called NAME--incoming."""
        return sorted((host.directory / "share/consoles").glob(f"guest-{self.name}*.log"))

    def mark(self, host):
        """How far it has spoken on that host, for `since`."""
        return {path: path.read_bytes().rfind(b"\n") + 1 for path in self._consoles(host)}

    def said(self, host, since=None):
        """Every whole line that it said on that host since then, as objects."""
        found = []
        for path in self._consoles(host):
            spoken = path.read_bytes()[(since or {}).get(path, 0):]
            for line in spoken[:spoken.rfind(b"\n") + 1].splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return [line for line in found if isinstance(line, dict)]

    def console(self, host):
        """All of it, what was said last at the end."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._consoles(host), key=lambda path: path.stat().st_mtime))

    def wait_for(self, host, condition, seconds, since=None):
        """The first line since then that fulfils the condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.said(host, since):
                if condition(line):
                    return line
            host.take(0.2)
        raise LabError(f"guest {self.name} on host {host.name} did not say what it was waited for:\n{self.console(host)[-3000:]}")

    def works_on(self, host, lines=2, seconds=COMMAND_SECONDS):
        """Whether it has found no wrong byte in its memory and on its disk, after it worked on for so many lines of its search, and read
        over its disk once; LabError if it does not."""
        since = self.mark(host)
        for _ in range(lines):
            self.wait_for(host, lambda line: line.get("search") == "progress", seconds, since=self.mark(host))
        if self.disks and not self._is_wrong(host):
            first = self._disk_line(host, lambda line: True, seconds, since).get("swept", 0)
            self._disk_line(host, lambda line: line["swept"] >= first + self.DISK_FILLED * DISK_EXTENTS_PER_MIB, seconds, since)
        return not self._is_wrong(host)

    def _is_wrong(self, host):
        return any(line.get(program) in ("corrupt", "failed") for line in self.said(host) for program in self.programs)

    def _disk_line(self, host, condition, seconds, since):
        """The first line of its disk since then that fulfils the condition, or says that something is wrong with it."""
        return self.wait_for(host, lambda line: "disk" in line and (line["disk"] != "progress" or condition(line)), seconds, since)


class Way:
    """How an unmodified xl gets a guest to another host: over a plain socket, or by `turntable xl-connect`; with these settings."""
    receiving = ""

    def __init__(self, port, environment="", turntable=None, options=""):
        """`turntable`: the program, with `options` for both of its ends. Else both ends are socat."""
        self.port, self.environment, self.turntable, self.options = port, environment, turntable, options

    def receive(self, host):
        """Lets a host take machines. What xl says there goes to its results. On a plain socket the stream is the socket itself."""
        log = "/lab/results/receive.log"
        command = f"socat TCP-LISTEN:{self.port},fork,reuseaddr,nodelay EXEC:'xl migrate-receive',nofork"
        if self.turntable:
            command = f"{self.turntable} xl-receive --listen 0.0.0.0:{self.port} {self.options} {self.receiving}"
        host.must(f"""{self.environment} setsid {command} </dev/null >>{log} 2>&1 3>&- &
            for try in $(seq 300); do grep -qi ':{self.port:04x} 00000000:0000 0A' /proc/net/tcp && exit; sleep 0.1; done; exit 1""")

    def command(self, guest, target):
        if self.turntable:
            return (f"{self.environment} xl migrate -s '{self.turntable} xl-connect {self.options}' {guest.name} "
                    f"{target.address}:{self.port}")
        return f"{self.environment} xl migrate -s '' {guest.name} 'exec socat -b 262144 - TCP:{target.address}:{self.port},nodelay'"


class Direct(Way):
    """By `turntable xen migrate`, without xl; with options that are the source's and the target's alone."""

    def __init__(self, port, turntable, options, moving="", receiving=""):
        super().__init__(port, "", turntable, options)
        self.moving, self.receiving = moving, receiving

    def command(self, guest, target):
        return f"{self.turntable} xen migrate {guest.name} {target.address}:{self.port} {self.options} {self.moving}"


STOCK = Way(8002)
# What libxl says of a guest that did not suspend within its minute, which an emulated one on a busy computer may take.
NOT_SUSPENDED = "guest didn't acknowledge suspend"


class Move:
    """One migration under an unmodified xl, and what was seen of it from outside."""

    def __init__(self, outcome, seconds, outage, sent_bytes):
        self.code, self.output, self.seconds = outcome.code, outcome.output, seconds
        self.outage_ms, self.sent_bytes = outage.get("longest_outage_ms"), sent_bytes


def move(guest, source, target, way=STOCK, seconds=MOVE_SECONDS):
    """Moves a guest, while the source's dom0 asks it for answers; three seconds more at the end."""
    outcome = source.run(f"""
        outage {guest.address} {OUTAGE_INTERVAL_MS} >/lab/results/outage &
        sent() {{ cat /sys/class/net/lan0/statistics/tx_bytes; }}
        now() {{ cut -d' ' -f1 /proc/uptime; }}
        sleep 1; echo "$(now) $(sent)" >/lab/results/before
        {way.command(guest, target)}
        code=$?
        echo "$(now) $(sent)" >/lab/results/after
        sleep 3; kill -TERM %1; wait; exit $code""", seconds)
    (began, sent_before), (ended, sent_after) = (
        map(float, (source.results / name).read_text().split()) for name in ("before", "after"))
    return Move(outcome, ended - began, json.loads((source.results / "outage").read_text()), sent_after - sent_before)
