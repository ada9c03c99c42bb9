"""What the benchmarks share: two hosts in network namespaces, machines on them, processor time, medians."""
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TURNTABLE = os.environ.get("TURNTABLE", f"{ROOT}/.build/release/turntable")
LIGHTPATH = f"{os.path.dirname(TURNTABLE)}/turntable-lightpath"
GUEST = f"{ROOT}/.cache/guest"
HOSTS = (f"ttbench{os.getpid()}a", f"ttbench{os.getpid()}b")
ADDRESSES = ("10.78.0.1", "10.78.0.2")
TICKS = os.sysconf("SC_CLK_TCK")
CPU = "max,-erms,-pclmulqdq"


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


# Whoever ends a benchmark ends what it started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def on(host, *command):
    return ("ip", "netns", "exec", HOSTS[host], *command)


class Line:
    """Two namespaces and what joins them: a veth pair, which the kernel may shape, or a lightpath with rate and delay."""

    def __init__(self, rate=None, delay="87.5ms", mtu=9000, shaped=None):
        self.process = None
        self.shaped = shaped
        self.rate, self.delay, self.mtu = rate, delay, mtu
        self.control = f"/run/ttbench-line-{os.getpid()}.sock"

    def __enter__(self):
        for name in HOSTS:
            subprocess.run(("ip", "netns", "del", name), capture_output=True)
        if self.rate:
            self.process = subprocess.Popen(
                (LIGHTPATH, "--a", HOSTS[0], "--b", HOSTS[1], "--create", "--replace", "--address-a", f"{ADDRESSES[0]}/30",
                 "--address-b", f"{ADDRESSES[1]}/30", "--rate", self.rate, "--delay", self.delay, "--mtu", str(self.mtu),
                 "--control", self.control),
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.process.stdout.readline()
        else:
            for name in HOSTS:
                run("ip", "netns", "add", name)
            run("ip", "link", "add", "line", "netns", HOSTS[0], "mtu", str(self.mtu), "type", "veth",
                "peer", "name", "line", "netns", HOSTS[1], "mtu", str(self.mtu))
            for name, address in zip(HOSTS, ADDRESSES):
                run("ip", "-n", name, "addr", "add", f"{address}/30", "dev", "line")
                run("ip", "-n", name, "link", "set", "line", "up")
                if self.shaped:
                    run("tc", "-n", name, "qdisc", "add", "dev", "line", "root", "tbf", "rate", self.shaped, "burst", "256kb", "latency", "10ms")
        return self

    def tell(self, command):
        """Changes a lightpath while it runs: "cut", "restore", …"""
        run(LIGHTPATH, "--control", self.control, "--tell", command)

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate()
        for name in HOSTS:
            subprocess.run(("ip", "netns", "del", name), capture_output=True)


def make_keys(directory):
    """Keys of two hosts, a and b, that know each other."""
    def keys(*arguments):
        subprocess.run((TURNTABLE, "keys", *arguments), check=True, stdout=subprocess.DEVNULL)
    keys("authority", "--in", f"{directory}/authority")
    for side, address in zip("ab", ADDRESSES):
        keys("host", side, "--address", address, "--authority", f"{directory}/authority", "--in", f"{directory}/keys-{side}")


class Processes:
    """Everything started here ends with the block, however it ends."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="ttbench-")
        make_keys(self.directory)
        self.started = []
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            if process.poll() is None:
                process.kill()
            process.wait()
        # Machines that a receiver started live on without it.
        subprocess.run(("pkill", "-KILL", "-f", self.directory), capture_output=True)
        time.sleep(0.2)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *command, **options):
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process = subprocess.Popen(command, text=True, **options)
        self.started.append(process)
        return process

    def path(self, name):
        return f"{self.directory}/{name}"


class Monitor:
    """A QMP connection."""

    def __init__(self, path, patience=10):
        deadline = time.time() + patience
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                if time.time() > deadline:
                    raise
                time.sleep(0.02)
        self.file = self.socket.makefile("rw")
        # When each event was last said.
        self.times = {}
        self.file.readline()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "error" in reply:
                raise RuntimeError(f"{command}: {reply['error']['desc']}")
            if "event" in reply:
                self.times[reply["event"]] = reply["timestamp"]["seconds"] + reply["timestamp"]["microseconds"] / 1e6
            if "return" in reply:
                return reply["return"]


def cpu_seconds(pid):
    """Processor time of a process and its ended threads, user and system."""
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for(what, condition, patience=120):
    deadline = time.time() + patience
    while not (value := condition()):
        if time.time() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)
    return value


def contains(path, text):
    return os.path.exists(path) and text in open(path, errors="replace").read()


def pattern_machine(serial, mebibytes, memory=True):
    """A stopped-in-its-tracks machine whose RAM is all random."""
    size = ["-m", str(mebibytes)] if memory else []
    return ["qemu-system-x86_64", "-M", "pc", *size, "-accel", "tcg", "-nodefaults", "-display", "none", "-serial", f"file:{serial}",
            "-kernel", f"{GUEST}/pattern.elf", "-append", "seed=7 fill=1 mode=idle"]


def demo_machine(serial, dirty, working_set, mebibytes=200):
    return ["qemu-system-x86_64", "-M", "pc", "-m", str(mebibytes), "-cpu", CPU, "-accel", "tcg", "-nodefaults", "-display", "none",
            "-serial", f"file:{serial}", "-kernel", f"{GUEST}/vmlinux", "-initrd", f"{GUEST}/demo.cpio",
            "-append", f"console=ttyS0 quiet tt.gap=8 tt.dirty={dirty} tt.set={working_set} tt.run=\"probe search\""]


def turntable_move(processes, number, qemu, ready, options=(), probed=False, protection="none", watch=lambda event: None, address=ADDRESSES[1]):
    """Starts a machine under turntable, moves it, and gives the report, with the processor time from the first page on."""
    def security(side):
        return ("--protection", protection, "--keys", processes.path(f"keys-{side}"))

    directories = [processes.path(f"run{number}-{side}") for side in "ab"]
    serials = [processes.path(f"serial{number}-{side}") for side in "ab"]
    runner = processes.start(*on(0, TURNTABLE, "run", "--name", "m", "--run-dir", directories[0], "--state-dir", f"{directories[0]}-state", "--", *qemu(serials[0])))
    wait_for("the guest", lambda: ready(serials[0]))
    receiver = processes.start(
        *on(1, TURNTABLE, "receive", "--once", "--json", "--listen", f"{ADDRESSES[1]}:4906", "--run-dir", directories[1], "--state-dir", f"{directories[1]}-state", *security("b"), "--", *qemu(serials[1])),
        stdout=subprocess.PIPE)
    receiver.stdout.readline()
    sender = processes.start(*on(0, TURNTABLE, "send", "m", address, "--json", "--run-dir", directories[0], "--state-dir", f"{directories[0]}-state", *security("a"), *options), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    report, before, memory = None, None, {}
    for line in sender.stdout:
        event = json.loads(line)
        watch(event)
        if event.get("phase") == "copying" and before is None:
            # ip netns exec replaces itself, so these are the programs' own processes.
            before = cpu_seconds(sender.pid) + cpu_seconds(receiver.pid)
        if event["event"] in ("round", "progress"):
            memory = {"sender": resident(sender.pid) or memory.get("sender"), "receiver": resident(receiver.pid) or memory.get("receiver")}
        if event["event"] == "completed":
            report = event["report"]
            after = cpu_seconds(sender.pid) + cpu_seconds(receiver.pid)
    if sender.wait() != 0 or report is None:
        raise RuntimeError(f"turntable send failed: {sender.stderr.read()}")
    receiver.wait()
    report["cpuSeconds"] = after - before
    report["engineMemory"] = memory
    report["processes"] = [sender.pid, receiver.pid]
    report["guestGap"] = guest_gap(serials[1]) if probed else None
    end_machine(directories[1])
    runner.wait()
    return report


def end_machine(directory):
    try:
        Monitor(f"{directory}/m/qmp.sock").do("quit")
    except (OSError, ValueError):
        pass


def resident(pid):
    """Bytes of a process beside the guest's pages: anonymous memory and page tables."""
    fields = {}
    try:
        for line in open(f"/proc/{pid}/status"):
            name, value = line.split(":", 1)
            fields[name] = value
    except OSError:
        return None
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmPTE") if name in fields)


def qemu_move(processes, number, qemu, ready, downtime_ms, channels=0, prealloc=True, probed=False):
    """Moves the same machine by QEMU's own migration, with nothing of turntable in it."""
    serials = [processes.path(f"qserial{number}-{side}") for side in "ab"]
    monitors = [processes.path(f"qmp{number}-{side}") for side in "ab"]

    def command(side):
        words = qemu(serials[side]) + ["-qmp", f"unix:{monitors[side]},server=on,wait=off"]
        if side == 1:
            size = words[words.index("-m") + 1]
            if prealloc:
                words += ["-object", f"memory-backend-ram,id=ram,size={size}M,prealloc=on", "-machine", "memory-backend=ram"]
            words += ["-incoming", "defer"]
        elif prealloc:
            size = words[words.index("-m") + 1]
            words += ["-object", f"memory-backend-ram,id=ram,size={size}M", "-machine", "memory-backend=ram"]
        return words

    source = processes.start(*on(0, *command(0)))
    wait_for("the guest", lambda: ready(serials[0]))
    target = processes.start(*on(1, *command(1)))
    a, b = Monitor(monitors[0]), Monitor(monitors[1], 60)
    for monitor in (a, b):
        if channels:
            monitor.do("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
            monitor.do("migrate-set-parameters", **{"multifd-channels": channels})
    b.do("migrate-incoming", uri=f"tcp:{ADDRESSES[1]}:4444")
    a.do("migrate-set-parameters", **{"max-bandwidth": 100 << 30, "downtime-limit": downtime_ms})
    if "idle" in " ".join(qemu(serials[0])):
        a.do("stop")
    before = cpu_seconds(source.pid) + cpu_seconds(target.pid)
    started = time.time()
    a.do("migrate", uri=f"tcp:{ADDRESSES[1]}:4444")
    while True:
        status = a.do("query-migrate")
        if status.get("status") in ("completed", "failed"):
            break
        if time.time() - started > 120:
            status["status"] = "did not converge in 120 s"
            break
        time.sleep(0.01)
    after = cpu_seconds(source.pid) + cpu_seconds(target.pid)
    if status["status"] != "completed":
        return {"failed": status["status"]}
    result = {
        "seconds": status["total-time"] / 1000, "bytes": status["ram"]["transferred"], "downtimeMilliseconds": status["downtime"],
        "rateBitsPerSecond": status["ram"]["mbps"] * 1e6, "cpuSeconds": after - before, "guestGap": guest_gap(serials[1]) if probed else None,
    }
    for monitor in (a, b):
        try:
            monitor.do("quit")
        except (OSError, ValueError):
            pass
    source.wait()
    target.wait()
    return result


def guest_gap(serial, patience=15):
    """What the machine saw of its own standstill, in milliseconds: the longest gap its probe reports."""
    def gaps():
        found = []
        for line in open(serial, errors="replace") if os.path.exists(serial) else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("probe") == "gap" and event.get("hidden_ms", 0) > 5:
                found.append(event["total_ms"])
        return found
    try:
        return max(wait_for("the probe's report", gaps, patience))
    except TimeoutError:
        return None


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else float("nan")


def record(title, command, rows):
    """Prints a table, and with --record appends it to docs/performance.md."""
    import datetime
    lines = [f"### {title}, {datetime.date.today().isoformat()}", "", f"`{command}`", ""]
    lines += ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows[1:]]
    text = "\n".join(lines) + "\n"
    print(text)
    if "--record" in sys.argv:
        with open(f"{ROOT}/docs/performance.md", "a") as file:
            file.write("\n" + text)
