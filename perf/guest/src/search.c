// search RATE_MB_S SET_MB [SEED]: the workload of the demo. It loops through images kept in memory, looks for faces in
// them and writes a feature map for each: RATE_MB_S of maps a second (0 = none), over SET_MB of memory.
//
// The images stand for what the demo's application fetched; a face is a mark of eight bytes, planted where the seed says.
// What matters to a migration is that the memory is written at a known rate in no order that helps, and that a byte which
// arrives wrong is noticed. So each map is derived from the image and from the count of maps written before it, its sum is
// kept apart from it, and every map and image is read again and compared when its turn comes: a stale page is as corrupt
// as a damaged one. A mismatch ends the program.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"

enum {
    page_bytes = 4096,
    page_words = page_bytes / 8,
    pages_per_megabyte = 1000000 / page_bytes,  // rates are decimal
    pages_per_mebibyte = (1 << 20) / page_bytes,  // sizes are binary
    set_mebibytes_max = 1 << 16,
    image_share = 4,  // one page in four is an image, the others are maps
    turn_milliseconds = 10,
    sweep_pages_per_turn = 16,  // read again also when nothing is written: 6.5 MB/s
};

static const uint64_t face = 0x6563616665636166;

static uint64_t mix(uint64_t value) {  // the finaliser of splitmix64
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

static uint64_t sum_of(const uint64_t *page) {
    uint64_t sum = 0;
    for (int word = 0; word < page_words; word++) {
        sum = (sum << 7 | sum >> 57) + page[word];  // the rotation makes words that changed places count
    }
    return sum;
}

static uint64_t seed;
static size_t image_count, map_count;
static uint64_t *images, *maps;  // image_count and map_count pages
static uint64_t *image_sums, *map_sums;

static size_t faces_planted(size_t image) { return mix(seed ^ image) % 3; }

static void draw(size_t image) {
    uint64_t *page = images + image * page_words;
    uint64_t state = mix(seed + image);
    for (int word = 0; word < page_words; word++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        page[word] = state;
    }
    for (size_t planted = 0; planted < faces_planted(image); planted++) {
        // Not aligned, and far enough from each other: one in each half of the page.
        size_t offset = planted * (page_bytes / 2) + state % (page_bytes / 2 - sizeof face);
        memcpy((char *)page + offset, &face, sizeof face);
    }
    image_sums[image] = sum_of(page);
}

static size_t faces_found(size_t image) {
    const char *at = (const char *)(images + image * page_words), *end = at + page_bytes;
    size_t found = 0;
    while ((at = memmem(at, (size_t)(end - at), &face, sizeof face)) != NULL) {
        found++;
        at += sizeof face;
    }
    return found;
}

static _Noreturn void corrupt(const char *what, size_t index, uint64_t expected, uint64_t seen) {
    printf("{\"search\":\"corrupt\",\"what\":\"%s\",\"index\":%zu,\"expected\":\"%016llx\",\"seen\":\"%016llx\"}\n", what, index,
           (unsigned long long)expected, (unsigned long long)seen);
    exit(1);
}

static void check(const char *what, const uint64_t *pages, const uint64_t *sums, size_t index) {
    uint64_t seen = sum_of(pages + index * page_words);
    if (seen != sums[index]) corrupt(what, index, sums[index], seen);
}

static void write_map(size_t map, size_t image, uint64_t count) {
    const uint64_t *source = images + image * page_words;
    uint64_t *target = maps + map * page_words, sum = 0, key = mix(seed ^ count);
    for (int word = 0; word < page_words; word++) {
        target[word] = source[word] ^ (key += 0x9e3779b97f4a7c15);
        sum = (sum << 7 | sum >> 57) + target[word];
    }
    map_sums[map] = sum;
}

static void *memory(size_t bytes) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (start == MAP_FAILED) {
        printf("{\"search\":\"no memory\",\"bytes\":%zu}\n", bytes);
        exit(2);
    }
    return start;
}

