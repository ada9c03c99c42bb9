#include "tt_digest.h"
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#define DIGEST XXH3_64bits_dispatch
#else
#include <xxhash.h>
#define DIGEST XXH3_64bits
#endif

uint64_t tt_digest(const void *bytes, size_t count) { return DIGEST(bytes, count); }

void tt_digests(const void *bytes, size_t unit, size_t count, uint64_t *digests) {
    const char *next = bytes;
    for (size_t index = 0; index < count; index++, next += unit) digests[index] = DIGEST(next, unit);
}
