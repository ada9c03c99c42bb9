// Sockets: constants and structures of <linux/tcp.h> and <linux/errqueue.h>, which clash with glibc's in the importer.
#ifndef TT_SOCKET_H
#define TT_SOCKET_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tt_tcp_status {
    uint32_t rtt_microseconds;
    uint32_t minimum_rtt_microseconds;
    uint32_t segment_bytes;
    uint32_t retransmitted_segments;
    uint64_t acknowledged_bytes;
    uint64_t delivery_rate_bytes_per_second;
    uint32_t unsent_bytes;
    uint32_t window_bytes;  // the smaller of congestion window and the peer's
    uint32_t in_flight_segments;
    int delivery_rate_is_application_limited;
};
int tt_tcp_status(int fd, struct tt_tcp_status *status);

// setsockopt for the options below: 0 or -errno.
int tt_set_no_delay(int fd, int on);
int tt_set_unsent_low_water(int fd, uint32_t bytes);
int tt_set_congestion_control(int fd, const char *name);
int tt_get_congestion_control(int fd, char *name, size_t capacity);
int tt_set_pacing_rate(int fd, uint64_t bytes_per_second);
int tt_set_user_timeout(int fd, uint32_t milliseconds);
int tt_set_zero_copy(int fd);
int tt_set_reuse_address(int fd);
int tt_set_timeouts(int fd, int64_t receive_nanoseconds, int64_t send_nanoseconds);
// Asks for bytes of socket buffer, past the system's limit when privileged. The bytes granted, or -errno.
int64_t tt_set_send_buffer(int fd, int bytes);
int64_t tt_set_receive_buffer(int fd, int bytes);
// The path MTU the kernel knows for a connected socket, or -errno.
int tt_path_mtu(int fd);
// accept4(2) with close-on-exec: the connection, or -errno.
int tt_accept(int listener);
// The process at the other end of a UNIX socket, or -errno.
int tt_peer_process(int fd);
// Sends bytes over a UNIX socket, and a descriptor with the first of them (CMSG_* are function-like macros). Bytes moved, or -errno.
ssize_t tt_send_descriptor(int fd, const void *bytes, size_t length, int descriptor);

// Bytes moved, or -errno. more says that the rest of the frame follows at once.
ssize_t tt_send_vectors(int fd, const struct iovec *vectors, int count, int more, int zero_copy);
ssize_t tt_receive_vectors(int fd, const struct iovec *vectors, int count);
ssize_t tt_send_file(int fd, int file, int64_t offset, size_t length);
// A pipe with room for about that many bytes, for tt_splice.
int tt_pipe(int ends[2], int bytes);
// Bytes from a socket into a pipe or from a pipe into a socket, by reference (splice(2)): what is moved, 0 at the end, or -errno.
ssize_t tt_splice(int from, int to, size_t length, int more);
// Completions of zero-copy sends: adds them to *completed and sets *copied if the kernel had to copy. 0 or -errno.
int tt_reap_zero_copy(int fd, uint32_t *completed, int *copied);
#endif
