"""What every test of the Xen pair does: moves that must succeed, and moves that must fail and leave the guest where it was."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "perf/xenlab"))
from hosts import COMMAND_SECONDS, MOVE_SECONDS, NOT_SUSPENDED, STOCK, Direct, LabError, Way, move, set_line  # noqa: E402
from ways import HELPERS, LINE, PLAIN, TURNTABLE, ends, figures, received  # noqa: E402

# Xen's own stream on our line, with keys.
SEALED_STOCK = Way(8006, "", TURNTABLE, "--keys /lab/keys")
# A target that does without, and one whose keys are of another authority.
FOREIGN = Way(8007, f"{HELPERS} TURNTABLE_KEYS=/lab/foreign")
# PV: what Xen's own helpers say, over four sealed streams; and with its checksum at both ends.
CARRIED = Way(8008, f"{HELPERS} TURNTABLE_KEYS=/lab/keys TURNTABLE_STREAMS=4")
SUMMED = Way(8010, f"{HELPERS} TURNTABLE_PROTECTION=none TURNTABLE_STREAMS=4 TURNTABLE_STOCK_HELPER=/lab/summing-helper")
# On our line to a host whose xl has Xen's own helper.
LINE_WITHOUT = Way(8016, "", TURNTABLE, "--protection none")
# Side by side, Xen's own first.
WAYS = {"stock": STOCK, "ours": PLAIN, "ours on our line": LINE}
# Disks go along, in the place of an older copy; to empty volumes only; one of several; and on a plain stream.
DISKS = Way(8012, f"{HELPERS} TURNTABLE_PROTECTION=none TURNTABLE_DISKS=all TURNTABLE_RECYCLE=yes", TURNTABLE, "--protection none")
DISKS_EMPTY = Way(8013, f"{HELPERS} TURNTABLE_PROTECTION=none TURNTABLE_DISKS=all", TURNTABLE, "--protection none")
DISKS_NAMED = Way(8012, f"{HELPERS} TURNTABLE_PROTECTION=none TURNTABLE_DISKS=xvda", TURNTABLE, "--protection none")
DISKS_PLAIN = Way(PLAIN.port, DISKS.environment)
# Without xl, with keys.
DIRECT = Direct(8011, TURNTABLE, "--keys /lab/keys", "--downtime 30s")
# Of a guest that xl moves in between, which no journal knows.
DIRECT_ANEW = Direct(DIRECT.port, TURNTABLE, DIRECT.options, f"{DIRECT.moving} --anew")
# Its disks go along too.
DIRECT_DISKS = Direct(8014, TURNTABLE, DIRECT.options, f"{DIRECT.moving} --disk all --anew", "--disk all --recycle")
count = {"ok": 0, "FAIL": 0, "skip": 0}


def check(what, is_so, *details):
    count["ok" if is_so else "FAIL"] += 1
    print(f"{'ok   ' if is_so else 'FAIL '} {what}", flush=True)
    if not is_so:
        for detail in details:
            print("      " + str(detail).replace("\n", "\n      "), flush=True)


def one_move(what, guest, source, target, way):
    """A move that must succeed, and its figures."""
    before = guest.mark(target)
    moved = move(guest, source, target, way)
    if NOT_SUSPENDED in moved.output:
        print(f"      {what}: once more, since libxl gives a guest one minute to suspend", flush=True)
        check(f"{what}: it runs on where it is", guest.works_on(source), guest.console(source)[-2000:])
        moved = move(guest, source, target, way)
    check(f"{what}: xl moves it", moved.code == 0, moved.output, received(target))
    if moved.code != 0:
        raise LabError(f"{what}: it did not move")
    check(f"{what}: it is there and nowhere else", (source.domains(), target.domains()) == ([], [guest.name]), source.domains(), target.domains())
    check(f"{what}: it works on, and its memory is what it was", guest.works_on(target), guest.console(target)[-2000:])
    taken = figures(moved, guest, target, before)
    print(f"      {what}: {taken}", flush=True)
    return moved, taken


# A TCP session with the guest that is never begun anew: each line that is sent comes back with the count of lines so far.
SESSION = """exec 5<>/dev/tcp/$ADDRESS/7007 || exit 1
rm -f /run/hang-up
for ((sent = 0; ; sent++)); do
    echo $sent >&5
    read -r -t 120 -u 5 back count && [ "$back" = $sent ] && [ $sent -eq 0 ] && first=$count
    [ "$back $count" = "$sent $((first + sent))" ] || { echo "line $sent came back as '$back $count'"; exit 1; }
    [ -e /run/hang-up ] && break
    # A wait that starts no program.
    read -r -t 1 -u 5 more && { echo "unasked came '$more'"; exit 1; }
