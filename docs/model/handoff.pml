/* The hand-off: who may run a machine, through crashes of every process and host and on a line that loses, doubles, delays
 * and reorders what it carries. docs/model/README.md says what is modelled, what is not, and how to read a counterexample.
 *
 * One source, one target, one machine; every offer takes a fresh epoch, up to EPOCHS. Every option of the loops below is one
 * indivisible step: between any two a process or a host may crash, and anything on the line may arrive. The names of the
 * rights are those of Sources/MigrationEngine/HandOffState.swift; those of the records are the journal's.
 *
 *   source   owning → offering (OFFER) → paused → relinquished (HANDOFF) → committed | reclaimed
 *   target   idle → offered (OFFERED) → owning (COMMITTED) | refused (REFUSED)
 *
 * Limits of a run, and the mistakes that docs/model/check makes on purpose, come as macros (-D).
 */

#ifndef EPOCHS
#define EPOCHS 5        /* the highest epoch; 1 is the machine's first */
#endif
#ifndef PROCESS_CRASHES
#define PROCESS_CRASHES 255     /* 255: any number */
#endif
#ifndef HOST_CRASHES
#define HOST_CRASHES 255
#endif

mtype:right = { idle, offered, owning, refused, offering, paused, relinquished, committed, reclaimed };
mtype:machine = { gone, shell, loaded, frozen, running };
mtype:record = { NOTHING, STARTED, OFFER, OFFERED, HANDOFF, COMMITTED, REFUSED, WITHDRAWN, FENCED, FENCED_SEEN };

/* MARK: the journals
 * Only the last record counts, for epochs grow. What is written survives the process; what is synced survives the host. */

typedef Journal {
    mtype:record last = NOTHING; byte epoch;
    mtype:record syncedLast = NOTHING; byte syncedEpoch;
    bool thisBoot   /* the last record was written since this host's last boot */
};
Journal sourceJournal, targetJournal;

inline write(journal, record, e) { journal.last = record; journal.epoch = e; journal.thisBoot = true }
inline sync(journal) { journal.syncedLast = journal.last; journal.syncedEpoch = journal.epoch }
#define isSynced(journal) (journal.last == journal.syncedLast && journal.epoch == journal.syncedEpoch)
inline lose_unsynced(journal) {
    journal.last = journal.syncedLast; journal.epoch = journal.syncedEpoch; journal.thisBoot = false
}

/* MARK: the ends */

bool sourceUp = true, targetUp = true;              /* the engine's process; a machine outlives it */
mtype:right sourceRight = owning, targetRight = idle;
unsigned sourceEpoch : 4 = 1, targetEpoch : 4 = 0;  /* of the offer at hand */
mtype:machine sourceMachine = running, targetMachine = gone;
unsigned machineEpoch : 4 = 1;                      /* under which the source's machine runs */
bool heardOffered, hasHandoff;                      /* in memory: gone with the process */
#ifdef RESTART_UNSYNCED
bool foundInJournal;
#endif

/* MARK: the line
 * A bit for each message that was ever sent. It may arrive at any later time, any number of times, in any order, or never. */

#define BIT(e) (1 << (e))
#define has(set, e) (((set) >> (e)) & 1)
#define add(set, e) set = set | BIT(e)
unsigned offers : 10, offereds : 10, handoffs : 10, committeds : 10, refuseds : 10, queries : 10, confirmations : 10;
unsigned fenced : 10, fencedSeen : 10;              /* what a fencer stated */

/* MARK: the world
 * One visible effect of the machine stands for each: the run chooses when it happens, and from then on every runner's memory
 * must hold it. */

unsigned effectBy : 4;                              /* the epoch that showed it; 0: not yet */
bool sourceHas, targetHas;                          /* whether the memory there holds it */
unsigned content : 10;                              /* whether the memory that went with the hand-off of an epoch holds it */
byte processCrashes, hostCrashes;

/* MARK: what must hold. The name of the property is the text of the assertion that fails; -DONLY=N_rolled_back checks one. */

unsigned ranAtSource : 10, ranAtTarget : 10, handoffBegan : 10;
bool two_runners, epoch_ran_twice, source_ran_after_handoff, target_ran_after_refusal, target_refused_after_run, rolled_back;
bool answer_taken_back, left_undecided, not_moved;

