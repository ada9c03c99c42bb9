"""HVM guests: a device model's state goes by libxl beside the engine."""
from disks import check_disk_stays
from hosts import MOVE_SECONDS, STOCK
from moves import DIRECT, DIRECT_ANEW, DIRECT_DISKS, DISKS, check, compare, is_back, one_move
from ways import LINE, PLAIN, ends, received


def check_hvm(pair, guest):
    """A guest with a device model, whose state libxl carries: by Xen's own, and by the engine on a plain stream and on our line."""
    compare(pair, guest, 0, {"hvm, by Xen's own": STOCK, "hvm, ours": PLAIN, "hvm, ours on our line": LINE})


def check_hvm_direct(pair, guest):
    """Without xl libxl's stream, with the device model's state, ends in the hand-off; and a device model that does not come up there."""
    compare(pair, guest, 0, {"hvm, by Xen's own": STOCK, "hvm, without xl": DIRECT_ANEW})
    source, target = ends(pair, guest)
    job = source.begin(DIRECT.command(guest, target))
    # It is started in the hand-off.
    killed = target.run("for try in $(seq 2000); do set -- $(grep -ls ^xen-qemu /proc/[0-9]*/comm | cut -d/ -f3); [ $# -gt 0 ] && kill -KILL $1 && exit; sleep 0.1; done; exit 1", MOVE_SECONDS)
    outcome = job.finish(MOVE_SECONDS)
    check("hvm, without xl: a device model that fails at the target fails the move", killed.code == 0 and outcome.code not in (0, 8),
          killed.output, outcome.output, received(target))
    is_back(guest, source, target, "hvm, its device model failed there")
    one_move("hvm, without xl, after that", guest, source, target, DIRECT)


def check_hvm_disk(pair, store):
    """The disk of a guest whose devices are made when all else is there goes to what its configuration says."""
    a, b = pair
    check_disk_stays(pair, store, "xl with an HVM domain's disk", DISKS, "turntable xen migrate --disk")
    one_move("hvm, disk, without xl", store, a, b, DIRECT_DISKS)
    one_move("hvm, disk, without xl, back", store, b, a, DIRECT_DISKS)
    check("hvm, disk: no snapshot is left", [host.snapshots() for host in pair] == [[], []], a.run("lvs").output)
