// probe [THRESHOLD_MS [PERIOD_US]]: the paper's internal measurement of downtime (its Table 1). Every PERIOD_US (200, as in
// the paper) it reads the clock, and it reports every interruption of at least THRESHOLD_MS (50, as in the paper).
//
// The guest's own clock sees only a part of a migration: QEMU stops it together with the guest. The battery-backed clock
// (an MC146818) does not stop, since QEMU computes it from the host's CLOCK_REALTIME. Its register holds whole seconds, but
// the moment at which it changes is as sharp as the polling, 0.2 ms. So the probe measures its own clock from one such
// edge to another:
//
//     hidden = seconds between the edges by the battery-backed clock - time between them by the guest's clock
//
// The register is only polled just before the next edge is due. An edge that came too early is a sign that the guest's clock
// had stopped; then it is polled until it changes again. Without such a clock CLOCK_BOOTTIME takes its place, and on Xen, whose
// stands still with an HVM guest.
#include <stdbool.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

#include "clock.h"

#define POLL_PERIOD (NANOSECONDS_PER_MILLISECOND / 5)
#define PERIOD_MICROSECONDS_MAX 2000
#define POLL_BEFORE_EDGE (3 * NANOSECONDS_PER_MILLISECOND)
// An interval within this of its right length, without an interruption in it, ends a report.
#define QUIET (5 * NANOSECONDS_PER_MILLISECOND)
#define REPORT_SPAN_MAX (10 * NANOSECONDS_PER_SECOND)
#define SECONDS_PER_DAY 86400

// --- The battery-backed clock --------------------------------------------------------------------------------------

enum { rtc_index_port = 0x70, rtc_data_port = 0x71 };
enum { rtc_seconds = 0, rtc_minutes = 2, rtc_hours = 4, rtc_status_b = 11, status_b_binary = 4 };

static unsigned rtc_register(unsigned index) {
    outb((unsigned char)index, rtc_index_port);
    return inb(rtc_data_port);
}

static bool rtc_binary;  // set by rtc_ticks

// The kernel's driver uses the same two ports and may come between our two accesses, which then give another register's
// value. That is rare; the same value twice is taken as the truth.
static int rtc_value(unsigned index) {
    unsigned value, again = rtc_register(index);
    do {
        value = again;
        again = rtc_register(index);
    } while (value != again);
    return (int)(rtc_binary ? value : (value >> 4) * 10 + (value & 15));
}

static int rtc_second_of_day(void) { return rtc_value(rtc_hours) * 3600 + rtc_value(rtc_minutes) * 60 + rtc_value(rtc_seconds); }

static bool rtc_ticks(void) {
    if (access("/sys/hypervisor/uuid", F_OK) == 0 || ioperm(rtc_index_port, 2, 1) != 0) return false;
    rtc_binary = rtc_register(rtc_status_b) & status_b_binary;
    if (rtc_value(rtc_seconds) > 59) return false;
    int first = rtc_value(rtc_seconds);
    int64_t limit = clock_nanoseconds(CLOCK_MONOTONIC) + 3 * NANOSECONDS_PER_SECOND / 2;
    while (clock_nanoseconds(CLOCK_MONOTONIC) < limit) {
        if (rtc_value(rtc_seconds) != first) return true;
        sleep_until(clock_nanoseconds(CLOCK_MONOTONIC) + POLL_PERIOD);
    }
    return false;
}

// --- Edges: moments known in both clocks ---------------------------------------------------------------------------

struct edge {
    int64_t guest;      // CLOCK_MONOTONIC
    int64_t reference;  // nanoseconds of the day by the battery-backed clock, or CLOCK_BOOTTIME
    int64_t error;      // the edge lies this much before or after `guest`
};

struct edge_finder {
    bool has_rtc;
    int second;         // the register at the last poll; -1 before the first
    bool seeking;       // polled until it changes, wherever that is
    int64_t next_due;   // when the register should change
    int64_t last_poll;
};

static bool polling(const struct edge_finder *finder, int64_t now) {
    return finder->seeking || now >= finder->next_due - POLL_BEFORE_EDGE;
}

// To be called at every tick; true when this tick found an edge.
static bool find_edge(struct edge_finder *finder, int64_t now, struct edge *edge) {
    if (!polling(finder, now)) return false;
    if (!finder->has_rtc) {
        finder->next_due = now + NANOSECONDS_PER_SECOND;
        *edge = (struct edge){now, clock_nanoseconds(CLOCK_BOOTTIME), 0};
        return true;
    }
    bool first_poll = !finder->seeking && finder->last_poll < finder->next_due - POLL_BEFORE_EDGE;
    int64_t before = finder->last_poll;
    int second = rtc_value(rtc_seconds);
    finder->last_poll = now;
    if (second == finder->second) return false;
    finder->second = second;
    if (finder->seeking || !first_poll) {
        finder->seeking = false;
        *edge = (struct edge){(before + now) / 2, rtc_second_of_day() * NANOSECONDS_PER_SECOND, (now - before) / 2};
        finder->next_due = edge->guest + NANOSECONDS_PER_SECOND;
        return true;
    }
    finder->seeking = true;  // it changed while nobody looked
    return false;
}

