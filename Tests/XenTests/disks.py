"""Guests whose disk is a logical volume that goes along."""
from hosts import MOVE_SECONDS, STOCK, Way, set_line
from moves import DIRECT_DISKS, DISKS, DISKS_EMPTY, DISKS_NAMED, DISKS_PLAIN, check, in_first_round, one_move
from ways import LINE, TURNTABLE, received


def check_disk_comes(pair, guest, way, what="disk"):
    """From host a to b: the volumes are compared before the guest runs there."""
    a, b = pair
    moved = a.run(way.command(guest, b).replace("xl migrate", "xl migrate -p"), MOVE_SECONDS)
    check(f"{what}: xl moves a guest whose disk is a logical volume", moved.code == 0, moved.output, received(b))
    sums = [host.checksum(guest.name) for host in pair]
    check(f"{what}: before the guest runs, the target's volume is what the source's was at the suspend", sums[0] == sums[1], sums)
    b.must(f"xl unpause {guest.name}")
    check(f"{what}: the guest works on, and its memory and its disk are what they were", guest.works_on(b), guest.console(b)[-2000:])


def check_disk_returns(pair, guest, what="disk"):
    """From host b back to a, over the older copy."""
    a, b = pair
    one_move(f"{what}, back over the older copy", guest, b, a, DISKS)
    check(f"{what}: no snapshot is left after the way back", [host.snapshots() for host in pair] == [[], []], a.run("lvs").output, b.run("lvs").output)


def check_disk_moves(pair, guest):
    """A disk goes along while it is written: byte for byte what it was at the suspend, and the way back only what differs."""
    a, b = pair
    check_disk_comes(pair, guest, DISKS_EMPTY)
    check("disk: no snapshot is left", [host.snapshots() for host in pair] == [[], []], a.run("lvs").output)
    refused = b.run(DISKS_EMPTY.command(guest, a), MOVE_SECONDS)
    check("disk: a volume that holds something is not overwritten", refused.code != 0 and "it holds something" in refused.output + received(a),
          refused.output, received(a))
    check("disk: and the guest runs on where it was", guest.works_on(b) and a.domains() == [], guest.console(b)[-2000:], a.domains())
    check_disk_returns(pair, guest)


def check_disk_thin(pair, guest):
    """Of a thin volume only what it has blocks for goes, and the target's gets no others."""
    check_disk_comes(pair, guest, DISKS_EMPTY, "thin disk")
    used = [float(host.must(f"lvs --noheadings -o data_percent vg/{guest.name}")) for host in pair]
    check("thin disk: the target's volume has blocks for no more than the source's", 0 < used[1] <= used[0] < 90, used)
    check_disk_returns(pair, guest, "thin disk")


def check_disk_stays(pair, guest, what, way, *words):
    """A move that is refused in these words."""
    a, b = pair
    outcome = a.run(way.command(guest, b), MOVE_SECONDS)
    said = outcome.output + received(b)
    check(f"disk: {what} is refused", outcome.code != 0 and all(word in said for word in words), outcome.output, received(b))
    check(f"disk: {what}: no snapshot is left", a.snapshots() == [], a.run("lvs").output)


