// disk DEVICE RATE_MB_S SET_MIB FILL_MIB [SEED]: work on a disk, past the page cache. It fills the disk's first FILL_MIB, then writes
// RATE_MB_S in extents of 64 KiB over the first SET_MIB of them in no order that helps, and reads all that it filled again and again.
//
// What an extent must hold follows from the seed, its number and how often it was written; that count is kept in memory. So a
// byte that arrives wrong is noticed, an extent that is older than it should be, and a memory that does not belong to the
// disk. A mismatch ends the program.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"

enum {
    extent_bytes = 64 << 10,
    extent_words = extent_bytes / 8,
    page_words = 4096 / 8,
    extents_per_mebibyte = (1 << 20) / extent_bytes,
    mebibytes_max = 1 << 20,
    turn_milliseconds = 10,
    sweep_extents_per_turn = 1,  // read again also when nothing is written: 6.5 MB/s
};

static int device;
static uint64_t seed;
static uint64_t *buffer, *expected;  // an extent each
static uint32_t *generations;        // of each extent: how often it was written

static uint64_t mix(uint64_t value) {  // the finaliser of splitmix64
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

static void draw(uint64_t *extent, size_t index, uint32_t generation) {
    for (int word = 0; word < extent_words; word += page_words) {
        // One word of a page tells where and when it was written; a page of one extent cannot pass for another's.
        uint64_t state = mix(mix(mix(seed + index) + generation) + (uint64_t)word);
        for (int of_page = 0; of_page < page_words; of_page++) {
            extent[word + of_page] = state;
            state = state * 6364136223846793005 + 1442695040888963407;
        }
    }
}

static _Noreturn void fail(const char *what, size_t index, const char *why) {
    printf("{\"disk\":\"%s\",\"extent\":%zu,\"generation\":%u,\"why\":\"%s\"}\n", what, index, generations[index], why);
    exit(1);
}

static void check(size_t index) {
    if (generations[index] == 0) return;
    if (pread(device, buffer, extent_bytes, (off_t)index * extent_bytes) != extent_bytes) fail("failed", index, strerror(errno));
    draw(expected, index, generations[index]);
    if (memcmp(buffer, expected, extent_bytes) == 0) return;
    for (uint32_t generation = generations[index]; generation-- > 1;) {
        draw(expected, index, generation);
        if (memcmp(buffer, expected, extent_bytes) == 0) fail("corrupt", index, "it is older");
    }
    fail("corrupt", index, "it is damaged");
}

static void write_extent(size_t index) {
    draw(buffer, index, generations[index] + 1);
    if (pwrite(device, buffer, extent_bytes, (off_t)index * extent_bytes) != extent_bytes) fail("failed", index, strerror(errno));
    generations[index]++;
}

static void *memory(size_t bytes) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (start == MAP_FAILED) {
        printf("{\"disk\":\"no memory\",\"bytes\":%zu}\n", bytes);
        exit(2);
    }
    return start;
}

static long argument(int count, char **values, int index, long fallback, long limit) {
    if (index >= count) return fallback;
    char *end;
    long value = strtol(values[index], &end, 10);
    if (*end != 0 || value < 0 || value > limit) {
        fprintf(stderr, "usage: disk DEVICE RATE_MB_S SET_MIB FILL_MIB [SEED]; argument %d is %s, at most %ld\n", index, values[index], limit);
        exit(2);
    }
    return value;
}

int main(int count, char **values) {
    long rate = argument(count, values, 2, 4, 100000);
    size_t set = (size_t)argument(count, values, 3, 8, mebibytes_max) * extents_per_mebibyte;
    size_t filled = (size_t)argument(count, values, 4, 64, mebibytes_max) * extents_per_mebibyte;
    seed = mix((uint64_t)argument(count, values, 5, 1, 1L << 62));
    setvbuf(stdout, NULL, _IOLBF, 0);
    device = count > 1 ? open(values[1], O_RDWR | O_DIRECT) : -1;
    off_t bytes = device < 0 ? 0 : lseek(device, 0, SEEK_END);
    if (bytes < extent_bytes) {
        printf("{\"disk\":\"failed\",\"why\":\"%s\"}\n", device < 0 ? strerror(errno) : "it is too small");
        return 2;
    }
    if (filled > (size_t)bytes / extent_bytes) filled = (size_t)bytes / extent_bytes;
    if (filled == 0) filled = 1;
    if (set > filled) set = filled;
    if (set == 0) set = 1;
    buffer = memory(extent_bytes);
    expected = memory(extent_bytes);
    generations = memory(filled * sizeof *generations);
    for (size_t index = 0; index < filled; index++) write_extent(index);
    printf("{\"disk\":\"start\",\"rate_mb_s\":%ld,\"set\":%zu,\"filled\":%zu}\n", rate, set, filled);

    uint64_t written = 0, written_before = 0, checked = 0, second = 0, paced = 0;
    size_t swept = 0;
    int64_t start = clock_nanoseconds(CLOCK_MONOTONIC), turn = start, line = start, paced_from = start;
    for (;;) {
        // As in search.c: a late turn is made up for, but not after a second without one.
        int64_t now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now - turn > NANOSECONDS_PER_SECOND) {
            turn = paced_from = now;
            paced = 0;
        }
        uint64_t due = (uint64_t)((now - paced_from) / NANOSECONDS_PER_MILLISECOND) * (uint64_t)rate * 1000 / extent_bytes;
        for (int64_t limit = now + NANOSECONDS_PER_SECOND / 4; paced < due; paced++, written++, checked++) {
            if (clock_nanoseconds(CLOCK_MONOTONIC) > limit) {
                paced_from = clock_nanoseconds(CLOCK_MONOTONIC);
                paced = 0;
                break;
            }
            size_t index = mix(seed + written) % set;
            check(index);
            write_extent(index);
        }
        for (int extent = 0; extent < sweep_extents_per_turn; extent++, swept++, checked++) check(swept % filled);
        now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now - line >= NANOSECONDS_PER_SECOND) {
            double seconds = (double)(now - line) / NANOSECONDS_PER_SECOND;
            printf("{\"disk\":\"progress\",\"n\":%llu,\"written\":%llu,\"checked\":%llu,\"swept\":%zu,\"rate_mb_s\":%.1f}\n",
                   (unsigned long long)++second, (unsigned long long)written, (unsigned long long)checked, swept,
                   (double)(written - written_before) * extent_bytes / 1e6 / seconds);
            written_before = written;
            line = now;
        }
        turn += turn_milliseconds * NANOSECONDS_PER_MILLISECOND;
        sleep_until(turn);
    }
}