// --- Intervals and reports -----------------------------------------------------------------------------------------

static double milliseconds(int64_t nanoseconds) { return (double)nanoseconds / NANOSECONDS_PER_MILLISECOND; }

// What happened since the last quiet edge. A report waits for a quiet interval, because an edge that falls into the
// interruption itself splits the hidden part over two intervals.
struct span {
    struct edge from;
    int64_t longest, longest_at;  // the longest time between two ticks
    int interruptions;            // how many reached the threshold
};

// The guest's nanoseconds in a second of the reference: the guest's clock may be off by some parts in ten thousand.
static int64_t second_by_guest = NANOSECONDS_PER_SECOND;

static int64_t hidden_between(const struct edge *from, const struct edge *to, bool has_rtc) {
    int64_t reference = to->reference - from->reference;
    if (!has_rtc) return reference - (to->guest - from->guest);
    int64_t seconds = (reference / NANOSECONDS_PER_SECOND + SECONDS_PER_DAY) % SECONDS_PER_DAY;
    if (seconds > SECONDS_PER_DAY / 2) seconds -= SECONDS_PER_DAY;  // the host's clock was set back
    return seconds * second_by_guest - (to->guest - from->guest);
}

static void report(const struct span *span, const struct edge *to, int64_t hidden) {
    // A tick below the threshold is no interruption: busy machines have such all the time. What is hidden left no mark in the
    // guest's time: it came after the last quiet edge, and that is all there is to say.
    int64_t visible = span->interruptions > 0 ? span->longest : 0;
    int64_t at = span->interruptions > 0 ? span->longest_at : span->from.guest;
    printf("{\"probe\":\"gap\",\"at_s\":%.3f,\"visible_ms\":%.1f,\"hidden_ms\":%.1f,\"total_ms\":%.1f,"
           "\"error_ms\":%.1f,\"visible_gaps\":%d,\"longest_tick_ms\":%.1f}\n",
           (double)at / NANOSECONDS_PER_SECOND, milliseconds(visible), milliseconds(hidden), milliseconds(visible + hidden),
           milliseconds(span->from.error + to->error), span->interruptions, milliseconds(span->longest));
}

int main(int count, char **values) {
    int64_t threshold = (count > 1 ? atoi(values[1]) : 50) * NANOSECONDS_PER_MILLISECOND;
    int64_t period = (count > 2 ? atoi(values[2]) : 200) * 1000LL;
    if (threshold <= QUIET || period <= 0 || period > PERIOD_MICROSECONDS_MAX * 1000LL) {
        fprintf(stderr, "usage: probe [THRESHOLD_MS [PERIOD_US]]; the threshold above %lld, the period at most %d\n",
                QUIET / NANOSECONDS_PER_MILLISECOND, PERIOD_MICROSECONDS_MAX);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    run_as_instrument(50);
    struct edge_finder finder = {.has_rtc = rtc_ticks(), .second = -1};
    finder.seeking = finder.has_rtc;
    if (finder.has_rtc) finder.second = rtc_value(rtc_seconds);
    struct span span = {0};
    struct edge last_edge = {0};
    int64_t last = clock_nanoseconds(CLOCK_MONOTONIC), deadline = last, quiet_since = last;
    finder.last_poll = last;
    for (;;) {
        // A tick that comes late moves the ones after it: ticks in a burst would measure nothing.
        deadline += polling(&finder, last) && period > POLL_PERIOD ? POLL_PERIOD : period;
        if (deadline < last) deadline = last;
        sleep_until(deadline);
        int64_t now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now - last > span.longest) {
            span.longest = now - last;
            span.longest_at = last;
        }
        if (now - last >= threshold) {
            span.interruptions++;
            quiet_since = now;
        }
        last = now;

        struct edge edge;
        if (!find_edge(&finder, now, &edge)) continue;
        if (span.from.guest == 0) {  // the first edge: nothing to compare it with
            last_edge = edge;
            span = (struct span){.from = edge};
            printf("{\"probe\":\"ready\",\"at_s\":%.3f,\"reference\":\"%s\"}\n", (double)now / NANOSECONDS_PER_SECOND,
                   finder.has_rtc ? "rtc" : "boottime");
            continue;
        }
        int64_t step = hidden_between(&last_edge, &edge, finder.has_rtc);
        bool quiet = llabs(step) < QUIET && quiet_since <= last_edge.guest;
        if (quiet || edge.guest - span.from.guest > REPORT_SPAN_MAX) {
            int64_t hidden = hidden_between(&span.from, &edge, finder.has_rtc);
            if (span.interruptions > 0 || llabs(hidden) >= threshold) {
                report(&span, &edge, hidden);
            } else if (finder.has_rtc) {
                second_by_guest -= step / 8;  // a slow average: an edge alone is only good to a tick
            }
            span = (struct span){.from = edge};
        }
        last_edge = edge;
    }
}
