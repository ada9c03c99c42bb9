#define _GNU_SOURCE
#include "tt_tun.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(struct virtio_net_hdr) == TT_TUN_FRAME_HEADER_BYTES, "the header TUN puts before a frame");

static int result(int value) { return value < 0 ? -errno : value; }

int tt_netns_open(const char *path) {
    return result(open(path ? path : "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

int tt_netns_enter(int descriptor) { return result(setns(descriptor, CLONE_NEWNET)); }

static int share_directory(const char *directory) {
    if (mkdir(directory, 0755) < 0 && errno != EEXIST) return -errno;
    if (mount("", directory, "none", MS_SHARED | MS_REC, NULL) == 0) return 0;
    // EINVAL: a plain directory, not yet a mount of its own.
    if (errno != EINVAL) return -errno;
    if (mount(directory, directory, "none", MS_BIND | MS_REC, NULL) < 0) return -errno;
    return result(mount("", directory, "none", MS_SHARED | MS_REC, NULL));
}

int tt_netns_create(const char *directory, const char *path) {
    int error = share_directory(directory);
    if (error < 0) return error;
    int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (file < 0) return -errno;
    close(file);
    if (unshare(CLONE_NEWNET) < 0 || mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL) < 0) {
        error = -errno;
        unlink(path);
        return error;
    }
    return 0;
}

int tt_netns_delete(const char *path) {
    // EINVAL: a file left behind before it was mounted over; it goes all the same.
    if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL) return -errno;
    return result(unlink(path));
}

static struct ifreq request_for(const char *name) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return request;
}

int tt_tun_create(const char *name) {
    int device = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (device < 0) return -errno;
    struct ifreq request = request_for(name);
    request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    int header_bytes = TT_TUN_FRAME_HEADER_BYTES;
    if (ioctl(device, TUNSETIFF, &request) < 0 || ioctl(device, TUNSETVNETHDRSZ, &header_bytes) < 0) {
        int error = -errno;
        close(device);
        return error;
    }
    return device;
}

int tt_tun_set_offload(int device, uint32_t offloads) {
    unsigned long flags = 0;
    if (offloads & TT_TUN_OFFLOAD_CHECKSUM) flags |= TUN_F_CSUM;
    if (offloads & TT_TUN_OFFLOAD_SEGMENTATION) flags |= TUN_F_TSO4 | TUN_F_TSO6;
    return result(ioctl(device, TUNSETOFFLOAD, flags));
}

void tt_tun_frame_header_read(const void *frame, struct tt_tun_frame_header *header) {
    struct virtio_net_hdr raw;
    memcpy(&raw, frame, sizeof raw);
    header->is_segmented = raw.gso_type != VIRTIO_NET_HDR_GSO_NONE && raw.gso_size > 0;
    header->segment_bytes = raw.gso_size;
    header->transport_offset = raw.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? raw.csum_start : 0;
}

int tt_tun_socket(void) { return result(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

int tt_tun_set_mtu(int socket, const char *name, int mtu_bytes) {
    struct ifreq request = request_for(name);
    request.ifr_mtu = mtu_bytes;
    return result(ioctl(socket, SIOCSIFMTU, &request));
}

int tt_tun_set_queue_length(int socket, const char *name, int frames) {
    struct ifreq request = request_for(name);
    request.ifr_qlen = frames;
    return result(ioctl(socket, SIOCSIFTXQLEN, &request));
}

int tt_tun_set_up(int socket, const char *name) {
    struct ifreq request = request_for(name);
    if (ioctl(socket, SIOCGIFFLAGS, &request) < 0) return -errno;
    request.ifr_flags |= IFF_UP;
    return result(ioctl(socket, SIOCSIFFLAGS, &request));
}

static int set_inet(int socket, unsigned long code, const char *name, uint32_t value) {
    struct ifreq request = request_for(name);
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = value;
    return result(ioctl(socket, code, &request));
}

int tt_tun_set_address(int socket, const char *name, uint32_t address, int prefix_bits) {
    int error = set_inet(socket, SIOCSIFADDR, name, address);
    if (error < 0) return error;
    return set_inet(socket, SIOCSIFNETMASK, name, htonl(prefix_bits == 0 ? 0 : ~0u << (32 - prefix_bits)));
}

int tt_line_map_ring(size_t bytes, void **address) {
    int error = 0;
    int memory = memfd_create("lightpath-ring", MFD_CLOEXEC);
    if (memory < 0) return -errno;
    char *whole = MAP_FAILED;
    if (ftruncate(memory, (off_t)bytes) < 0) error = -errno;
    if (!error && (whole = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) error = -errno;
    for (int half = 0; half < 2 && !error; half++) {
        int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
        if (mmap(whole + (size_t)half * bytes, bytes, PROT_READ | PROT_WRITE, flags, memory, 0) == MAP_FAILED) error = -errno;
    }
    if (error && whole != MAP_FAILED) munmap(whole, 2 * bytes);
    close(memory);
    if (!error) *address = whole;
    return error;
}

int tt_line_event(void) { return result(eventfd(0, EFD_CLOEXEC)); }

int tt_line_signals(uint64_t mask_bits) {
    sigset_t mask;
    sigemptyset(&mask);
    for (int number = 1; number < 64; number++) {
        if (mask_bits >> number & 1) sigaddset(&mask, number);
    }
    int error = pthread_sigmask(SIG_BLOCK, &mask, NULL);
    return error ? -error : result(signalfd(-1, &mask, SFD_CLOEXEC));
}

int tt_line_timer_slack(unsigned long nanoseconds) { return result(prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)); }

int tt_line_thread_name(const char *name) { return -pthread_setname_np(pthread_self(), name); }