#define N_two_runners 1
#define N_epoch_ran_twice 2
#define N_source_ran_after_handoff 3
#define N_target_ran_after_refusal 4
#define N_target_refused_after_run 5
#define N_rolled_back 6
#define N_answer_taken_back 7
#define N_left_undecided 8
#define N_not_moved 9
#ifdef ONLY
#define never(property, breach) property = ONLY == N_##property && (breach); assert(!property)
#else
#define never(property, breach) property = breach; assert(!property)
#endif

#define isGivenBack(e) (has(refuseds, e) || has(fenced, e) || has(fencedSeen, e))

inline check_source_may_run() {
    never(two_runners, targetMachine == running);
    never(source_ran_after_handoff, has(handoffBegan, sourceEpoch) && !isGivenBack(sourceEpoch));
    never(rolled_back, effectBy != 0 && !sourceHas)
}

inline run_at_source(e) {
    check_source_may_run();
    never(epoch_ran_twice, has(ranAtSource | ranAtTarget, e));
    add(ranAtSource, e);
    machineEpoch = e;
    sourceMachine = running
}

inline run_at_target(e) {
    never(two_runners, sourceMachine == running);
    never(target_ran_after_refusal, isGivenBack(e));
    never(rolled_back, effectBy != 0 && !targetHas);
    never(epoch_ran_twice, has(ranAtSource | ranAtTarget, e));
    add(ranAtTarget, e);
    targetMachine = running
}

/* MARK: the source */

/* A refusal or fence of e leaves e + 1 to the memory that waited here. */
#define highest (sourceJournal.epoch + (sourceJournal.last == REFUSED || sourceJournal.last == FENCED || sourceJournal.last == FENCED_SEEN))
#ifdef REUSE_EPOCH
#define freshEpoch (sourceJournal.epoch + 1)
#else
#define freshEpoch ((highest > machineEpoch -> highest : machineEpoch) + 1)
#endif
#define isOffering (sourceUp && (sourceRight == offering || sourceRight == paused))

/* The target may have said Committed before it was fenced: whichever of the two counts, counts for good. */
inline sync_fence() {
#ifndef FENCED_UNSYNCED
    sync(sourceJournal)
#else
    skip
#endif
}

