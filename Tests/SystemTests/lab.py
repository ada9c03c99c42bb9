"""What the system tests are made of: the real binary, real QEMU machines, long lines between namespaces.

A Lab owns everything that one test starts, in a directory of its own. Its end checks that nothing is left of it and removes
what is: processes by number, and only those that name the lab's directory.
"""
import atexit
import contextlib
import functools
import itertools
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TURNTABLE_BUILD", TREE / ".build/release"))
TURNTABLE = str(BUILD / "turntable")
LIGHTPATH = str(BUILD / "turntable-lightpath")
GUESTS = TREE / ".cache/guest"
PATTERN = str(GUESTS / "pattern.elf")

PAGE_BYTES = 4096
WAIT_SECONDS = 20  # for anything that a machine or a program of ours does; twice what a loaded computer needs
ACCELERATORS = {"tcg": ["-accel", "tcg"], "kvm": ["-accel", "kvm", "-cpu", "qemu64"], "kvm, no clock": ["-accel", "kvm", "-cpu", "qemu64,kvmclock=off"]}


@functools.cache
def keys():
    """A directory with the keys of the hosts "source" and "target", made by the real command; it goes when the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="tt-keys-", dir="/tmp"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    run(TURNTABLE, "keys", "authority", "--in", directory / "authority")
    for side, *addresses in (("source", "127.0.0.1", "10.5.0.1"), ("target", "127.0.0.1", "10.5.0.2"), ("third", "127.0.0.1")):
        more = [word for address in addresses for word in ("--address", address)]
        run(TURNTABLE, "keys", "host", f"{side}.test", "--authority", directory / "authority", "--in", directory / side, *more)
    return directory


class Timeout(AssertionError):
    pass


def wait_for(what, condition, seconds=WAIT_SECONDS):
    """Polls until `condition` gives something true, and gives that."""
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise Timeout(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def host_environment(run_directory, lab=None, user=None):
    """Each side is a host of its own: its journals lie beside its machines, and it has its own keys."""
    host = str(run_directory).rsplit("-", 1)[-1]
    mine = keys() / (host if host in ("source", "target") else "third")
    if user:
        # A copy of its own: a key that others may read is refused.
        theirs = Path(tempfile.mkdtemp(dir=lab.directory)) / "keys"
        shutil.copytree(mine, theirs)
        for path in (theirs.parent, theirs, *theirs.iterdir()):
            os.chown(path, user, user)
        mine = theirs
    return {"TURNTABLE_STATE_DIR": f"{run_directory}-state", "TURNTABLE_KEYS": str(mine)}


class Program:
    """A running program of ours: its events (lines of JSON on standard output), its standard error, its exit code."""

    def __init__(self, lab, arguments, namespace=None, environment=None, user=None):
        prefix = []
        if namespace:
            prefix += ["ip", "netns", "exec", namespace]
        if user:
            prefix += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        self.arguments = [str(argument) for argument in arguments]
        if "--run-dir" in self.arguments:
            environment = {
                **host_environment(self.arguments[self.arguments.index("--run-dir") + 1], lab, user), **(environment or {})}
        self.process = subprocess.Popen(
            [*prefix, *self.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", cwd=lab.directory, env={**os.environ, **(environment or {})}, start_new_session=True)
        self.events, self.output, self.errors = [], [], []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=arguments, daemon=True)
            for arguments in ((self.process.stdout, self.output), (self.process.stderr, self.errors))]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                if lines is self.output and line.startswith("{"):
                    with contextlib.suppress(ValueError):
                        self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def number(self):
        return self.process.pid

    def wait_event(self, name, seconds=WAIT_SECONDS, **members):
        """The first event of that name whose members have these values."""
        def found():
            for event in self.events:
                if event.get("event") == name and all(event.get(key) == value for key, value in members.items()):
                    return event
            return None
        return self._wait(f"event {name} {members}", found, seconds)

    def wait_error(self, text, seconds=WAIT_SECONDS):
        return self._wait(f"'{text}' on standard error", lambda: next((line for line in self.errors if text in line), None), seconds)

    def _wait(self, what, found, seconds):
        give_up = time.monotonic() + seconds
        with self._changed:
            while True:
                value = found()
                if value:
                    return value
                left = give_up - time.monotonic()
                has_ended = self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
                if left <= 0 or has_ended:
                    raise Timeout(f"{what}: {'the program ended' if has_ended else f'not within {seconds} s'}\n{self.transcript()}")
                self._changed.wait(min(left, 0.1))

    def wait(self, seconds=WAIT_SECONDS):
        """Its exit code, when all that it wrote is read."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Timeout(f"{' '.join(self.arguments[:3])} did not end within {seconds} s\n{self.transcript()}") from None
        for reader in self._readers:
            reader.join(2)
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def transcript(self):
        return "\n".join([" ".join(self.arguments), *self.output[-15:], *self.errors[-15:]])

    def wait_frozen(self):
        """Until it stands where `freezing` told it to."""
        def is_frozen():
            assert self.process.poll() is None, f"it ended before it came there\n{self.transcript()}"
            return Path(f"/proc/{self.number}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        try:
            wait_for("the instant to freeze at", is_frozen)
        except Timeout as error:
            raise Timeout(f"{error}\n{self.transcript()}") from None

    def thaw(self):
        self.signal(signal.SIGCONT)


class Monitor:
    """A QMP client of its own, beside Turntable's."""

    def __init__(self, path):
        def connect():
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(WAIT_SECONDS)
            try:
                self.socket.connect(str(path))
                return True
            except OSError:
                self.socket.close()
                return False
        wait_for(f"the monitor {path}", connect)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            line = self.lines.readline()
            if not line:
                raise ConnectionError("QEMU is gone")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")

    def close(self):
        self.lines.close()
        self.socket.close()


class Machine:
    """A QEMU somewhere: where its console and its second monitor are, and its memory."""

    def __init__(self, lab, side, name):
        self.lab, self.side, self.name = lab, side, name
        self.console = lab.directory / f"{side}-{name}.log"
        self.monitor_path = lab.directory / f"{side}-{name}.qmp"
        self.run_directory = lab.run_directory(side)

    @property
    def number(self):
        return json.loads((self.run_directory / self.name / "machine.json").read_text())["process"]

    def _ask(self, command, **arguments):
        monitor = Monitor(self.monitor_path)
        try:
            return monitor.execute(command, **arguments)
        finally:
            monitor.close()

    def status(self):
        return self._ask("query-status")["status"]

    def stop(self):
        self._ask("stop")

    def resume(self):
        self._ask("cont")

    def text(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def wait_text(self, pattern, seconds=WAIT_SECONDS, after=0):
        return wait_for(f"{pattern} on the console {self.console.name}", lambda: re.search(pattern, self.text()[after:]), seconds)

    def writes(self):
        """The pattern guest's own count of pages written, as last printed."""
        found = re.findall(r"writes=(\d+)", self.text())
        return int(found[-1]) if found else 0

    def wait_advance(self, seconds=WAIT_SECONDS):
        """It runs: its counter goes on from where it is."""
        before = self.writes()
        wait_for(f"progress of the guest on {self.console.name} after {before} writes", lambda: self.writes() > before, seconds)
        return before

    def memory(self, writable=False):
        """Descriptors of its memory files, which keep the contents when QEMU is gone."""
        found = {}
        directory = f"/proc/{self.number}/fd"
        for entry in os.listdir(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{directory}/{entry}")
                if target.startswith("/memfd:turntable:"):
                    name = target.removeprefix("/memfd:turntable:").removesuffix(" (deleted)")
                    if name not in found:
                        found[name] = self.lab.own(os.open(f"{directory}/{entry}", os.O_RDWR if writable else os.O_RDONLY))
        return found


class Lease:
    """A receiver's hold on an incoming machine; it closes as the receiver dies. Sources/Hypervisors/QEMU/MachineLease.swift"""

    def __init__(self, machine):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_SECONDS)
        self.socket.connect(str(machine.run_directory / machine.name / "lease.sock"))
        assert self.socket.recv(1) == b"g", "the keeper does not give the machine"

    def say(self, word):
        self.socket.sendall(word)

    def wait_end(self):
        """Until the keeper has ended."""
        assert self.socket.recv(1) == b""
        self.socket.close()

    def close(self):
        self.socket.close()


class Lab:
    numbers = itertools.count()  # of namespaces, over all labs

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="tt-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.programs, self.machines, self.descriptors, self.namespaces = [], [], [], []
        # What send and receive are told of protection: by default nothing, so that they are protected.
        self.protection = []

    # --- Programs

    def start(self, *arguments, **options):
        program = Program(self, arguments, **options)
        program.options = options
        self.programs.append(program)
        return program

    def turntable(self, *arguments, **options):
        return self.start(TURNTABLE, *arguments, **options)

    def kill(self, program):
        """As suddenly as can be: nothing of its own comes to an end."""
        program.signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL, program.transcript()

    def restart(self, program, **changes):
        """The same command again, after its end; a receiver listens where it did."""
        assert program.process.poll() is not None, "it has not ended"
        arguments = list(program.arguments)
        address = getattr(program, "address", None)
        if address:
            arguments[arguments.index("--listen") + 1] = address
        again = self.start(*arguments, **{**program.options, **changes})
        if address:
            again.address = again.wait_event("listening")["address"]
        return again

    def run_directory(self, side):
        return self.directory / f"run-{side}"

    def own(self, descriptor):
        self.descriptors.append(descriptor)
        return descriptor

    # --- Machines

    def command(self, side, name, accelerator="tcg", memory=("-m", "64"), append="mode=idle", extra=(), kernel=PATTERN):
        """A QEMU command line; console and second monitor lie in the lab and are named after the side."""
        machine = Machine(self, side, name)
        return [
            "qemu-system-x86_64", *ACCELERATORS[accelerator], *memory, "-nodefaults", "-display", "none", "-serial", f"file:{machine.console}",
            "-qmp", f"unix:{machine.monitor_path},server=on,wait=off", "-kernel", kernel, "-append", append, *extra]

    def machine(self, name="m", side="source", ready=r"PATTERN filled.*\n", namespace=None, command=None, user=None, environment=None, options=(), seconds=WAIT_SECONDS, **details):
        """Starts a machine and waits for `ready` on its console."""
        machine = Machine(self, side, name)
        machine.program = self.turntable(
            "run", "--name", name, "--run-dir", self.run_directory(side), *options, "--", *(command or self.command(side, name, **details)),
            namespace=namespace, user=user, environment=environment)
        machine.program.wait_error("runs, process")
        self.machines.append(machine)
        if ready:
            machine.wait_text(ready, seconds)
        return machine

    def incoming(self, window, name="m", side="target", **details):
        """A machine that waits for a receiver, as one that a receiver started: the test is that receiver."""
        machine = Machine(self, side, name)
        machine.program = self.turntable(
            "run", "--incoming", "--resume-window", window, "--name", name, "--run-dir", self.run_directory(side), "--", *self.command(side, name, **details))
        wait_for("the machine's record", (machine.run_directory / name / "machine.json").exists)
        self.machines.append(machine)
        return machine

    def arrival(self, name="m", side="target"):
        """The machine that a receiver started."""
        machine = Machine(self, side, name)
        self.machines.append(machine)
        return machine

    def receiver(self, *arguments, side="target", address="127.0.0.1:0", once=True, **options):
        """A receiver, and where it listens."""
        program = self.turntable(
            "receive", *(["--once"] if once else []), "--json", "--listen", address, "--run-dir", self.run_directory(side), *self.protection, *arguments, **options)
        program.address = program.wait_event("listening")["address"]
        return program

    def receiver_of(self, name="m", side="target", once=True, address="127.0.0.1:0", namespace=None, **details):
        return self.receiver("--", *self.command(side, name, **details), side=side, once=once, address=address, namespace=namespace)

    def sender(self, address, *arguments, name="m", side="source", **options):
        return self.turntable("send", name, address, "--json", "--run-dir", self.run_directory(side), *self.protection, *arguments, **options)

    def status(self, name="m", side="source"):
        program = self.turntable("status", name, "--json", "--run-dir", self.run_directory(side))
        code = program.wait()
        return json.loads(program.output[0]) if code == 0 else None

    def ask(self, command, side, name="m", **options):
        """What `resolve` or `journal` says there: objects, one for each line."""
        program = self.turntable(command, name, "--json", environment=host_environment(self.run_directory(side)), **options)
        code = program.wait()
        return [json.loads(line) for line in program.output] if code == 0 else []

    def resolve(self, side="source", **options):
        """One word on who has the right to run, and its explanation."""
        answer = self.ask("resolve", side, **options)[0]
        return answer["state"], answer["text"]

    def journal(self, side, epoch=2):
        """The kinds of that end's records about an epoch, in order."""
        return [record["kind"] for record in self.ask("journal", side) if record["role"] == side and record["epoch"] == epoch]

    # --- Lines

    def lightpath(self, rate="1gbit", delay="5ms", **options):
        """Two namespaces, 10.5.0.1 and 10.5.0.2, with a long line between them."""
        ends = [f"tt{os.getpid()}{side}{next(self.numbers)}" for side in "ab"]
        self.namespaces += ends
        more = [word for key, value in options.items() for word in (f"--{key}", value)]
        self.line = self.start(
            LIGHTPATH, "--a", ends[0], "--b", ends[1], "--create", "--address-a", "10.5.0.1/30", "--address-b", "10.5.0.2/30",
            "--rate", rate, "--delay", delay, "--control", self.directory / "line.sock", "--json", *more)
        self.line.wait_event("ready")
        return ends

    def namespace(self):
        name = f"tt{os.getpid()}n{next(self.numbers)}"
        self.namespaces.append(name)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    # --- The end

    def processes(self):
        """Living processes that name the lab's directory."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{entry}/cmdline").read_bytes()
                    if str(self.directory).encode() + b"/" in line:
                        found[int(entry)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def target_leftovers(self, side="target"):
        """What a migration that did not happen left at the target: nothing is right."""
        directory = self.run_directory(side)
        entries = [str(path.relative_to(self.directory)) for path in directory.rglob("*")] if directory.exists() else []
        machines = [line for line in self.processes().values() if f"run-{side}" in line and " receive " not in line]
        prefix = f"{self.directory}/{side}-"
        sockets = [line for line in Path("/proc/net/unix").read_text().splitlines() if str(directory) in line or prefix in line]
        return entries + machines + sockets

    def source_leftovers(self, name="m", side="source"):
        """What a send left beside the machine."""
        return sorted(path.name for path in (self.run_directory(side) / name).iterdir() if path.name not in ("machine.json", "qmp.sock"))

    def close(self):
        """Ends everything. Gives what was there that should not have been."""
        problems = []
        for record in self.directory.glob("run-*/*/machine.json"):
            with contextlib.suppress(Exception):
                os.kill(json.loads(record.read_text())["process"], signal.SIGTERM)
        for program in self.programs:
            if program.process.poll() is None and (program.arguments[0] != TURNTABLE or program.arguments[1] != "run"):
                program.signal(signal.SIGTERM)
        try:
            wait_for("the end", lambda: not self.processes() and all(p.process.poll() is not None for p in self.programs), 10)
        except Timeout:
            problems += [f"still there: {number} {line}" for number, line in self.processes().items()]
        for side in ("source", "target"):
            directory = self.run_directory(side)
            # The log of a machine that ran at the target tells its story; everything else goes with the machine.
            left = [str(path.relative_to(self.directory)) for path in directory.rglob("*") if path.suffix != ".log"] if directory.exists() else []
            problems += [f"left in a run directory: {path}" for path in left]
        for number in self.processes():
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        for program in self.programs:
            if program.process.poll() is None:
                program.process.kill()
            program.process.wait(5)
            program.process.stdout.close()
            program.process.stderr.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        for name in self.namespaces:
            if os.path.exists(f"/run/netns/{name}"):
                if name.startswith(f"tt{os.getpid()}n"):
                    run("ip", "netns", "del", name)
                else:
                    problems.append(f"a namespace is left: {name}")
                    subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        return problems


@functools.cache
def freezer():
    """The library that freezes a program at a write: see freeze.c."""
    directory = tempfile.TemporaryDirectory(prefix="tt-freeze-")
    library = Path(directory.name) / "freeze.so"
    run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("freeze.c"))
    return directory, library


def freezing(when, *data):
    """An environment in which turntable stops before, within or after its first write that holds these bytes."""
    return {"LD_PRELOAD": str(freezer()[1]), "TURNTABLE_FREEZE": " ".join([when, *(each.hex() for each in data)])}


def run(*command):
    """What it prints."""
    return subprocess.run(command, check=True, timeout=WAIT_SECONDS, capture_output=True, text=True).stdout


# --- Memory

def differing_pages(first, second):
    """Numbers of the pages in which two memory files differ, and the number of pages that are not zero."""
    size = os.fstat(first).st_size
    assert size == os.fstat(second).st_size, "the files differ in size"
    assert os.fstat(first).st_ino != os.fstat(second).st_ino, "this is the same file"
    differing, filled, step, nothing = [], 0, 1 << 20, bytes(PAGE_BYTES)
    with mmap.mmap(first, size, prot=mmap.PROT_READ) as one, mmap.mmap(second, size, prot=mmap.PROT_READ) as other:
        for start in range(0, size, step):
            mine, theirs = one[start:start + step], other[start:start + step]
            pages = range(0, len(mine), PAGE_BYTES)
            filled += sum(mine[at:at + PAGE_BYTES] != nothing for at in pages)
            if mine != theirs:
                differing += [(start + at) // PAGE_BYTES for at in pages if mine[at:at + PAGE_BYTES] != theirs[at:at + PAGE_BYTES]]
    return differing, filled


def scribble(descriptor, seed):
    """Fills two pages of three with noise, the third stays zero."""
    noise = random.Random(seed)
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size) as memory:
        for page in range(size // PAGE_BYTES):
            if page % 3:
                memory[page * PAGE_BYTES:(page + 1) * PAGE_BYTES] = noise.randbytes(PAGE_BYTES)


def kvm_problem():
    """Why the pattern guest does not run under KVM here, or nothing."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    lab = Lab()
    try:
        lab.machine(accelerator="kvm", memory=("-m", "4"), ready="PATTERN up")
        return None
    except Timeout as error:
        return f"the guest does not come up under KVM: {str(error).splitlines()[0]}"
    finally:
        lab.close()
