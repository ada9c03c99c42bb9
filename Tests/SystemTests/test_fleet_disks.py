"""Machines whose disks come along when an orchestrator has them moved: room at the target, the way back, and what is left of a failure."""
import os
import subprocess
import unittest

import lab
from orchestra import Stage, identifier
from test_disks import DISK_BYTES, DiskTest, MEBIBYTE
from test_orchestrator import OrchestratorTest

# What the guest leaves alone: it fills the first 16 MiB.
STILL = slice(40 * MEBIBYTE, DISK_BYTES)


class OrchestratedDisks(DiskTest, OrchestratorTest):
    def setUp(self):
        self.lab = Stage()
        self.addCleanup(self._close)

    def begin(self, room=None):
        """Each site has a directory for disks; the machine's own is elsewhere."""
        self.rooms = {side: self.lab.directory / f"disks-{side}" for side in ("source", "target")}
        for side, path in self.rooms.items():
            path.mkdir()
        if room:
            self.mount(self.rooms["target"], room)
        for side, path in self.rooms.items():
            self.lab.agent(side, options=("--disks", path))
        self.lab.orchestrator()
        self.lab.sites()
        image = self.image("source", DISK_BYTES)
        self.still = os.urandom(STILL.stop - STILL.start)
        with open(image, "r+b") as file:
            file.seek(STILL.start)
            file.write(self.still)
        self.lab.api.ask("PUT", "/v1/lines/west", {"ends": ["source", "target"], "bitsPerSecond": 400e6})
        self.machine = self.lab.machine(command=self.guest(image), ready=r'"disk":"progress".*\n[^$]*"disk":"progress"', seconds=60)
        self.lab.wait_vm("source")
        self.lab.wait_site("target")

    def guest(self, image):
        command = self.command("source", ["-drive", f"id=data,file={image},format=raw,if=virtio"])
        # One console, whose file each QEMU goes on with; and no monitor, whose path the second site does not allow.
        serial, qmp = command.index("-serial"), command.index("-qmp")
        del command[qmp:qmp + 2]
        command[serial:serial + 2] = ["-chardev", f"file,id=console,path={self.lab.directory}/source-m.log,append=on", "-serial", "chardev:console"]
        return command

    def mount(self, path, size):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=True)
        self.addCleanup(subprocess.run, ["umount", path], check=True)

    def place(self, side):
        return self.rooms[side] / "lab" / "m" / "data.raw"

    def assert_moved(self, side, end):
        """What it did not write is byte for byte there; what it wrote, it reads again."""
        self.assertEqual((end["state"], end.get("problem")), ("completed", None), end)
        self.assertGreater(end["report"]["diskBytes"], 0)
        lab.wait_for(f"m at {side} alone", lambda: self.where() == [side])
        self.machine.run_directory = self.lab.run_directory(side)
        self.assertEqual(self.place(side).stat().st_size, DISK_BYTES)
        self.assertEqual(self.place(side).read_bytes()[STILL], self.still)
        self.assertEqual(self.place(side).stat().st_mode & 0o777, 0o600)
        before = len(self.lines(self.machine))

        def swept():
            lines = self.lines(self.machine)
            self.assertEqual([line for line in lines if line["disk"] not in ("start", "progress")], [])
            return len(lines) > before and lines[-1]["swept"] - lines[before - 1]["swept"] >= 16 * 16
        lab.wait_for(f"the guest to have read its disk at {side}", swept, 60)
        self.assertEqual(self.slots(), [])

    def test_there_and_back(self):
        """And there once more, where an older copy is: only what differs goes."""
        self.begin()
        first = self.lab.wait_migration(self.lab.migrate(disks=True, downtimeMilliseconds=5000)["id"])
        self.assert_moved("target", first)
        self.assertTrue(any("48.0 MiB for 1 disks" in event["text"] for event in first["events"]), first["events"])
        account = self.lab.api.get("/v1/accounting")["items"][0]
        self.assertEqual(account["diskBytes"], first["report"]["diskBytes"])
        back = self.lab.ctl("migrate", "m", "source", "--disks", "--downtime", "5s", "--wait")
        self.assertEqual(back.wait(90), 0, back.transcript())
        self.lab.wait_vm("source")
        self.assert_moved("source", self.lab.api.get("/v1/migrations?vm=m")["items"][-1])
        # The image that it came from at first is as it was left.
        self.assertEqual(self.image("source").read_bytes()[STILL], self.still)
        again = self.lab.wait_migration(self.lab.migrate(disks=True, downtimeMilliseconds=5000)["id"])
        self.assert_moved("target", again)
        self.assertLess(again["report"]["diskBytes"], first["report"]["diskBytes"])

    def test_no_room(self):
        """Refused before anything moves; and a site without a directory takes none."""
        self.begin(room="40m")
        end = self.lab.wait_migration(self.lab.migrate(disks=True)["id"])
        self.assertEqual((end["state"], end["step"], end["problem"]["type"]), ("failed", "hold", "urn:turntable:problem:refused"), end)
        self.assertIn("they need 48.0 MiB; 40.0 MiB are free in", end["problem"]["detail"])
        answer = self.lab.api.ask("POST", "/v1/evacuations", {"source": "source", "target": "target", "disks": True})
        self.assertEqual(answer.status, 201, answer.body)
        name = answer.json["id"]
        end = lab.wait_for("the evacuation's end", lambda: (e := self.lab.api.get(f"/v1/evacuations/{name}"))["state"] == "failed" and e, 30)
        self.assertIn("48.0 MiB of disks are needed, and target has 40.0 MiB free", end["problem"]["detail"])
        self.assertEqual(list(self.rooms["target"].rglob("*")), [])
        self.lab.kill(self.lab.agents["target"])
        self.lab.agent("target")
        end = self.lab.wait_migration(self.lab.migrate(disks=True)["id"])
        self.assertIn("target.test takes no disks", end["problem"]["detail"])
        self.assertEqual(self.where(), ["source"])

    def test_an_evacuation_takes_them_along(self):
        self.begin()
        done = self.lab.ctl("evacuate", "source", "target", "--disks", "--downtime", "5s", "--wait")
        self.assertEqual(done.wait(90), 0, done.transcript())
        end = self.lab.api.get(f"/v1/evacuations/{done.output[-1].split()[0]}")
        move = end["moves"][0]
        self.assertEqual((move["memoryBytes"], move["diskBytes"]), (96 * MEBIBYTE, DISK_BYTES), move)
        # It is in the plan: at 50 MB/s at most.
        self.assertGreater(end["plannedSeconds"], DISK_BYTES / 50e6)
        self.assert_moved("target", self.lab.migration(move["migration"]))

    def test_a_move_that_fails_leaves_nothing(self):
        """Cancelled in the middle of the copy, after the orchestrator was killed there; then the next one succeeds."""
        self.begin()
        name = identifier()
        self.lab.migrate(id=name, disks=True, bitsPerSecond=16e6, downtimeMilliseconds=5000)
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        self.assertEqual(self.place("target").stat().st_size, DISK_BYTES)
        self.lab.kill(self.lab.orchestrators["one"])
        self.lab.orchestrator()
        self.assertEqual(self.lab.ctl("cancel", name).wait(), 0)
        end = self.lab.wait_migration(name)
        self.assertEqual(end["state"], "cancelled", end)
        self.assertEqual(list(self.rooms["target"].rglob("*.raw")), [])
        self.assertEqual(self.where(), ["source"])
        end = self.lab.wait_migration(self.lab.migrate(disks=True, downtimeMilliseconds=5000)["id"])
        self.assert_moved("target", end)

    def test_the_orchestrator_is_killed_in_the_middle(self):
        self.begin()
        name = identifier()
        self.lab.migrate(id=name, disks=True, bitsPerSecond=100e6, downtimeMilliseconds=5000)
        self.lab.wait_migration(name, lambda m: m.get("progress", {}).get("phase") == "copying")
        self.lab.kill(self.lab.orchestrators["one"])
        self.lab.orchestrator()
        self.assert_moved("target", self.lab.wait_migration(name, seconds=90))


# Those of the classes that this one builds on are theirs to run.
del DiskTest, OrchestratorTest

if __name__ == "__main__":
    unittest.main()
