"""PVH guests by the engine, under an unmodified xl."""
import shlex

from hosts import COMMAND_SECONDS, MOVE_SECONDS, NOT_SUSPENDED, Guest, set_line
from moves import FOREIGN, SEALED_STOCK, check, check_memory, in_first_round, is_back, one_move
from ways import HELPER, PLAIN, SEALED, ends, received


def check_settings(a):
    outcome = a.run(f"LIBXL_SAVE_HELPER= TURNTABLE_STREAMS=99 {HELPER} --save-domain 9 -1 1 1 0 0")
    check("a setting that is wrong is said, with what it must be", outcome.code == 2 and "TURNTABLE_STREAMS=99" in outcome.output, outcome.output)
    outcome = a.run(HELPER)
    check("started by hand it says who starts it", outcome.code == 2 and "LIBXL_SAVE_HELPER" in outcome.output, outcome.output)


def check_sealed(pair, guest):
    """Keys on both hosts: memory by the engine, Xen's own stream on our line; and whoever has others is not let in."""
    a, b = pair
    bare = Guest("bare", memory_mib=96, working_set=8, address=None)
    check_memory(bare, a, b, SEALED, "sealed: ")
    one_move("sealed, Xen's own stream on our line", guest, a, b, SEALED_STOCK)
    one_move("sealed, back by ours", guest, b, a, SEALED)
    moved = a.run(FOREIGN.command(guest, b), MOVE_SECONDS)
    check("a target with another authority's keys gets nothing", moved.code != 0 and "TLS" in moved.output + received(b), moved.output, received(b))
    check("and the guest runs on here", (a.domains(), b.domains()) == ([guest.name], []) and guest.works_on(a), a.domains(), b.domains())


def check_no_memory(pair, guest):
    """The target has no memory for it: said with the remedy, and the guest runs on."""
    source, target = ends(pair, guest)
    free = int(target.must("xl info free_memory"))
    # Never started: it only takes the memory.
    filler = Guest("filler", memory_mib=free - guest.memory_mib // 2, address=None)
    target.must(f"printf %s {shlex.quote(filler.config)} >/run/filler.cfg; xl create -q -p /run/filler.cfg")
    outcome = source.run(PLAIN.command(guest, target), MOVE_SECONDS)
    check("a target without memory for the guest fails the move, and says so", outcome.code != 0 and "free memory" in outcome.output + received(target),
          outcome.output, received(target))
    target.must("xl destroy filler")
    is_back(guest, source, target, "no memory")


def check_no_suspend(pair, guest):
    """A guest that does not suspend within libxl's minute, as one that is paused."""
    source, target = ends(pair, guest)
    source.must(f"xl pause {guest.name}")
    outcome = source.run(PLAIN.command(guest, target), MOVE_SECONDS)
    check("a guest that does not suspend stays", outcome.code != 0 and NOT_SUSPENDED in outcome.output, outcome.output)
    source.must(f"xl unpause {guest.name}")
    is_back(guest, source, target, "no suspend")


def check_ballooned(pair, guest):
    """A guest that gave memory back moves with the holes; one that takes it back meanwhile runs on."""
    def resize(host, mib, seconds=60):
        host.must(f"""xl mem-set {guest.name} {mib}
            for try in $(seq {10 * seconds}); do xl list {guest.name} | awk 'NR == 2 {{ exit !($3 >= {mib - 1} && $3 <= {mib + 1}) }}' && exit; sleep 0.1; done
            xl list; exit 1""", COMMAND_SECONDS)
    a, b = pair
    resize(a, guest.memory_mib - 16)
    one_move("ballooned", guest, a, b, PLAIN)
    set_line(pair, 0, "100mbit")
    job = b.begin(PLAIN.command(guest, a))
    grown = b.run(f"{in_first_round(b, 'turntable-xen-helper', 2)}; xl mem-set {guest.name} {guest.memory_mib}", MOVE_SECONDS)
    outcome = job.finish(MOVE_SECONDS)
    set_line(pair)
    check("a guest whose memory grows while it moves stays, which is said", grown.code == 0 and outcome.code != 0 and "balloon" in outcome.output,
          grown.output, outcome.output, received(a))
    check("ballooned: the guest runs on where it was", (b.domains(), a.domains()) == ([guest.name], []) and guest.works_on(b), guest.console(b)[-2000:])
    resize(b, guest.memory_mib)
    one_move("ballooned, when it rests", guest, b, a, PLAIN)
    # It has not run, and so its balloon has not given back what is over its memory.
    demand = Guest("demand", memory_mib=96, address=None)
    a.must(f"printf '%s\nmaxmem=160\n' {shlex.quote(demand.config)} >/run/demand.cfg; xl create -q -p /run/demand.cfg")
    outcome = a.run(PLAIN.command(demand, b), MOVE_SECONDS)
    check("memory that is populated on demand is refused", outcome.code != 0 and "when it first uses" in outcome.output, outcome.output)
    check("and nothing of it is at the target", b.domains() == [] and "demand" in a.domains(), a.domains(), b.domains())
    a.must("xl destroy demand")


def check_cut_suspended(pair, guest, way=PLAIN):
    """The line is cut for good when the guest has suspended: it is resumed at the source, and works, its device model too."""
    source, target = ends(pair, guest)
    # So long that the hand-off is still on its way when the line is cut; after it the two xl would have to agree, which never ends on such a line.
    set_line(pair, delay_ms=1500)
    job = source.begin(way.command(guest, target))
    # The watch fires when it is set, and when a domain suspends. With the first qdisc goes what it holds.
    asked = source.run(f"""timeout 400 xenstore-watch -n 2 @releaseDomain || exit 1
        tc qdisc del dev lan0 root; tc qdisc add dev lan0 root netem loss 100%
        xl list {guest.name} | awk 'NR == 2 {{ exit $5 !~ /s/ }}'""", MOVE_SECONDS)
    check("a guest that is suspended when the line is cut was met", asked.code == 0, asked.output)
    outcome = job.finish(MOVE_SECONDS)
    set_line(pair)
    check("a line that is cut while the guest is suspended fails the move", outcome.code != 0, outcome.output, received(target))
    is_back(guest, source, target, "cut while suspended")
