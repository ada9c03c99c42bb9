"""kill -9 of each process that decides or is told something, at each step of a move between two domains."""
import lab
from orchestra import identifier
from sites import Sites
from test_orchestrator import OrchestratorTest

# What west's orchestrator is about to write when a step is done, and is not remembered as done.
STEPS = {
    "authorise": '"step":"hold"', "hold": '"step":"reserve"', "reserve": '"step":"move"', "copy": '"phase":"copying"', "move": '"step":"settle"',
    "settle": '"state":"completed"'}
# As the machine goes there and back, each of those at a site is at its source and at its target.
KILLED = ("west", "east", "source agent", "target agent", "lightpaths", "anchor gateway", "target gateway")
# What is written by the guest fits into the downtime on a line that is slow enough to find it being copied.
FAST, SLOW = {"bitsPerSecond": 400e6}, {"bitsPerSecond": 16e6, "downtimeMilliseconds": 5000}
UNDOING = {"move": '"state":"undoing"', "undo": '"state":"failed"'}


class KilledBetweenDomains(OrchestratorTest):
    def setUp(self):
        self.lab = Sites(delay="1ms")
        self.addCleanup(self._close)
        self.lab.control()
        self.machine = self.start_machine(megabytes=32, append="mode=rate rate=16 len=4 check=1")
        self.lab.announce()
        self.lab.wait_vm("source")

    def test_each_at_every_step(self):
        """The machine goes there and back. Each time that a step is done another process dies, and is dead when the next step begins."""
        here, there = "source", "target"
        for step, instant in STEPS.items():
            for name in KILLED:
                with self.subTest(step, killed=name):
                    end = self.move_and_kill(there, instant, name, **(SLOW if step == "copy" else FAST))
                    self.assertEqual((end["state"], end.get("problem")), ("completed", None), end)
                    self.assert_settled(there)
                    here, there = there, here
        # With nobody killed.
        end = self.lab.wait_migration(self.lab.migrate(there)["id"])
        self.assertEqual(end["state"], "completed", end)
        self.assert_settled(there)

    def test_each_while_it_is_undone(self):
        """A machine that cannot be moved within its downtime stays, and what was held for it is given back."""
        for step, instant in UNDOING.items():
            for name in KILLED:
                with self.subTest(step, killed=name):
                    end = self.move_and_kill("target", instant, name, downtimeMilliseconds=1)
                    self.assertEqual((end["state"], end["problem"]["type"]), ("failed", "urn:turntable:problem:refused"), end)
                    self.assert_settled("source")
        end = self.lab.wait_migration(self.lab.migrate()["id"])
        self.assertEqual(end["state"], "completed", end)
        self.assert_settled("target")

    def move_and_kill(self, there, instant, name, **members):
        """West's orchestrator stands where it is about to write this while `name` is killed; gives how the migration ended."""
        migration = identifier()
        # How far a move is stands by itself, without its name.
        held = (instant,) if "phase" in instant else (instant, migration)
        self.lab.kill_named("west")
        self.lab.start_named("west", environment=lab.freezing("before", *(each.encode() for each in held)))
        west = self.lab.controls["west"]
        self.lab.migrate(there, id=migration, **members)
        west.wait_frozen()
        self.lab.kill_named(name)
        west.thaw()
        self.lab.start_named(name)
        return self.lab.wait_migration(migration)

    def assert_settled(self, side):
        """One machine runs, at that side, and everybody knows it; nothing of the move is left anywhere."""
        self.machine.run_directory = self.lab.run_directory(side)
        self.lab.wait_vm(side)
        self.assert_one_at(side)
        self.assertEqual([line for line in self.lab.processes().values() if " send m " in line], [])
        self.assertEqual(self.lab.reserved_lightpaths(), [])
        self.assertEqual(self.lab.lightpath_links(), [])
        epoch = self.lab.vm()["rightToRun"]["epoch"]
        for place in ("anchor", "source", "target"):
            lab.wait_for(f"{place}'s gateway to know", lambda: self.lab.net.site_of(place) == (side, epoch))
