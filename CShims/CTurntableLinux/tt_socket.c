#define _GNU_SOURCE
#include "tt_socket.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif

static int set(int fd, int level, int name, const void *value, socklen_t length) {
    return setsockopt(fd, level, name, value, length) ? -errno : 0;
}

int tt_tcp_status(int fd, struct tt_tcp_status *status) {
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length)) return -errno;
    status->rtt_microseconds = info.tcpi_rtt;
    status->minimum_rtt_microseconds = info.tcpi_min_rtt;
    status->segment_bytes = info.tcpi_snd_mss;
    status->retransmitted_segments = info.tcpi_total_retrans;
    status->acknowledged_bytes = info.tcpi_bytes_acked;
    status->delivery_rate_bytes_per_second = info.tcpi_delivery_rate;
    status->delivery_rate_is_application_limited = info.tcpi_delivery_rate_app_limited;
    status->unsent_bytes = info.tcpi_notsent_bytes;
    uint64_t congestion_window = (uint64_t)info.tcpi_snd_cwnd * info.tcpi_snd_mss;
    status->window_bytes = congestion_window < info.tcpi_snd_wnd ? (uint32_t)congestion_window : info.tcpi_snd_wnd;
    status->in_flight_segments = info.tcpi_unacked;
    return 0;
}

int tt_set_no_delay(int fd, int on) { return set(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); }
int tt_set_unsent_low_water(int fd, uint32_t bytes) {
    return set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}
int tt_set_congestion_control(int fd, const char *name) {
    return set(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
}
int tt_get_congestion_control(int fd, char *name, size_t capacity) {
    socklen_t length = (socklen_t)capacity;
    return getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) ? -errno : 0;
}
int tt_set_pacing_rate(int fd, uint64_t rate) { return set(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate); }
int tt_set_user_timeout(int fd, uint32_t milliseconds) {
    return set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}
int tt_set_zero_copy(int fd) {
    int on = 1;
    return set(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
}
int tt_set_reuse_address(int fd) {
    int on = 1;
    return set(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}
int tt_set_timeouts(int fd, int64_t receive, int64_t send) {
    struct timeval value = {.tv_sec = receive / 1000000000, .tv_usec = receive % 1000000000 / 1000};
    int result = set(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
    if (result) return result;
    value = (struct timeval){.tv_sec = send / 1000000000, .tv_usec = send % 1000000000 / 1000};
    return set(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value);
}

static int64_t set_buffer(int fd, int forced, int ordinary, int bytes) {
    if (set(fd, SOL_SOCKET, forced, &bytes, sizeof bytes)) {
        int result = set(fd, SOL_SOCKET, ordinary, &bytes, sizeof bytes);
        if (result) return result;
    }
    int granted = 0;
    socklen_t length = sizeof granted;
    if (getsockopt(fd, SOL_SOCKET, ordinary, &granted, &length)) return -errno;
    return granted / 2;  // the kernel doubles what is asked, for its own bookkeeping (socket(7))
}
int64_t tt_set_send_buffer(int fd, int bytes) { return set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, bytes); }
int64_t tt_set_receive_buffer(int fd, int bytes) { return set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, bytes); }

int tt_path_mtu(int fd) {
    int mtu = 0;
    socklen_t length = sizeof mtu;
    if (!getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &length)) return mtu;
    length = sizeof mtu;
    return getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &length) ? -errno : mtu;
}

int tt_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int tt_peer_process(int fd) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) ? -errno : peer.pid;
}

ssize_t tt_send_descriptor(int fd, const void *bytes, size_t length, int descriptor) {
    struct iovec vector = {(void *)bytes, length};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    ssize_t sent;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ssize_t tt_send_vectors(int fd, const struct iovec *vectors, int count, int more, int zero_copy) {
    struct msghdr message = {.msg_iov = (struct iovec *)vectors, .msg_iovlen = (size_t)count};
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0) | (zero_copy ? MSG_ZEROCOPY : 0);
    ssize_t moved;
    do {
        moved = sendmsg(fd, &message, flags);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

ssize_t tt_receive_vectors(int fd, const struct iovec *vectors, int count) {
    struct msghdr message = {.msg_iov = (struct iovec *)vectors, .msg_iovlen = (size_t)count};
    ssize_t moved;
    do {
        moved = recvmsg(fd, &message, MSG_WAITALL);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

ssize_t tt_send_file(int fd, int file, int64_t offset, size_t length) {
    off_t position = offset;
    ssize_t moved;
    do {
        moved = sendfile(fd, file, &position, length);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

int tt_pipe(int ends[2], int bytes) {
    if (pipe2(ends, O_CLOEXEC)) return -errno;
    // What is granted is enough, whatever it is.
    (void)fcntl(ends[1], F_SETPIPE_SZ, bytes);
    return 0;
}

ssize_t tt_splice(int from, int to, size_t length, int more) {
    ssize_t moved;
    do {
        moved = splice(from, NULL, to, NULL, length, SPLICE_F_MOVE | (more ? SPLICE_F_MORE : 0));
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

int tt_reap_zero_copy(int fd, uint32_t *completed, int *copied) {
    for (;;) {
        char control[128];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return errno == EAGAIN ? 0 : -errno;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
            struct sock_extended_err error;
            memcpy(&error, CMSG_DATA(header), sizeof error);
            if (error.ee_origin != SO_EE_ORIGIN_ZEROCOPY) continue;
            *completed += error.ee_data - error.ee_info + 1;
            if (error.ee_code & SO_EE_CODE_ZEROCOPY_COPIED) *copied = 1;
        }
    }
}