def check_disk_refused(pair, guest):
    """What cannot go along, or not there, is said before anything is written, and the guest goes on with its disk."""
    a, b = pair

    def refused(what, way, *words):
        check_disk_stays(pair, guest, what, way, *words)
    refused("a disk that there is not", Way(DISKS.port, DISKS.environment.replace("=all", "=xvdz"), TURNTABLE, DISKS.options), "xvdz", "xvda")
    refused("a target that does not let disks come", Way(LINE.port, DISKS.environment, TURNTABLE, DISKS.options), "set TURNTABLE_DISKS")
    refused("a plain stream", DISKS_PLAIN, "turntable xl-receive")
    refused("a target without the helper", Way(STOCK.port, DISKS.environment), "meeting the target's turntable-xen-helper")
    b.must(f"lvrename -q vg/{guest.name} vg/large && lvcreate -q -y -L 16M -n {guest.name} vg")
    refused("a smaller volume", DISKS, "it has 16.0 MiB")
    b.must(f"lvremove -q -y vg/{guest.name} && lvrename -q vg/large vg/{guest.name}")
    b.must(f"setsid sleep 600 </dev/vg/{guest.name} >/dev/null 2>&1 3>&- & echo $! >/run/user-of-it")
    refused("a volume that somebody has open", DISKS, "somebody uses it")
    b.must("kill $(cat /run/user-of-it)")
    # What one group on shared storage would look like there: LVM's own identifier of the volume.
    identifier = a.must(f"dmsetup info -c --noheadings -o uuid vg-{guest.name}").strip()
    b.must(f"""dmsetup create twin --uuid {identifier} --table "0 $(blockdev --getsz /dev/vg/{guest.name}) linear /dev/vg/{guest.name} 0"
        ln -sf /dev/mapper/twin /dev/vg/{guest.name}""")
    refused("the source's own volume", DISKS, "both hosts see the same storage")
    b.must(f"ln -sf /dev/mapper/vg-{guest.name} /dev/vg/{guest.name}; dmsetup remove --retry twin")
    check("disk: the guest works on, and its disk is what it was", guest.works_on(a) and b.domains() == [], guest.console(a)[-2000:], b.domains())


def check_disk_named(pair, guest):
    """Of two disks one is no logical volume: with `all` that is refused; else the other goes along, and this one is said to stay."""
    a, b = pair
    for host in pair:
        host.must("modprobe loop && truncate -s 8M /run/second.img && losetup /dev/loop0 /run/second.img")
    a.must(f"xl block-attach {guest.name} phy:/dev/loop0 xvdb w")
    check_disk_stays(pair, guest, "a disk that is no logical volume", DISKS, "xvdb (/dev/loop0) is no logical volume")
    moved, _ = one_move("disk, one of two", guest, a, b, DISKS_NAMED)
    check("disk: the one that stays is named", "xvdb (/dev/loop0) stays" in moved.output, moved.output)


def check_disk_killed(pair, guest, way=DISKS):
    """In the middle of a move the process that libxl waits for is killed, and then the engine: the guest goes on with its disk, and the
    snapshots are removed by what the engine becomes, and by `turntable gc`."""
    a, b = pair
    for victim in ("front", "engine"):
        set_line(pair, 0, "100mbit")
        job = a.begin(way.command(guest, b))
        killed = a.run(f"""{in_first_round(a, 'turntable-xen-helper', 2)}
            for try in $(seq 300); do lvs --noheadings -o lv_name vg | grep -q turntable_ && break; sleep 0.1; done
            for process; do
                parent=$(awk '/^PPid/ {{ print $2 }}' /proc/$process/status)
                case " $* " in *" $parent "*) engine=$process front=$parent ;; esac
            done
            lvs --noheadings -o lv_name vg | grep -c turntable_; kill -KILL ${victim}""", MOVE_SECONDS)
        outcome = job.finish(MOVE_SECONDS)
        set_line(pair)
        check(f"disk: a move whose {victim} is killed fails; there was a snapshot", killed.code == 0 and killed.output.strip() == "1" and outcome.code != 0,
              killed.output, outcome.output)
        if victim == "engine":
            gone = a.run(f"{TURNTABLE} gc")
            check("disk: what a killed engine left `turntable gc` removes", gone.code == 0 and gone.output.startswith("vg/turntable_"), gone.output)
        left = a.run("for try in $(seq 300); do lvs --noheadings -o lv_name vg | grep -q turntable_ || exit 0; sleep 0.2; done; exit 1", 120)
        check(f"disk: killed {victim}: no snapshot is left", left.code == 0, a.run("lvs").output)
        check(f"disk: killed {victim}: the guest runs on here, with its disk, and nothing of it is at the target",
              guest.works_on(a) and (a.domains(), b.domains()) == ([guest.name], []), guest.console(a)[-2000:], a.domains(), b.domains())
    one_move("disk, after that", guest, a, b, way)


def check_disk_migrates(pair, guest):
    """Without xl."""
    a, b = pair
    one_move("disk, without xl", guest, a, b, DIRECT_DISKS)
    check("disk, without xl: no snapshot is left", [host.snapshots() for host in pair] == [[], []], a.run("lvs").output)
