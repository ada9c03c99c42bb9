"""Domains moved by `turntable xen migrate`: the journals say whose they are, whatever is killed."""
import json

from hosts import MOVE_SECONDS, STOCK, Guest, set_line
from moves import DIRECT, DIRECT_ANEW, begin_slowly, check, compare, in_first_round, is_back, living
from ways import received

IS_SUSPENDED = "xl list web | awk 'NR == 2 { exit $5 !~ /s/ } END { if (NR < 2) exit 1 }'"


def check_direct(pair, guest, delay_ms):
    figures = compare(pair, guest, delay_ms, {"stock": STOCK, "without xl": DIRECT_ANEW})
    check(f"{2 * delay_ms:g} ms: without xl the guest stands still for a shorter time",
          figures["without xl"]["guest_ms"] < figures["stock"]["guest_ms"], figures)


def check_direct_memory(source, target):
    bare = Guest("bare", memory_mib=96, working_set=8, address=None)
    bare.create(source)
    outcome = source.run(f"{DIRECT.command(bare, target)} --downtime 1ms --json", 300)
    check("without xl: a standstill that does not fit the budget is refused with the figures", outcome.code == 3 and '"kind":"refused"' in outcome.output,
          outcome.output, received(target))
    is_back(bare, source, target, "refused")
    outcome = source.run(f"{DIRECT.command(bare, target)} --verify before --json", 300)
    check("without xl: all memory of a guest without devices is compared before it runs, and nothing differs", outcome.code == 0, outcome.output, received(target))
    events = [json.loads(line) for line in outcome.output.splitlines() if line.startswith("{")]
    kinds = {event["event"] for event in events}
    report = next((event["report"] for event in events if event["event"] == "completed"), {})
    check("events tell phases, progress, rounds and the report", {"phase", "progress", "round"} <= kinds and report.get("machine") == bare.name
          and report["blackout"]["totalMilliseconds"] > 0 and len(report["rounds"]) > 0 and report["memoryBytes"] > 64 << 20, kinds, report)
    check("and it works on", bare.works_on(target), bare.console(target)[-2000:])
    outcome = target.run(DIRECT.command(Guest("nobody", address=None), source))
    check("a domain that is not there is said to be so", outcome.code == 2 and "xl list" in outcome.output, outcome.output)
    target.must("xl shutdown bare")
    is_over = f"[ -z \"$(xl list | awk 'NR > 2')\"{living('turntable-xen')} ]"
    gone = target.run(f"for try in $(seq 300); do {is_over} && exit; sleep 0.1; done; xl list; exit 1", 180)
    check("when it has shut down, its owner ends it and itself", gone.code == 0, gone.output, bare.console(target)[-2000:])


def check_owner_killed(pair, guest, source, target):
    """What had libxl make the domain is killed before the hand-off: the helper ends what it made."""
    job = begin_slowly(pair, guest, source, target)
    killed = target.run(f"{in_first_round(target, 'turntable-xen', 1)}; kill -KILL $1", 120)
    outcome = job.finish(120)
    set_line(pair)
    check("a receiver that is killed before the hand-off fails the move", killed.code == 0 and outcome.code not in (0, 8), killed.output, outcome.output)
    target.must("for try in $(seq 300); do [ -z \"$(xl list | awk 'NR > 2')\" ] && exit; sleep 0.1; done; exit 1")
    is_back(guest, source, target, "receiver killed before the hand-off")


def check_owner_stopped(pair, guest, source, target):
    """It does nothing any more from before the hand-off on, and is killed after it: the guest runs at the target all the same, once."""
    job = begin_slowly(pair, guest, source, target)
    stopped = target.run(f"{in_first_round(target, 'turntable-xen', 1)}; kill -STOP $1", 120)
    set_line(pair)
    runs = target.run("for try in $(seq 600); do xl list web | awk 'NR == 2 { exit $5 ~ /p/ } END { if (NR < 2) exit 1 }' && exit; sleep 0.1; done; exit 1", 300)
    target.must(f"kill -KILL {living('turntable-xen')}")
    outcome = job.finish(120)
    check("with a receiver that is killed after the hand-off the guest has moved", (stopped.code, runs.code, outcome.code) == (0, 0, 0),
          stopped.output, runs.output, outcome.output, received(target))
    check("it is there and nowhere else", (source.domains(), target.domains()) == ([], [guest.name]), source.domains(), target.domains())
    check("and works", guest.works_on(target), guest.console(target)[-2000:])