static long argument(int count, char **values, int index, long fallback, long limit) {
    if (index >= count) return fallback;
    char *end;
    long value = strtol(values[index], &end, 10);
    if (*end != 0 || value < 0 || value > limit) {
        fprintf(stderr, "usage: search RATE_MB_S SET_MB [SEED]; argument %d is %s, at most %ld\n", index, values[index], limit);
        exit(2);
    }
    return value;
}

int main(int count, char **values) {
    long rate = argument(count, values, 1, 40, 100000);
    size_t set_pages = (size_t)argument(count, values, 2, 64, set_mebibytes_max) * pages_per_mebibyte;
    seed = mix((uint64_t)argument(count, values, 3, 1, 1L << 62));
    if (set_pages < pages_per_mebibyte) set_pages = pages_per_mebibyte;
    setvbuf(stdout, NULL, _IOLBF, 0);

    image_count = set_pages / image_share;
    map_count = set_pages - image_count;
    images = memory(image_count * page_bytes);
    maps = memory(map_count * page_bytes);
    image_sums = memory(image_count * sizeof *image_sums);
    map_sums = memory(map_count * sizeof *map_sums);
    for (size_t image = 0; image < image_count; image++) draw(image);
    printf("{\"search\":\"start\",\"rate_mb_s\":%ld,\"images\":%zu,\"maps\":%zu}\n", rate, image_count, map_count);

    uint64_t written = 0, written_before = 0, faces = 0, checked = 0, second = 0;
    size_t swept = 0;
    int64_t start = clock_nanoseconds(CLOCK_MONOTONIC), turn = start, line = start, paced_from = start;
    uint64_t paced = 0;
    for (;;) {
        // The pace is the total since `paced_from`, so that a late turn is made up for. After a second without a turn
        // there is no making up: a guest that was stopped should not answer with a burst.
        int64_t now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now - turn > NANOSECONDS_PER_SECOND) {
            turn = paced_from = now;
            paced = 0;
        }
        uint64_t due = (uint64_t)((now - paced_from) / NANOSECONDS_PER_MILLISECOND) * (uint64_t)rate * pages_per_megabyte / 1000;
        // A rate beyond this processor must not starve the progress lines: at most a second's worth of work a turn.
        for (int64_t limit = now + NANOSECONDS_PER_SECOND / 4; paced < due; paced++, written++) {
            if ((paced & 63) == 0 && clock_nanoseconds(CLOCK_MONOTONIC) > limit) {
                paced_from = clock_nanoseconds(CLOCK_MONOTONIC);
                paced = 0;
                break;
            }
            uint64_t choice = mix(seed + written);
            size_t image = choice % image_count, map = (choice >> 32) % map_count;
            check("map", maps, map_sums, map);
            check("image", images, image_sums, image);
            size_t found = faces_found(image);
            if (found != faces_planted(image)) corrupt("faces", image, faces_planted(image), found);
            faces += found;
            write_map(map, image, written);
            checked += 2;
        }
        for (int page = 0; page < sweep_pages_per_turn; page++, swept++, checked++) {
            size_t index = swept % (image_count + map_count);
            if (index < image_count) {
                check("image", images, image_sums, index);
            } else {
                check("map", maps, map_sums, index - image_count);
            }
        }
        now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now - line >= NANOSECONDS_PER_SECOND) {
            double seconds = (double)(now - line) / NANOSECONDS_PER_SECOND;
            printf("{\"search\":\"progress\",\"n\":%llu,\"maps\":%llu,\"faces\":%llu,\"checked\":%llu,\"rate_mb_s\":%.1f}\n",
                   (unsigned long long)++second, (unsigned long long)written, (unsigned long long)faces, (unsigned long long)checked,
                   (double)(written - written_before) * page_bytes / 1e6 / seconds);
            written_before = written;
            line = now;
        }
        turn += turn_milliseconds * NANOSECONDS_PER_MILLISECOND;
        sleep_until(turn);
    }
}