proctype Source() {
end: do
    :: d_step { sourceUp && (sourceRight == owning || sourceRight == reclaimed) && sourceMachine == running && freshEpoch <= EPOCHS ->
        sourceEpoch = freshEpoch;
        write(sourceJournal, OFFER, sourceEpoch);
        sourceRight = offering; heardOffered = false;
        printf("source: OFFER(%d) written\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == offering && !has(offers, sourceEpoch) ->
#ifndef OFFER_UNSYNCED
        sync(sourceJournal);
#endif
        add(offers, sourceEpoch);
        printf("source: says Offer(%d)\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == offering && !heardOffered && has(offereds, sourceEpoch) ->
        heardOffered = true;
        printf("source: hears Offered(%d)\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == offering && heardOffered && sourceMachine == running ->
        sourceRight = paused; sourceMachine = frozen;
        printf("source: pauses\n") }
#ifndef NO_REFUSALS
    /* Gives up: a budget, an operator, a cut, or the target refused before the hand-off. */
    :: d_step { isOffering ->
        write(sourceJournal, WITHDRAWN, sourceEpoch); sourceRight = owning;
        printf("source: WITHDRAWN(%d) written\n", sourceEpoch) }
#endif
    :: d_step { sourceUp && (sourceRight == owning || sourceRight == offering) && sourceMachine == frozen ->
        printf("source: lets its machine run on\n");
        check_source_may_run(); sourceMachine = running }

    /* The hand-off: written before its first byte, synced after it, which the kernel may also do by itself. */
    :: d_step { sourceUp && sourceRight == paused ->
#ifndef HANDOFF_UNWRITTEN
        write(sourceJournal, HANDOFF, sourceEpoch);
#endif
        sourceRight = relinquished;
        printf("source: HANDOFF(%d)\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == relinquished && sourceMachine == frozen && !has(handoffs, sourceEpoch) ->
        add(handoffBegan, sourceEpoch); add(handoffs, sourceEpoch);
        content = content | (sourceHas << sourceEpoch);
        printf("source: says Handoff(%d)\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == relinquished && !has(queries, sourceEpoch) ->
        add(queries, sourceEpoch);
        printf("source: asks for %d\n", sourceEpoch) }
    :: d_step { !isSynced(sourceJournal) -> sync(sourceJournal); printf("source: its journal is synced\n") }

    /* What became of it. */
    :: d_step { sourceUp && sourceRight == relinquished && has(committeds, sourceEpoch) ->
        write(sourceJournal, COMMITTED, sourceEpoch);
        sourceRight = committed;
        printf("source: COMMITTED(%d) written\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == committed && sourceMachine == frozen ->
        sourceMachine = gone; sourceHas = false;
        printf("source: discards what is left of its machine\n") }
    :: d_step { sourceUp && sourceRight == committed && !has(confirmations, sourceEpoch) ->
        sync(sourceJournal); add(confirmations, sourceEpoch);
        printf("source: confirms COMMITTED(%d)\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == relinquished && has(refuseds, sourceEpoch) ->
        /* Not synced: the answer can be had again. */
        write(sourceJournal, REFUSED, sourceEpoch);
        sourceRight = reclaimed;
        printf("source: REFUSED(%d) written\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == relinquished && has(fenced, sourceEpoch) ->
        write(sourceJournal, FENCED, sourceEpoch);
        sync_fence();
        sourceRight = reclaimed;
        printf("source: FENCED(%d), unseen\n", sourceEpoch) }
    :: d_step { sourceUp && sourceRight == relinquished && has(fencedSeen, sourceEpoch) ->
#ifdef FENCED_RESUMES
        write(sourceJournal, FENCED, sourceEpoch);
#else
        /* Clients saw more than this memory holds: it is not to run again. */
        write(sourceJournal, FENCED_SEEN, sourceEpoch);
        sourceMachine = gone; sourceHas = false;
#endif
        sync_fence();
        sourceRight = reclaimed;
        printf("source: FENCED(%d), seen\n", sourceEpoch) }
#ifdef RECLAIM_AFTER_TIMEOUT
    :: d_step { sourceUp && sourceRight == relinquished && sourceMachine == frozen ->
        sourceRight = reclaimed;
        printf("source: waited long enough for %d\n", sourceEpoch) }
#endif
    :: d_step { sourceUp && sourceRight == reclaimed && sourceMachine == frozen && sourceEpoch < EPOCHS ->
        printf("source: runs its machine again, as epoch %d\n", sourceEpoch + 1);
        run_at_source(sourceEpoch + 1) }

    /* A machine that crashed with its host is started from its disk, where what clients saw is as after any crash. */
    :: d_step { sourceUp && (sourceRight == owning || sourceRight == reclaimed) && sourceMachine == gone && freshEpoch <= EPOCHS ->
        sourceEpoch = freshEpoch;
        write(sourceJournal, STARTED, sourceEpoch);
#ifndef START_UNSYNCED
        sync(sourceJournal);
#endif
        sourceRight = owning; sourceHas = effectBy != 0;
        printf("source: STARTED(%d), from its disk\n", sourceEpoch);
        run_at_source(sourceEpoch) }

    :: d_step { sourceMachine == running && effectBy == 0 ->
        effectBy = machineEpoch; sourceHas = true;
        printf("world: a client sees an effect of epoch %d, at the source\n", machineEpoch) }
od
}

/* MARK: the target */

/* The absence of COMMITTED is believed on the boot that wrote OFFERED. */
#ifdef REFUSE_AFTER_REBOOT
#define neverRan true
#else
#define neverRan targetJournal.thisBoot
#endif
#ifdef RESUME_AFTER_REBOOT
#define mayResume true
#else
#define mayResume targetJournal.thisBoot
#endif
#ifdef RECOVER_UNCONFIRMED
#define mayStart true
#else
#define mayStart (targetJournal.last == STARTED || has(confirmations, targetEpoch))
#endif
/* Whether an epoch is committed or refused is decided once, under the journal's lock. */
#ifdef DECIDE_UNLOCKED
#define isUndecided true
unsigned undecidedSeen : 4;
#else
#define isUndecided (targetJournal.last == OFFERED)
#endif
#ifdef ACCEPT_STALE_HANDOFF
#define isOfThisOffer(e) true
#else
#define isOfThisOffer(e) (e == targetEpoch)
#endif

proctype Target() {
end: do
    :: d_step { targetUp && targetRight == offered && targetMachine == shell && !has(offereds, targetEpoch) ->
#ifdef OFFERED_UNSYNCED
#elif defined(RESTART_UNSYNCED)
        if :: foundInJournal :: else -> sync(targetJournal) fi;
#else
        sync(targetJournal);
#endif
        add(offereds, targetEpoch);
        printf("target: says Offered(%d)\n", targetEpoch) }

    /* Everything that the hand-off counts has arrived. */
#ifdef RUN_BEFORE_RECORD
    :: d_step { targetUp && targetRight == offered && targetMachine == shell && hasHandoff ->
        printf("target: runs epoch %d\n", targetEpoch);
        run_at_target(targetEpoch) }
    :: d_step { targetUp && targetRight == offered && targetMachine == running ->
        write(targetJournal, COMMITTED, targetEpoch); targetRight = owning;
        printf("target: COMMITTED(%d) written\n", targetEpoch) }
#else
    :: d_step { targetUp && targetRight == offered && targetMachine == shell && hasHandoff ->
        if
        :: isUndecided ->
            targetMachine = loaded;
            write(targetJournal, COMMITTED, targetEpoch); targetRight = owning;
            printf("target: COMMITTED(%d) written\n", targetEpoch)
        :: else ->
            targetMachine = gone; targetHas = false; hasHandoff = false;
            targetRight = refused;
            printf("target: finds REFUSED(%d)\n", targetEpoch)
        fi }
    :: d_step { targetUp && targetRight == owning && targetMachine == loaded ->
        printf("target: runs epoch %d\n", targetEpoch);
        run_at_target(targetEpoch) }
#endif
    :: d_step { targetUp && targetRight == owning && targetJournal.last == COMMITTED && targetMachine != loaded && !has(committeds, targetEpoch) ->
#ifndef COMMITTED_UNSYNCED
        sync(targetJournal);
#endif
        printf("target: says Committed(%d)\n", targetEpoch);
        never(answer_taken_back, has(refuseds, targetEpoch));
        add(committeds, targetEpoch) }

    /* Refuses: its resume window is over, a load failed, an operator said so. Not what may have run. */
#ifndef NO_REFUSALS
    :: d_step { targetUp && targetRight == offered && neverRan && targetMachine != running ->
        printf("target: REFUSED(%d) written\n", targetEpoch);
        never(target_refused_after_run, has(ranAtTarget, targetEpoch));
        targetMachine = gone; targetHas = false; hasHandoff = false;
        write(targetJournal, REFUSED, targetEpoch);
        targetRight = refused }
    /* Another process of this host decides, while the first may still have the machine's shell. */
#ifdef DECIDE_UNLOCKED
    :: d_step { targetJournal.last == OFFERED && targetJournal.thisBoot && undecidedSeen == 0 ->
        undecidedSeen = targetJournal.epoch;
        printf("target: another process finds OFFERED(%d)\n", undecidedSeen) }
    :: d_step { undecidedSeen != 0 && undecidedSeen == targetJournal.epoch && targetJournal.thisBoot ->
#else
    :: d_step { targetJournal.last == OFFERED && targetJournal.thisBoot ->
#endif
        printf("target: REFUSED(%d) written by another process\n", targetJournal.epoch);
        never(target_refused_after_run, has(ranAtTarget, targetJournal.epoch));
        targetJournal.last = REFUSED }
#ifdef REFUSE_UNLOGGED
    :: d_step { targetUp && targetRight == offered && targetMachine == gone && targetJournal.thisBoot && !has(refuseds, targetEpoch) ->
        add(refuseds, targetEpoch);
        printf("target: cannot make a shell, says Refused(%d)\n", targetEpoch) }
#endif
    :: d_step { targetJournal.last == REFUSED && !has(refuseds, targetJournal.epoch) ->
#ifndef REFUSE_UNSYNCED
        sync(targetJournal);
#endif
        printf("target: says Refused(%d)\n", targetJournal.epoch);
        never(answer_taken_back, has(committeds, targetJournal.epoch));
        add(refuseds, targetJournal.epoch) }
#endif
    :: d_step { !isSynced(targetJournal) -> sync(targetJournal); printf("target: its journal is synced\n") }

    /* A machine that crashed here is started from its disk when the source confirmed that it knows: it then takes no fence. */
    :: d_step { targetUp && targetRight == owning && targetMachine == gone && mayStart && targetEpoch < EPOCHS ->
        targetEpoch = targetEpoch + 1;
        write(targetJournal, STARTED, targetEpoch); sync(targetJournal);
        targetHas = effectBy != 0;
        printf("target: STARTED(%d), from its disk\n", targetEpoch);
        run_at_target(targetEpoch) }

    :: d_step { targetMachine == running && effectBy == 0 ->
        effectBy = targetJournal.epoch; targetHas = true;
        printf("world: a client sees an effect of epoch %d, at the target\n", effectBy) }
od
}

/* What arrives at the target. At the source only answers for the epoch at hand count. */
proctype Line(byte e) {
end: do
    :: d_step { targetUp && has(offers, e) && e > targetJournal.epoch && targetMachine != running && targetMachine != loaded ->
        targetEpoch = e;
        write(targetJournal, OFFERED, e);
#ifdef RESTART_UNSYNCED
        foundInJournal = false;
#endif
        targetRight = offered; targetMachine = shell; targetHas = false; hasHandoff = false;
        printf("target: OFFERED(%d) written\n", e) }
    /* The same offer again, after this process was restarted: what it had is gone, so everything is sent again. */
    :: d_step { targetUp && has(offers, e) && e == targetEpoch && targetRight == offered && mayResume && targetMachine == gone ->
        targetMachine = shell;
        printf("target: a new shell for %d\n", e) }
    :: d_step { targetUp && has(handoffs, e) && isOfThisOffer(e) && targetRight == offered && targetMachine == shell && !hasHandoff ->
        hasHandoff = true; targetHas = has(content, e);
        printf("target: has all that Handoff(%d) counts\n", e) }
#ifndef NO_REFUSALS
    /* Nothing on record: Offered was never said, so it was never handed off. */
    :: d_step { targetUp && has(queries, e) && e > targetJournal.epoch && targetMachine != running && targetMachine != loaded ->
        targetEpoch = e;
        targetMachine = gone; targetHas = false; hasHandoff = false;
        write(targetJournal, REFUSED, e);
        targetRight = refused;
        printf("target: REFUSED(%d) written, for nothing is on record\n", e) }
#endif
od
}

/* MARK: crashes, restarts, the fencer */

#define mayCrash(count, most) (most == 255 || count < most)
#define counted(count, most) count = (most == 255 -> 0 : count + 1)

inline source_crash() { sourceUp = false; heardOffered = false; sourceRight = owning; sourceEpoch = 0 }
inline target_crash() {
    targetUp = false; hasHandoff = false; targetRight = idle; targetEpoch = 0;
#ifdef RESTART_UNSYNCED
    foundInJournal = false;
#endif
}
inline target_host_crash() {
    target_crash();
    lose_unsynced(targetJournal);
    targetMachine = gone; targetHas = false
}

proctype World() {
end: do
    :: d_step { sourceUp && mayCrash(processCrashes, PROCESS_CRASHES) ->
        counted(processCrashes, PROCESS_CRASHES); source_crash();
        printf("world: the source's process crashes\n") }
    :: d_step { mayCrash(hostCrashes, HOST_CRASHES) ->
        counted(hostCrashes, HOST_CRASHES); source_crash(); lose_unsynced(sourceJournal);
        sourceMachine = gone; sourceHas = false; machineEpoch = 0;
        printf("world: the source's host crashes\n") }
    /* A receiver's machine may outlive it or not. */
    :: d_step { targetUp && mayCrash(processCrashes, PROCESS_CRASHES) ->
        counted(processCrashes, PROCESS_CRASHES); target_crash();
        printf("world: the target's process crashes\n") }
    :: d_step { targetUp && mayCrash(processCrashes, PROCESS_CRASHES) ->
        counted(processCrashes, PROCESS_CRASHES); target_crash(); targetMachine = gone; targetHas = false;
        printf("world: the target's process crashes, and its machine\n") }
    :: d_step { mayCrash(hostCrashes, HOST_CRASHES) ->
        counted(hostCrashes, HOST_CRASHES); target_host_crash();
        printf("world: the target's host crashes\n") }

    :: d_step { !sourceUp ->
        sourceUp = true;
        printf("source: starts again\n");
        sync(sourceJournal);
        sourceEpoch = sourceJournal.epoch;
        if
        :: sourceJournal.last == STARTED || sourceJournal.last == WITHDRAWN || sourceJournal.last == NOTHING -> sourceRight = owning
        :: sourceJournal.last == OFFER && sourceJournal.thisBoot -> sourceRight = offering
#ifdef TRUST_ABSENCE
        :: sourceJournal.last == OFFER && !sourceJournal.thisBoot -> sourceRight = owning
#else
        :: sourceJournal.last == OFFER && !sourceJournal.thisBoot -> sourceRight = relinquished
#endif
        :: sourceJournal.last == HANDOFF -> sourceRight = relinquished
#ifdef SEND_UNOWNED
        :: sourceJournal.last == COMMITTED -> sourceRight = owning
#else
        :: sourceJournal.last == COMMITTED -> sourceRight = committed
#endif
        :: sourceJournal.last == REFUSED || sourceJournal.last == FENCED || sourceJournal.last == FENCED_SEEN -> sourceRight = reclaimed
        fi }
    :: d_step { !targetUp ->
        targetUp = true;
        printf("target: starts again\n");
#ifdef RESTART_UNSYNCED
        foundInJournal = true;
#else
        sync(targetJournal);
#endif
        targetEpoch = targetJournal.epoch;
        if
        :: targetJournal.last == NOTHING -> targetRight = idle
        :: targetJournal.last == OFFERED -> targetRight = offered;
#ifndef RUN_BEFORE_RECORD
            targetMachine = gone; targetHas = false     /* what is left of the shell */
#else
            if :: targetMachine == running -> skip :: else -> targetMachine = gone; targetHas = false fi
#endif
        :: targetJournal.last == COMMITTED || targetJournal.last == STARTED -> targetRight = owning
        :: targetJournal.last == REFUSED -> targetRight = refused
        fi;
        never(answer_taken_back, has(committeds, targetEpoch) && targetRight != owning || has(refuseds, targetEpoch) && targetRight != refused ||
            (committeds | refuseds) >> (targetEpoch + 1) != 0) }

    /* The fencer: the target's host is off, for certain, and with it its machine. What clients saw of it, the fencer knows or must assume. */
#ifdef FENCE_EARLY
#define mayFence (sourceUp && (sourceRight == relinquished || isOffering))
#else
#define mayFence (sourceUp && sourceRight == relinquished)
#endif
#ifndef NO_FENCER
    :: d_step { mayFence && !has(fenced, sourceEpoch) && !has(fencedSeen, sourceEpoch) && effectBy != sourceEpoch ->
#ifdef FENCE_BY_KILL
        target_crash(); targetMachine = gone; targetHas = false;
#else
        target_host_crash();
#endif
        add(fenced, sourceEpoch);
        printf("fencer: FENCED(%d): nobody saw it\n", sourceEpoch) }
    :: d_step { mayFence && !has(fenced, sourceEpoch) && !has(fencedSeen, sourceEpoch) ->
#ifdef FENCE_BY_KILL
        target_crash(); targetMachine = gone; targetHas = false;
#else
        target_host_crash();
#endif
        add(fencedSeen, sourceEpoch);
        printf("fencer: FENCED(%d): it may have been seen\n", sourceEpoch) }
#endif
od
}

init {
    byte e = 2;
    atomic {
        write(sourceJournal, STARTED, 1);
        sync(sourceJournal);
        add(ranAtSource, 1);
        run Source();
        run Target();
        do :: e <= EPOCHS -> run Line(e); e++ :: else -> break od;
        run World()
    };
    /* Nothing is left to happen. */
end: timeout ->
    d_step {
        never(left_undecided, !(sourceRight == committed && targetRight == owning ||
            (sourceRight == owning || sourceRight == reclaimed) && (sourceMachine == running || freshEpoch > EPOCHS)));
#ifdef NO_REFUSALS
        never(not_moved, targetMachine != running || sourceRight != committed)
#endif
    }
}