def check_cancelled(pair, guest, source, target):
    job = begin_slowly(pair, guest, source, target)
    # What a shell starts in the background does not hear SIGINT; both are heeded alike.
    interrupted = source.run(f"{in_first_round(source, 'turntable-xen-helper', 2)}; kill -TERM $(cat /run/mover)", 120)
    outcome = job.finish(120)
    set_line(pair)
    check("an interrupt before the hand-off ends the move as cancelled", (interrupted.code, outcome.code) == (0, 130), interrupted.output, outcome.output)
    is_back(guest, source, target, "interrupt")


def check_cut(pair, guest, source, target):
    """The line is cut before the hand-off, for good."""
    job = begin_slowly(pair, guest, source, target)
    met = source.run(in_first_round(source, "turntable-xen-helper", 2), 120)
    set_line(pair, loss="100%")
    outcome = job.finish(180)
    source.must("xl list web | awk 'NR == 2 { exit $5 ~ /[ps]/ } END { if (NR < 2) exit 1 }'")
    target.must("for try in $(seq 600); do [ -z \"$(xl list | awk 'NR > 2')\" ] && exit; sleep 0.1; done; exit 1", 120)
    set_line(pair)
    check("a line that is cut before the hand-off fails the move", met.code == 0 and outcome.code not in (0, 8), met.output, outcome.output)
    is_back(guest, source, target, "cut line")


def check_suspended(pair, guest, source, target):
    """Somebody else has suspended it, and is gone: nobody but the operator knows that."""
    left = source.run(f"""mkfifo /run/saved; sleep 600 </run/saved & reader=$!
        xl save {guest.name} /run/saved & saver=$!
        for try in $(seq 600); do {IS_SUSPENDED} && break; [ $try -lt 600 ] || exit 1; sleep 0.1; done
        kill -KILL $saver {living('libxl-save-helper')} $reader; wait; rm /run/saved""", 120)
    refused = source.run(DIRECT.command(guest, target))
    check("a domain that somebody else has suspended is not touched", left.code == 0 and refused.code not in (0, 8) and "--anew" in refused.output
          and source.run(IS_SUSPENDED).code == 0, left.output, refused.output, source.run("xl list").output)
    moved = source.run(DIRECT_ANEW.command(guest, target), MOVE_SECONDS)
    check("with --anew it is resumed and moves", moved.code == 0 and "was suspended" in moved.output, moved.output, received(target))
    check("the guest is there and nowhere else", (source.domains(), target.domains()) == ([], [guest.name]), source.domains(), target.domains())
    check("and works", guest.works_on(target), guest.console(target)[-2000:])


def check_no_answer(pair, guest, source, target):
    """The line is cut when the guest runs at the target and the source does not know: it stays suspended there until the target can be asked."""
    set_line(pair, delay_ms=2000)
    size = "$(cat /var/lib/turntable/journal/* 2>/dev/null | wc -c)"
    began = source.must(f"echo {size}").strip()
    job = source.begin(DIRECT.command(guest, target))
    # By the offer, and by the hand-off before its first byte leaves: only the answer is to come then, not before two seconds are over.
    handed = source.run(f"""size={began}
        for record in offer hand-off; do
            for try in $(seq 2000); do [ {size} != $size ] && break; [ $try -lt 2000 ] || exit 1; sleep 0.05; done; size={size}
        done""", 400)
    target.must("tc qdisc replace dev lan0 root netem loss 100%")
    outcome = job.finish(240)
    check("a hand-off without an answer ends with exit code 8, and says what to do", (handed.code, outcome.code) == (0, 8) and "again" in outcome.output,
          handed.output, outcome.output, received(target))
    check("the source keeps the domain suspended", source.run(IS_SUSPENDED).code == 0, source.run("xl list").output)
    set_line(pair)
    again = source.run(DIRECT.command(guest, target), 120)
    check("the same command again asks, and ends what is left here", again.code == 0, again.output, received(target))
    check("the guest is there and nowhere else", (source.domains(), target.domains()) == ([], [guest.name]), source.domains(), target.domains())
    check("and works", guest.works_on(target), guest.console(target)[-2000:])
