#define _GNU_SOURCE
#include "CTurntableNBD.h"
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct tt_nbd {
    struct nbd_handle *handle;
    char *context;
};

static int failure(void) {
    int error = nbd_get_errno();
    return error > 0 ? -error : -EIO;
}

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// One step of the connection's work: 0, or -errno.
static int step(struct nbd_handle *handle, int64_t deadline) {
    int64_t left = deadline - now_ms();
    if (left <= 0) return -ETIMEDOUT;
    return nbd_poll(handle, (int)left) < 0 ? failure() : 0;
}

static int complete(struct nbd_handle *handle, int64_t cookie, int64_t deadline) {
    if (cookie < 0) return failure();
    for (;;) {
        int done = nbd_aio_command_completed(handle, (uint64_t)cookie);
        if (done) return done < 0 ? failure() : 0;
        int result = step(handle, deadline);
        if (result < 0) return result;
    }
}

static int connect_to(struct tt_nbd *connection, const char *path, const char *export_name, int64_t deadline) {
    struct nbd_handle *handle = connection->handle;
    if (nbd_set_export_name(handle, export_name) < 0) return failure();
    if (connection->context && nbd_add_meta_context(handle, connection->context) < 0) return failure();
    if (nbd_aio_connect_unix(handle, path) < 0) return failure();
    while (nbd_aio_is_connecting(handle) > 0) {
        int result = step(handle, deadline);
        if (result < 0) return result;
    }
    if (nbd_aio_is_ready(handle) <= 0) return failure();
    return connection->context && nbd_can_meta_context(handle, connection->context) <= 0 ? -EOPNOTSUPP : 0;
}

struct tt_nbd *tt_nbd_connect(const char *path, const char *export_name, const char *context, int timeout_ms, int *error) {
    struct tt_nbd *connection = calloc(1, sizeof *connection);
    *error = -ENOMEM;
    if (!connection) return NULL;
    connection->handle = nbd_create();
    connection->context = context ? strdup(context) : NULL;
    if (connection->handle && (!context || connection->context)) *error = connect_to(connection, path, export_name, now_ms() + timeout_ms);
    if (*error == 0) return connection;
    tt_nbd_close(connection);
    return NULL;
}

void tt_nbd_close(struct tt_nbd *connection) {
    nbd_close(connection->handle);
    free(connection->context);
    free(connection);
}

int64_t tt_nbd_bytes(struct tt_nbd *connection) {
    int64_t bytes = nbd_get_size(connection->handle);
    return bytes < 0 ? failure() : bytes;
}

int tt_nbd_read(struct tt_nbd *connection, void *buffer, size_t length, uint64_t offset, int timeout_ms) {
    int64_t deadline = now_ms() + timeout_ms;
    return complete(connection->handle, nbd_aio_pread(connection->handle, buffer, length, offset, NBD_NULL_COMPLETION, 0), deadline);
}

struct collector {
    struct tt_nbd *connection;
    void (*extent)(void *context, uint64_t length, uint32_t flags);
    void *context;
    uint64_t told, limit;
};

static int collect(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error) {
    (void)offset, (void)error;
    struct collector *collector = data;
    if (strcmp(context, collector->connection->context)) return 0;
    // A server may tell of more than it was asked.
    for (size_t index = 0; index + 1 < count && collector->told < collector->limit; index += 2) {
        uint64_t left = collector->limit - collector->told, length = entries[index] < left ? entries[index] : left;
        collector->extent(collector->context, length, entries[index + 1]);
        collector->told += length;
    }
    return 0;
}

int64_t tt_nbd_extents(
    struct tt_nbd *connection, uint64_t offset, uint64_t length, int timeout_ms, void (*extent)(void *context, uint64_t length, uint32_t flags),
    void *context) {
    int64_t deadline = now_ms() + timeout_ms;
    struct collector collector = {connection, extent, context, 0, length};
    nbd_extent_callback callback = {.callback = collect, .user_data = &collector};
    int result = complete(
        connection->handle, nbd_aio_block_status(connection->handle, length, offset, callback, NBD_NULL_COMPLETION, 0), deadline);
    return result < 0 ? result : (int64_t)collector.told;
}

const char *tt_nbd_reason(void) {
    const char *reason = nbd_get_error();
    return reason ? reason : "no reason is known";
}
