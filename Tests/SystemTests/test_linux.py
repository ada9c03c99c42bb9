"""A Linux guest that works moves there and back; its memory is verified by itself, its network session from outside."""
import json
import re
import signal
import unittest

import lab
from case import SystemTest
from lab import wait_for

GUEST, PORT = "10.9.0.10", 7007


class LinuxGuest(SystemTest):
    # What the guest's kernel is told of its network.
    ip = f"tt.ip={GUEST}/24"

    def network(self):
        """Two hosts with a long line between them, each with a bridge for the guest, and a client beside both."""
        hosts = self.lab.lightpath(rate="1gbit", delay="20ms")
        client = self.lab.namespace()
        for namespace in (*hosts, client):
            lab.run("ip", "-n", namespace, "link", "add", "guests", "type", "bridge")
            lab.run("ip", "-n", namespace, "link", "set", "guests", "up")
        lab.run("ip", "-n", client, "addr", "add", "10.9.0.1/24", "dev", "guests")
        for index, host in enumerate(hosts):
            lab.run("ip", "-n", host, "link", "add", "out", "type", "veth", "peer", "name", f"host{index}", "netns", client)
            lab.run("ip", "-n", client, "link", "set", f"host{index}", "master", "guests", "up")
            lab.run("ip", "-n", host, "tuntap", "add", "tap0", "mode", "tap")
            for device in ("out", "tap0"):
                lab.run("ip", "-n", host, "link", "set", device, "master", "guests", "up")
        return hosts, client

    def command(self, side):
        machine = lab.Machine(self.lab, side, "m")
        return [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-erms,-pclmulqdq", "-smp", "1", "-m", "200", "-nodefaults", "-display", "none",
            "-serial", f"file:{machine.console}", "-qmp", f"unix:{machine.monitor_path},server=on,wait=off",
            "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,mac=52:54:00:09:00:10",
            "-kernel", str(lab.GUESTS / "vmlinux"), "-initrd", str(lab.GUESTS / "demo.cpio"),
            "-append", f"console=ttyS0 quiet panic=-1 {self.ip} tt.dirty=10 tt.set=16 tt.gap=30"]

    def receive_options(self, there):
        """What its receiver is told besides."""
        return ()

    def send_options(self, here, there):
        """What its sender is told besides."""
        return ()

    def move(self, here, there, hosts, address):
        """Moves it, and gives the report and the machine there."""
        receiver = self.lab.receiver(*self.receive_options(there), "--", *self.command(there), side=there, address=f"{address}:4906", namespace=hosts[1])
        sender = self.lab.sender(receiver.address, "--streams", "2", "--downtime", "800ms", *self.send_options(here, there), side=here, namespace=hosts[0])
        self.assertEqual((sender.wait(60), receiver.wait()), (0, 0), sender.transcript() + receiver.transcript())
        return sender.wait_event("completed")["report"], self.lab.arrival(side=there)

    def lines(self, machine, program, word):
        found = re.findall(r"^\{.*\}", machine.text(), re.MULTILINE)
        return [line for line in map(json.loads, found) if line.get(program) == word]

    def wait_work(self, machine):
        """The workload goes on, and what it reads is what it wrote."""
        def worked():
            return len(self.lines(machine, "search", "progress")) >= 3 and len(self.lines(machine, "talk", "progress")) >= 1
        wait_for(f"work on {machine.console.name}", worked, 30)
        self.assertNotIn("corrupt", machine.text())
        self.assertNotIn("failed", machine.text())
        self.assertNotRegex(machine.text(), "Kernel panic|Oops|BUG:|soft lockup")

    def assert_clock(self, machine, report, after):
        """The guest's clock missed the blackout, no more and no less, and stands at a later time than before."""
        gaps = wait_for("the probe's report", lambda: self.lines(machine, "probe", "gap"), 30)
        blackout = report["blackout"]["totalMilliseconds"]
        self.assertGreater(gaps[0]["at_s"], after)
        # The probe sees the edges of its clock's seconds to within its error; a loaded computer adds to that.
        self.assertGreater(gaps[0]["total_ms"], blackout - gaps[0]["error_ms"] - 50)
        self.assertLess(gaps[0]["total_ms"], blackout + gaps[0]["error_ms"] + 5000)
        return gaps[0]["at_s"]

    def test_there_and_back(self):
        hosts, client = self.network()
        source = self.lab.machine(command=self.command("source"), ready=r'"init":"up"', namespace=hosts[0], seconds=60)
        ready = wait_for("the probe", lambda: self.lines(source, "probe", "ready"), 30)[0]["at_s"]
        talk = self.lab.start("python3", lab.TREE / "perf/guest/observe", "talk", GUEST, PORT, "--json", namespace=client)
        self.wait_work(source)
        self.assertEqual(self.lab.status()["epoch"], 1)

        report, target = self.move("source", "target", hosts, "10.5.0.2")
        self.assertEqual((report["epoch"], self.lab.status(side="target")["epoch"]), (2, 2))
        wait_for("the source's end", lambda: source.program.process.poll() is not None)
        self.assertIsNone(self.lab.status(), "the source knows of it no more")
        self.wait_work(target)
        at = self.assert_clock(target, report, ready)

        source.console.rename(source.console.with_suffix(".first"))
        report, back = self.move("target", "source", (hosts[1], hosts[0]), "10.5.0.1")
        self.assertEqual((report["epoch"], self.lab.status()["epoch"]), (3, 3))
        self.wait_work(back)
        self.assert_clock(back, report, at)
        maps = [self.lines(machine, "search", "progress")[-1]["maps"] for machine in (target, back)]
        self.assertGreater(maps[1], maps[0], "the count goes on where it was")

        talk.signal(signal.SIGINT)
        self.assertEqual(talk.wait(), 0, talk.transcript())
        session = json.loads(talk.output[-1])
        self.assertIsNone(session["broken"])
        self.assertGreaterEqual(session["echoed"], session["sent"] - 1)
        self.assertGreater(session["echoed"], 20)


if __name__ == "__main__":
    unittest.main()
