"""PV guests, by Xen's own helpers over our transport."""
import json

from disks import check_disk_comes, check_disk_returns, check_disk_stays
from hosts import MOVE_SECONDS, STOCK, set_line
from moves import CARRIED, DIRECT, DIRECT_ANEW, DIRECT_DISKS, DISKS, DISKS_PLAIN, SUMMED, check, compare, is_back, living, one_move
from ways import LINE, ends, received
from without_xl import check_direct


def check_pv(pair, guest):
    """A PV guest goes there by Xen's own and back by Xen's own helpers over our transport, while it writes."""
    a, b = pair
    _, stock = one_move("pv, by Xen's own", guest, a, b, STOCK)
    moved, ours = one_move("pv, over our transport", guest, b, a, CARRIED)
    check("pv: the helper says what went", " on 4 streams" in moved.output, moved.output)
    check("pv: ours sends less, without the zero pages", ours["megabytes"] < stock["megabytes"], stock, ours)


def check_pv_line(pair, guest):
    """On our line the devices of a PV guest are made while it still runs at the source."""
    compare(pair, guest, 0, {"pv, by Xen's own": STOCK, "pv, on our line": LINE})


# Xen's own helper, which leaves the checksum of what it wrote or read.
SUMMING_HELPER = """#!/bin/bash
real=/usr/lib/xen-4.17/bin/libxl-save-helper
case $1 in
--save-domain) exec 9> >(tee >(cksum >/lab/results/saved) >&"$2") ;;
--restore-domain) exec 9< <(tee >(cksum >/lab/results/restored) <&"$2") ;;
esac
"$real" "$1" 9 "${@:3}"
code=$?
exec 9>&-
wait
exit $code
"""


def check_sums(pair, guest):
    """Every byte of a PV guest's stream, memory and all else, arrives in its place."""
    a, b = pair
    for host in pair:
        (host.directory / "share/summing-helper").write_text(SUMMING_HELPER)
        host.must("chmod +x /lab/summing-helper")
    one_move("pv, checksums at both ends", guest, a, b, SUMMED)
    sums = [host.must(f"for try in $(seq 300); do [ -s /lab/results/{name} ] && break; sleep 0.1; done; cat /lab/results/{name}")
            for host, name in ((a, "saved"), (b, "restored"))]
    check("pv: what Xen's own helper reads is what the other wrote, to the byte", sums[0] == sums[1] and len(sums[0].split()) == 2, sums)


def check_pv_disk(pair, store):
    """A PV guest's disk goes along, there with its checksum and back."""
    a, b = pair
    check_disk_comes(pair, store, DISKS, "pv, disk")
    check_disk_returns(pair, store, "pv, disk")
    check_disk_stays(pair, store, "a plain stream", DISKS_PLAIN, "turntable xl-receive")
    check("pv, disk: and the guest works on where it was", store.works_on(a) and b.domains() == [], store.console(a)[-2000:], b.domains())


def check_pv_direct(pair, guest):
    """A PV guest by `turntable xen migrate`: its memory by Xen's own helpers, and whose it is by the journals."""
    check_direct(pair, guest, 0)
    source, target = ends(pair, guest)
    refused = source.run(f"{DIRECT.command(guest, target)} --verify before", MOVE_SECONDS)
    check("pv, without xl: memory that is Xen's own helper's is not said to be compared", refused.code != 0 and "--verify" in refused.output, refused.output)
    is_back(guest, source, target, "pv, refused")
    outcome = source.run(f"{DIRECT.command(guest, target)} --json", MOVE_SECONDS)
    events = [json.loads(line) for line in outcome.output.splitlines() if line.startswith("{")]
    report = next((event["report"] for event in events if event["event"] == "completed"), {})
    check("pv, without xl: events tell progress, and the report what went", outcome.code == 0 and "progress" in {event["event"] for event in events}
          and report.get("machine") == guest.name and report["memoryBytes"] == guest.memory_mib << 20 and report["bytesOnWire"] > 64 << 20
          and report["blackout"]["totalMilliseconds"] > 0, outcome.output)


def check_pv_refused(pair, guest):
    """Xen's own helper at the target is killed when the guest has suspended and its last pages are on their way: it is resumed at the source."""
    source, target = ends(pair, guest)
    set_line(pair, delay_ms=1500)
    job = source.begin(DIRECT_ANEW.command(guest, target))
    # The watch fires when it is set, and when a domain suspends.
    suspended = source.run("timeout 400 xenstore-watch -n 2 @releaseDomain", MOVE_SECONDS)
    killed = target.run(f"kill -KILL {living('libxl-save-helper')}")
    outcome = job.finish(MOVE_SECONDS)
    set_line(pair)
    check("pv, without xl: a restorer that is killed while the guest is suspended fails the move",
          (suspended.code, killed.code) == (0, 0) and outcome.code not in (0, 8), suspended.output, killed.output, outcome.output, received(target))
    is_back(guest, source, target, "pv, without xl, killed restorer")


def check_pv_direct_disk(pair, store):
    """A PV guest's disk goes along, by the migration that says whose the guest is."""
    a, b = pair
    one_move("pv, disk, without xl", store, a, b, DIRECT_DISKS)
    one_move("pv, disk, without xl, back", store, b, a, DIRECT_DISKS)
    check("pv, disk, without xl: no snapshot is left", [host.snapshots() for host in pair] == [[], []], a.run("lvs").output)
