// Preloaded into one turntable process, to stop it at an instant that no signal from outside could hit:
//
//   TURNTABLE_FREEZE="before|within|after HEXBYTES [HEXBYTES]"    the first write that holds these bytes, whatever it goes to
//
// The whole process is then stopped as by SIGSTOP; `within` is when the first half has been written, and needs a caller that
// writes the rest. A write is a line to QEMU's monitor, a record of the journal, a control message, device state, or an event on
// standard output; only the first bytes of each are looked at, which is where those say what they are.
//
// A write to an orchestrator's store of one file is a value that is given to SQLite; what SQLite itself writes is pages, which hold
// other values and older ones too, and are written when it likes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { looked_at = 512 };

static struct { unsigned char bytes[64]; size_t length; } wanted[2];
static int wanted_count;
static enum { before, within, after } when;
static int is_armed;

// Only the program itself, not those that start it or that it starts.
__attribute__((constructor)) static void arm(void) {
    char word[8], hexadecimal[2][2 * sizeof wanted->bytes + 1];
    const char *order = getenv("TURNTABLE_FREEZE");
    if (!order || strncmp(program_invocation_short_name, "turntable", 9) != 0) return;
    wanted_count = sscanf(order, "%7s %128s %128s", word, hexadecimal[0], hexadecimal[1]) - 1;
    if (wanted_count < 1) abort();
    for (int each = 0; each < wanted_count; each++) {
        for (const char *digit = hexadecimal[each]; digit[0] && digit[1]; digit += 2) {
            unsigned value;
            if (sscanf(digit, "%2x", &value) != 1) abort();
            wanted[each].bytes[wanted[each].length++] = (unsigned char)value;
        }
    }
    when = strcmp(word, "before") == 0 ? before : strcmp(word, "within") == 0 ? within : after;
    __atomic_store_n(&is_armed, 1, __ATOMIC_SEQ_CST);
    unsetenv("TURNTABLE_FREEZE");
    unsetenv("LD_PRELOAD");
}

static int is_wanted(const void *bytes, size_t length) {
    if (!__atomic_load_n(&is_armed, __ATOMIC_RELAXED)) return 0;
    for (int each = 0; each < wanted_count; each++) {
        if (!memmem(bytes, length, wanted[each].bytes, wanted[each].length)) return 0;
    }
    return __atomic_exchange_n(&is_armed, 0, __ATOMIC_SEQ_CST);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define STOPPING(call, bytes, length, looked)                \
    int is_here = is_wanted(bytes, looked);                  \
    if (is_here && when == before) raise(SIGSTOP);           \
    if (is_here && when == within) length = (length + 1) / 2; \
    ssize_t result = call;                                   \
    int error = errno;                                       \
    if (is_here && when != before) raise(SIGSTOP);           \
    errno = error;                                           \
    return result

static size_t head(size_t length) { return length < looked_at ? length : looked_at; }

ssize_t write(int fd, const void *bytes, size_t length) { STOPPING(NEXT(write)(fd, bytes, length), bytes, length, head(length)); }

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    STOPPING(NEXT(send)(fd, bytes, length, flags), bytes, length, head(length));
}

// Nothing of it is in the store when this returns: `within` and `after` have no meaning here.
int sqlite3_bind_blob(sqlite3_stmt *statement, int place, const void *bytes, int length, void (*end)(void *)) {
    if (is_wanted(bytes, (size_t)length)) raise(SIGSTOP);
    return NEXT(sqlite3_bind_blob)(statement, place, bytes, length, end);
}
