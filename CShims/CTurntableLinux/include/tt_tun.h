// TUN devices, network namespaces and the few calls a user-space line needs around them: ioctl(2), prctl(2) and
// mremap(2) are variadic, struct ifreq is a union of macros, and setns(2), memfd_create(2), eventfd(2) and signalfd(2)
// are hidden from the Swift Glibc overlay, which is compiled without _GNU_SOURCE.
// Can go when the overlay imports <net/if.h>, <linux/if_tun.h>, <sched.h>, <sys/eventfd.h> and <sys/signalfd.h> whole.
//
// Every function returns a value >= 0, or -errno. Descriptors are made close-on-exec and belong to the caller.
#ifndef TT_TUN_H
#define TT_TUN_H
#include <stddef.h>
#include <stdint.h>

// Bytes in front of every frame read from or written to a device: struct virtio_net_hdr.
#define TT_TUN_FRAME_HEADER_BYTES 10

// What the device may leave to its reader (tt_tun_set_offload).
#define TT_TUN_OFFLOAD_CHECKSUM 1u
#define TT_TUN_OFFLOAD_SEGMENTATION 2u

// The fields of struct virtio_net_hdr that tell how many frames of the line one read holds.
struct tt_tun_frame_header {
    uint8_t is_segmented;      // 1: a super-frame, to be cut every segment_bytes of payload
    uint16_t segment_bytes;
    uint16_t transport_offset; // where the TCP header starts; 0 when unknown
};

// A descriptor of the network namespace at `path` (an nsfs file); of the calling thread when path is NULL.
int tt_netns_open(const char *path);
// Moves the calling thread, and no other, into a namespace.
int tt_netns_enter(int descriptor);
// Gives the calling thread a new network namespace and keeps it at `path`, which must be in `directory`; the directory is
// made a shared mount first, as iproute2 does, so that `ip netns` sees the namespace. The thread stays inside.
int tt_netns_create(const char *directory, const char *path);
// Takes the name away; the namespace goes with its last user.
int tt_netns_delete(const char *path);

// A TUN device with frame headers, in the calling thread's namespace; it vanishes with the descriptor. -EBUSY: in use.
int tt_tun_create(const char *name);
int tt_tun_set_offload(int device, uint32_t offloads);
void tt_tun_frame_header_read(const void *frame, struct tt_tun_frame_header *header);

// Settings of an interface in the namespace of `socket` (tt_tun_socket).
int tt_tun_socket(void);
int tt_tun_set_mtu(int socket, const char *name, int mtu_bytes);
int tt_tun_set_queue_length(int socket, const char *name, int frames);
int tt_tun_set_up(int socket, const char *name);
// `address` is in network byte order; prefix_bits 0...32.
int tt_tun_set_address(int socket, const char *name, uint32_t address, int prefix_bits);

// Maps `bytes` (a multiple of the page size) of populated memory twice in a row, so that what runs past the end comes
// back at the start and no record is ever split.
int tt_line_map_ring(size_t bytes, void **address);
int tt_line_event(void);
// Blocks the signals of `mask_bits` (bit n: signal n) for the calling thread and what it starts, and reads them instead.
int tt_line_signals(uint64_t mask_bits);
int tt_line_timer_slack(unsigned long nanoseconds);
int tt_line_thread_name(const char *name);
#endif
