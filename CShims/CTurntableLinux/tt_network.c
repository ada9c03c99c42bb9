#define _GNU_SOURCE
#include "tt_network.h"
#include <errno.h>
#include <string.h>
#include <time.h>

int tt_set_timestamps(int fd) {
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ? -errno : 0;
}

ssize_t tt_receive_datagram(int fd, void *bytes, size_t capacity, struct sockaddr_storage *from, int64_t *arrived) {
    struct iovec vector = {bytes, capacity};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    memset(from, 0, sizeof *from);
    struct msghdr message = {.msg_name = from, .msg_namelen = sizeof *from, .msg_iov = &vector, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t moved;
    do {
        moved = recvmsg(fd, &message, 0);
    } while (moved < 0 && errno == EINTR);
    if (moved < 0) return -errno;
    *arrived = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_TIMESTAMPNS) continue;
        struct timespec time;
        memcpy(&time, CMSG_DATA(header), sizeof time);
        *arrived = time.tv_sec * 1000000000LL + time.tv_nsec;
    }
    return message.msg_flags & MSG_TRUNC ? -EMSGSIZE : moved;
}

int64_t tt_unix_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}
