"""What an operator can get wrong, and what a host can lack: one clear error and the documented exit code."""
import os
import shutil
import socket
import subprocess
import unittest

import lab
from case import SystemTest

NOBODY = 65534
PAGEMAP_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
// A kernel before 6.7: it does not know PAGEMAP_SCAN, _IOWR('f', 16, struct pm_scan_arg).
int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((request & 0xffff) == 0x6610) { errno = ENOTTY; return -1; }
    return ((int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
}
"""


class Running(SystemTest):
    def refuse(self, command, code, *words, name="m", **options):
        program = self.lab.turntable("run", "--name", name, "--run-dir", self.lab.run_directory("source"), "--", *command, **options)
        self.assert_error(program, code, *words)
        self.assertFalse((self.lab.run_directory("source") / name).exists())

    def qemu(self, *arguments):
        return ["qemu-system-x86_64", "-m", "16", "-nodefaults", "-display", "none", *arguments]

    def test_disk_that_goes_past_the_dirty_log(self):
        for option in ("cache=none", "cache=directsync", "aio=native", "cache.direct=on"):
            self.refuse(self.qemu("-drive", f"file=/srv/x.img,format=raw,{option}"), 2, option, "dirty log", "cache=writeback")

    def test_passed_through_device(self):
        self.refuse(self.qemu("-device", "vfio-pci,host=00:01.0"), 2, "vfio-pci", "unplug")

    def test_options_that_are_turntables_own(self):
        for option in ("-daemonize", "-incoming"):
            self.refuse(self.qemu(option), 2, option, "turntable's own")

    def test_no_command(self):
        self.refuse([], 2, "no command")

    def test_emulator_that_is_not_there(self):
        self.refuse(["qemu-system-nothing", "-m", "16"], 7, "qemu-system-nothing", "PATH")

    def test_emulator_that_ends_at_once(self):
        self.refuse(self.qemu("-no-such-option"), 6, "ended with code 1")

    def test_name_that_is_no_name(self):
        program = self.lab.turntable("run", "--name", "../up", "--run-dir", self.lab.run_directory("source"), "--", *self.qemu())
        self.assert_error(program, 2, "../up", "letters")

    def test_name_that_is_used(self):
        machine = self.lab.machine(append="mode=rate rate=4 len=1 report=64")
        again = self.lab.turntable("run", "--name", "m", "--run-dir", self.lab.run_directory("source"), "--", *self.qemu())
        self.assert_error(again, 3, "a machine of that name runs here", str(machine.number), "--name")
        self.assert_runs_on(machine)

    def test_more_memory_than_there_is(self):
        self.refuse(["qemu-system-x86_64", "-m", "900G"], 7, "900.00 GiB", "available")

    def test_exit_code_of_the_emulator(self):
        machine = self.lab.machine()
        os.kill(machine.number, 9)
        self.assertEqual(machine.program.wait(), 137)
        self.assertFalse((self.lab.run_directory("source") / "m").exists())

    def test_kernel_without_pagemap_scan(self):
        (self.lab.directory / "shim.c").write_text(PAGEMAP_SHIM)
        shim = self.lab.directory / "shim.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, self.lab.directory / "shim.c"], check=True, timeout=30)
        old = {"LD_PRELOAD": str(shim)}
        self.refuse(self.qemu(), 7, "PAGEMAP_SCAN", "inappropriate ioctl", "Linux 6.7", environment=old)
        # The machine was started when the kernel could; the sender cannot.
        machine = self.lab.machine(append="mode=rate rate=4 len=1 report=64")
        receiver = self.lab.receiver_of()
        self.assert_error(self.lab.sender(receiver.address, environment=old), 7, "PAGEMAP_SCAN", "Linux 6.7")
        # That is found before the receiver is asked for anything.
        self.assertEqual([event["event"] for event in receiver.events], ["listening"])
        self.assert_nothing_at_target()
        self.assert_runs_on(machine)

    def test_library_that_is_not_there(self):
        self.refuse(self.qemu(), 7, "libturntable-ram.so", "make build", environment={"TURNTABLE_RAM_LIBRARY": "/nowhere/libturntable-ram.so"})


class SendingAndReceiving(SystemTest):
    def test_machine_that_is_not_there(self):
        self.assert_error(self.lab.sender("127.0.0.1:9", name="ghost"), 2, "ghost", "there are none", "turntable run")
        self.lab.machine(memory=("-m", "16"))
        self.assert_error(self.lab.sender("127.0.0.1:9", name="ghost"), 2, "ghost", "there are m")
        status = self.lab.turntable("status", "ghost", "--run-dir", self.lab.run_directory("source"))
        self.assert_error(status, 2, "ghost")

    def test_machine_whose_qemu_died(self):
        machine = self.lab.machine(memory=("-m", "16"))
        # `run` is killed first, so that nobody cleans up.
        machine.program.signal(9)
        machine.program.wait()
        number = machine.number
        self.assertEqual(machine.status(), "running", "QEMU outlives `run`")
        os.kill(number, 9)
        lab.wait_for("the end of QEMU", lambda: not os.path.exists(f"/proc/{number}/maps") or not open(f"/proc/{number}/maps").read())
        self.assert_error(self.lab.sender("127.0.0.1:9"), 6, "is gone", "turntable run")
        # The name can be used again.
        self.lab.machine(memory=("-m", "16"))

    def test_port_that_is_used(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = "127.0.0.1:%d" % other.getsockname()[1]
            program = self.lab.turntable("receive", "--listen", address, "--run-dir", self.lab.run_directory("target"))
            self.assert_error(program, 7, address, "in use", "--listen")

    def test_addresses_and_numbers(self):
        self.lab.machine(memory=("-m", "16"))
        for arguments, word in ((["127.0.0.1:99999"], "host:port"), (["127.0.0.1:9", "--streams", "0"], "1 to"), (["127.0.0.1:9", "--streams", "17"], "1 to 16"),
                                (["127.0.0.1:9", "--send-method", "magic"], "copied"), (["no-such-host.invalid:9"], "no-such-host.invalid")):
            self.assert_error(self.lab.sender(arguments[0], *arguments[1:]), 2, word)

    def test_receive_options_that_exclude_each_other(self):
        for arguments, word in ((["--qmp", "/x", "--once", "--", "qemu-system-x86_64"], "exclude"), (["--", "qemu-system-x86_64"], "--once")):
            self.assert_error(self.lab.turntable("receive", *arguments), 2, word)

    def test_interrupt_of_an_idle_receiver(self):
        for number in (2, 15):
            receiver = self.lab.receiver(once=False)
            receiver.signal(number)
            self.assert_error(receiver, 130, "interrupted before a machine came")

    def test_operator_who_is_not_root(self):
        """It works for whoever owns the machine; where the kernel forbids it, one line says so."""
        self.lab.directory.chmod(0o777)
        tools = self.lab.directory / "bin"
        tools.mkdir()
        for path in (lab.TURNTABLE, lab.BUILD / "libturntable-ram.so", lab.PATTERN):
            shutil.copy(path, tools)
            (tools / os.path.basename(path)).chmod(0o755)
        details = dict(append="fill=1 mode=rate rate=8 len=2 report=64 check=1", memory=("-m", "16"), kernel=str(tools / "pattern.elf"))
        binary = str(tools / "turntable")
        run = ["--run-dir", self.lab.run_directory("source"), "--name", "m", "--"]
        program = self.lab.start(binary, "run", *run, *self.lab.command("source", "m", **details), user=NOBODY)
        lab.wait_for("a machine or an error", lambda: program.errors)
        if program.process.poll() is not None or "runs, process" not in program.errors[-1]:
            return self.assert_error(program, 7, "root")
        machine = self.lab.arrival(side="source")
        machine.wait_text("PATTERN round")
        self.assertEqual(os.stat(f"/proc/{machine.number}").st_uid, NOBODY)
        receiver = self.lab.start(
            binary, "receive", "--once", "--json", "--listen", "127.0.0.1:0", "--run-dir", self.lab.run_directory("target"), "--",
            *self.lab.command("target", "m", **details), user=NOBODY)
        address = receiver.wait_event("listening")["address"]
        sender = self.lab.start(binary, "send", "m", address, "--json", "--run-dir", self.lab.run_directory("source"), user=NOBODY)
        self.assertEqual((sender.wait(), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        self.lab.arrival().wait_text(r"sweep.*corrupt=0")

    def test_operator_who_does_not_own_the_machine(self):
        machine = self.lab.machine(append="mode=rate rate=4 len=1 report=64", memory=("-m", "16"))
        tools = self.lab.directory / "bin"
        tools.mkdir()
        shutil.copy(lab.TURNTABLE, tools)
        sender = self.lab.start(tools / "turntable", "send", "m", "127.0.0.1:9", "--run-dir", self.lab.run_directory("source"), user=NOBODY)
        self.assertIn(sender.wait(), (2, 7), sender.transcript())
        self.assertEqual(len(sender.errors), 1)
        self.assert_runs_on(machine)


if __name__ == "__main__":
    unittest.main()
