// Reading a disk over NBD for Swift, by libnbd: its own calls wait without end, and its closures are C's. Every call here ends
// within its time. One prefix (tt_), a value or -errno back, no policy. Goes when libnbd's calls take a deadline.
#ifndef CTURNTABLENBD_H
#define CTURNTABLENBD_H
#include <stddef.h>
#include <stdint.h>

struct tt_nbd;

// Connects to an export behind a UNIX socket; with a metadata context, or NULL for none. NULL if that failed: then *error is -errno.
struct tt_nbd *tt_nbd_connect(const char *path, const char *export_name, const char *context, int timeout_ms, int *error);
void tt_nbd_close(struct tt_nbd *connection);
int64_t tt_nbd_bytes(struct tt_nbd *connection);

// Reads length bytes. After a failure nothing is written to the buffer any more, and the connection is of no more use.
int tt_nbd_read(struct tt_nbd *connection, void *buffer, size_t length, uint64_t offset, int timeout_ms);

// What the server says of [offset, offset + length), at least of its beginning, piece by piece. Calls `extent` with each piece's
// length and flags in the connection's metadata context, in order. The bytes that it was told of, or -errno.
int64_t tt_nbd_extents(
    struct tt_nbd *connection, uint64_t offset, uint64_t length, int timeout_ms, void (*extent)(void *context, uint64_t length, uint32_t flags),
    void *context);

// What libnbd says of this thread's last failure.
const char *tt_nbd_reason(void);
#endif
