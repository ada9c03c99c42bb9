"""Laboratory machines: throw-away guests that run Debian's kernel under QEMU/TCG, with this host's programs.

    with Laboratory(machines=2, network=True) as (a, b):
        outcome = a.run("modprobe dm_snapshot && lvs", seconds=30)   # .code, .output
        job = b.begin("sleep 5; hostname"); ...; job.finish(seconds=10)
        a.results / "file"                                            # what a command left in $LAB_RESULTS

Whatever ends the `with`, also an exception, ends the machines and removes their directory. They end with this process even
when it is killed. A machine has one processor: more are slower under TCG.
"""
import contextlib
import ctypes
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
GUESTS = TREE / ".cache/guest"
BOOT_SECONDS = 180
POWEROFF_SECONDS = 10
CONSOLE_LINES = 60
ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "lvm", "libibverbs.d", "protocols", "services", "alternatives")
# Without these flags TCG runs twice to four times as fast: it emulates the instructions behind them one byte at a time.
PROCESSOR = "max,-erms,-pclmulqdq"
APPEND = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class LabError(Exception):
    """The laboratory itself failed, not a command in it."""


class CommandTimeout(LabError):
    """A command was not done in time. Its machine is of no further use."""


class Outcome:
    def __init__(self, code, output):
        self.code, self.output = code, output


def swift_runtime():
    """Where the programs of `swift build` look for Swift's libraries: in the toolchain that built them."""
    swift = shutil.which("swift")
    if not swift:
        raise LabError("there is no swift on the PATH")
    return Path(swift).resolve().parents[1] / "lib/swift/linux"


def make_initramfs(target):
    """busybox, the modules that reach the shares, and as much of /etc as this host's programs ask for."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        root = Path(directory)
        for name in ("dev", "etc", "lab", "mnt", "modules-all", "own", "proc", "run", "sys", "tmp", "usr", "var/lib", "var/tmp"):
            (root / name).mkdir(parents=True)
        for link, aim in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin"), ("var/run", "/run"), ("etc/mtab", "/proc/mounts")):
            (root / link).symlink_to(aim)
        shutil.copy(shutil.which("busybox"), root / "own/busybox")
        (root / "own/modprobe").write_text('#!/bin/sh\nexec /usr/sbin/modprobe -d /modules-all "$@"\n')
        (root / "own/modprobe").chmod(0o755)
        for name in ETC:
            host = Path("/etc") / name
            if host.is_dir():
                shutil.copytree(host, root / "etc" / name, symlinks=True, ignore=shutil.ignore_patterns("archive", "backup"))
            elif host.exists():
                shutil.copy(host, root / "etc" / name)
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        (root / "etc/lvm").mkdir(exist_ok=True)
        shutil.copy(HERE / "lvmlocal.conf", root / "etc/lvm/lvmlocal.conf")
        for name in ("modules", "modules-9p"):
            shutil.copytree(GUESTS / name, root / name)
        shutil.copy(HERE / "jobs", root / "own/jobs")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        names = subprocess.run(["find", "."], cwd=root, check=True, stdout=subprocess.PIPE).stdout
        with open(target, "wb") as archive:
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=root, check=True, input=names, stdout=archive)


class Job:
    """A command that runs in a machine."""

    def __init__(self, machine, number, directory):
        self.machine, self.number, self.directory = machine, number, directory
        self.code = None

    def output(self, start=0):
        """What it has said so far, from byte `start` on."""
        path = self.directory / "output"
        if not path.exists():
            return b""
        with open(path, "rb") as file:
            file.seek(start)
            return file.read()

    def finish(self, seconds):
        """Waits for its end."""
        self.machine.wait(lambda: self.code is not None, seconds, f"a command in machine {self.machine.name}")
        return Outcome(self.code, self.output().decode(errors="replace"))


class Machine:
    """A QEMU with one processor that takes commands on a virtio port and has a directory of ours as its 9p share `lab`."""

    def __init__(self, name, directory, arguments):
        self.name, self.directory = name, directory
        self.results = directory / "share/results"
        self.results.mkdir(parents=True)
        self.console = directory / "console"
        self._jobs = {}
        self._is_ready = False
        self._rest = b""
        self._channel = None
        self._process = self._start(arguments)

    def _start(self, arguments):
        # The host's listening socket exists before QEMU does: there is nothing to poll for.
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / "channel"))
        self._listener.listen(1)
        command = [
            "qemu-system-x86_64", "-name", f"lab-{self.name}", "-accel", "tcg,thread=multi", "-M", "pc", "-smp", "1",
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{self.console}",
            "-device", "virtio-serial-pci", "-chardev", f"socket,path={self.directory}/channel,id=channel",
            "-device", "virtserialport,chardev=channel,name=org.turntable.lab", *share("lab", self.directory / "share", ""), *arguments]
        log = open(self.directory / "qemu.log", "w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=prepare_machine)
        log.close()
        return process

    def wait_until_ready(self):
        self.wait(lambda: self._is_ready, BOOT_SECONDS, f"machine {self.name} to boot")

    def begin(self, command):
        """Starts a bash script in the machine."""
        number = len(self._jobs) + 1
        directory = self.directory / f"share/{number}"
        directory.mkdir()
        (directory / "command").write_text(command + "\n")
        self._jobs[number] = Job(self, number, directory)
        self._channel.sendall(f"run {number}\n".encode())
        return self._jobs[number]

    def run(self, command, seconds=60):
        return self.begin(command).finish(seconds)

    def wait(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(f"waiting for {what}: not within {seconds:g} s")
            self.take(min(left, 1))

    def take(self, seconds):
        """Takes what the machine says, waiting at most so long for it."""
        source = self._channel or self._listener
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            is_there = selector.select(seconds)
        if not is_there:
            if self._process.poll() is not None:
                raise self._death()
            return
        if not self._channel:
            self._channel, _ = self._listener.accept()
            return
        piece = self._channel.recv(4096)
        if not piece:
            self._process.wait(POWEROFF_SECONDS)
            raise self._death()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            verb, number, code = line.decode().split()
            if verb == "ready":
                self._is_ready = True
            else:
                self._jobs[int(number)].code = int(code)

    def _death(self):
        lines = [line for path in (self.console, self.directory / "qemu.log") if path.exists()
                 for line in path.read_text(errors="replace").splitlines()[-CONSOLE_LINES:]]
        return LabError("\n    ".join([f"machine {self.name} ended by itself, with code {self._process.returncode}:", *lines]))

    def close(self):
        """No grace: nothing in the machine is kept."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for end in (self._channel, self._listener):
            if end:
                end.close()