done
echo "$sent lines"
"""


def compare(pair, guest, delay_ms, ways=WAYS):
    """The guest goes to and fro on one line, each time another way: the first is Xen's own. What each took, by its name."""
    set_line(pair, delay_ms, "1gbit")
    session = pair[0].begin(f"ADDRESS={guest.address}\n{SESSION}")
    taken = {}
    for name, way in ways.items():
        source, target = ends(pair, guest)
        moved, taken[name] = one_move(f"{2 * delay_ms:g} ms, {name}", guest, source, target, way)
        check(f"{2 * delay_ms:g} ms, {name}: nobody was taken for Xen's own helper", "Xen's own stream" not in moved.output, moved.output)
        check(f"{2 * delay_ms:g} ms, {name}: the target was ready in time", "is not ready" not in moved.output, moved.output)
    pair[0].must("touch /run/hang-up")
    talked = session.finish(COMMAND_SECONDS)
    check(f"{2 * delay_ms:g} ms: one TCP session with the guest lasts through all moves", talked.code == 0, talked.output)
    set_line(pair)
    stock, *others = taken.values()
    check(f"{2 * delay_ms:g} ms: ours sends less", all(ours["megabytes"] < stock["megabytes"] for ours in others), taken)
    return taken


def check_memory(guest, source, target, way, what=""):
    """Every page at the target is what it is at the source, compared before the guest runs there."""
    guest.create(source)
    outcome = source.run(f"TURNTABLE_VERIFY=before {way.command(guest, target)}", MOVE_SECONDS)
    check(f"{what}all memory of a guest without devices is compared before it runs, and nothing differs", outcome.code == 0, outcome.output, received(target))
    check("and it works on", guest.works_on(target), guest.console(target)[-2000:])
    target.must(f"xl destroy {guest.name}")


def check_stock_peer(guest, source, target, way=PLAIN, peer=STOCK):
    """A target whose xl has no helper of ours gets Xen's own stream, and xl's user is told; from there it goes back by ours."""
    moved = move(guest, source, target, Way(peer.port, way.environment, peer.turntable, peer.options))
    check("to a host without the helper it goes by Xen's own stream", moved.code == 0, moved.output, received(target))
    check("which is said once", moved.output.count("Xen's own stream") == 1, moved.output)
    check("and it works there", guest.works_on(target), guest.console(target)[-2000:])
    one_move("back by ours", guest, target, source, way)


def living(program):
    """The ids of a program's processes, but of those that have ended and nobody waited for: a dom0's first process does not do it at once."""
    return f"$(for process in $(pidof {program}); do [ -e /proc/$process/exe ] && echo $process; done)"


def in_first_round(victim, program, processes):
    """A command that ends when so many processes of a program are there and 20 MB have passed the line; their ids are in $1 and on."""
    on_line = "$(($(cat /sys/class/net/lan0/statistics/rx_bytes) + $(cat /sys/class/net/lan0/statistics/tx_bytes)))"
    enough = int(victim.must(f"echo {on_line}")) + 20_000_000
    return f"""for try in $(seq 600); do
        set -- {living(program)}
        [ $# -eq {processes} ] && [ {on_line} -gt {enough} ] && break; [ $try -lt 600 ] || exit 1; sleep 0.1; done"""


def begin_slowly(pair, guest, source, target, way=DIRECT):
    # Slow enough to be met in its first round.
    set_line(pair, 0, "100mbit")
    return source.begin(f"sh -c 'echo $$ >/run/mover; exec {way.command(guest, target)}'")


def is_back(guest, source, target, what):
    """The guest runs where it was, and nothing of it is left at the target."""
    check(f"{what}: the guest runs on at the source, and nothing of it is at the target", (source.domains(), target.domains()) == ([guest.name], []),
          source.domains(), target.domains(), received(target))
    check(f"{what}: it works, and its memory is what it was", guest.works_on(source), guest.console(source)[-2000:])


def check_killed_helper(pair, guest, end, way=PLAIN, processes=2):
    """In the middle of a move the helper at the source or the target is killed: xl fails, the guest runs on, and nothing is left there."""
    source, target = ends(pair, guest)
    where = end + (", on our line" if way is LINE else "")
    victim = source if end == "source" else target
    # Slow enough to be met in its first round.
    set_line(pair, 0, "100mbit")
    job = source.begin(way.command(guest, target))
    is_met = victim.run(f"{in_first_round(victim, 'turntable-xen-helper', processes)}; kill -KILL $1", MOVE_SECONDS)
    outcome = job.finish(MOVE_SECONDS)
    set_line(pair)
    check(f"a helper that is killed at the {where} fails the move", is_met.code == 0 and outcome.code != 0, is_met.output, outcome.output, received(target))
    check("the guest runs on at the source, and nothing of it is at the target", (source.domains(), target.domains()) == ([guest.name], []),
          source.domains(), target.domains())
    check("it works, and its memory is what it was", guest.works_on(source), guest.console(source)[-2000:])
    left = [host.run("for try in $(seq 500); do pidof turntable-xen-helper || exit 0; sleep 0.2; done; exit 1").code for host in pair]
    check("no helper is left", left == [0, 0], left)
