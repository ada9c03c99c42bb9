// Datagrams with the time of their arrival (CMSG_* are function-like macros), and the names of netlink's messages, which no module of
// Swift's has. Can go when the Glibc overlay imports <linux/rtnetlink.h>.
#ifndef TT_NETWORK_H
#define TT_NETWORK_H
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

// Has the kernel write down when each datagram arrives. 0 or -errno.
int tt_set_timestamps(int fd);
// Receives a datagram: its bytes, or -errno; -EMSGSIZE if it is longer than capacity. *arrived_unix_nanoseconds is 0 without a time.
ssize_t tt_receive_datagram(int fd, void *bytes, size_t capacity, struct sockaddr_storage *from, int64_t *arrived_unix_nanoseconds);
// Nanoseconds of the clock that those times are of.
int64_t tt_unix_nanoseconds(void);
#endif