class DebianMachine(Machine):
    """Debian's kernel with this host's programs."""

    def __init__(self, name, directory, initramfs, memory_mib, disks, modules, address, netdev):
        swift = swift_runtime()
        words = [f"lab.name={name}", f"lab.tree={TREE}", f"lab.swift={swift}"]
        words += [f"lab.address={address}"] * bool(address) + [f"lab.modules={','.join(modules)}"] * bool(modules)
        arguments = ["-cpu", PROCESSOR, "-m", str(memory_mib),
                     "-kernel", str(GUESTS / "vmlinux"), "-initrd", str(initramfs), "-append", f"{APPEND} {' '.join(words)}"]
        for tag, path in (("usr", "/usr"), ("modules", GUESTS / "modules-all"), ("tree", TREE), ("swift", swift)):
            arguments += share(tag, path)
        for index, size in enumerate(disks):
            arguments += blank_disk(directory, index, size)
        if netdev:
            arguments += ["-netdev", f"{netdev},id=line",
                          "-device", f"virtio-net-pci,netdev=line,host_mtu=9000,romfile=,mac=52:54:00:07:00:0{address.split('/')[0][-1]}"]
        super().__init__(name, directory, arguments)


def prepare_machine():
    """In the process that becomes QEMU: it ends with this one, and is as nice as it, for a session has a niceness of its own (sched(7), autogroup)."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(os.nice(0)))


def share(tag, path, mode=",readonly=on"):
    """QEMU's arguments for a directory that the machine mounts by 9p."""
    return ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{mode}", "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def blank_disk(directory, index, size):
    """QEMU's arguments for a new disk, which takes the room of what is written to it."""
    path = directory / f"disk{index}"
    path.touch()
    os.truncate(path, size)
    return ["-drive", f"file={path},format=raw,if=none,id=disk{index},cache=unsafe,discard=unmap",
            "-device", f"virtio-blk-pci,drive=disk{index},serial=lab{index}"]


def line_netdev(directory, index):
    """One end of a reliable line between two machines: a datagram socket loses what does not fit its buffer. The one who
    connects waits for the other."""
    line = directory / "line"
    if index == 1:
        return f"stream,server=on,addr.type=unix,addr.path={line}"
    deadline = time.monotonic() + BOOT_SECONDS
    while not line.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{line} did not appear")
        time.sleep(0.01)
    return f"stream,server=off,addr.type=unix,addr.path={line}"


class Machines:
    """Machines that live and end together, and a directory that goes with them."""

    def __init__(self, make):
        self.machines = []
        self._directory = Path(tempfile.mkdtemp(prefix="turntable-lab-"))
        try:
            for machine in make(self._directory):
                self.machines.append(machine)
            for machine in self.machines:
                machine.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def close(self):
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            for machine in self.machines:
                stack.callback(machine.close)

    def __enter__(self):
        return self.machines

    def __exit__(self, *_):
        self.close()


class Laboratory(Machines):
    """One machine, or two joined by a line of MTU 9000 on which a has 10.7.0.1 and b has 10.7.0.2."""

    def __init__(self, machines=1, memory_mib=512, disks=(), network=False, modules=()):
        if machines not in (1, 2):
            raise LabError(f"{machines} machines: the laboratory joins one or two")
        if not (GUESTS / "modules-all").exists():
            raise LabError("there is no kernel in .cache/guest: run `make lab`")

        def make(place):
            make_initramfs(place / "lab.cpio")
            for name, index in zip("ab"[:machines], (1, 2)):
                directory = place / name
                directory.mkdir()
                netdev = None
                if network:
                    netdev = "hubport,hubid=0" if machines == 1 else line_netdev(place, index)
                yield DebianMachine(
                    name, directory, place / "lab.cpio", memory_mib, disks, modules, f"10.7.0.{index}/24" if network else None, netdev)
        super().__init__(make)


def end_on_signals():
    """Ctrl-C, kill(1) and a closed terminal end a program by an exception, so that every `with` cleans up."""
    def end(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
