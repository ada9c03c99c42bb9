// userfaultfd(2) for asynchronous write protection (Linux 6.7), whose flags Debian 12's headers lack. Shared with the
// library that is preloaded into QEMU. Can go with headers that have them.
#ifndef TT_USERFAULT_H
#define TT_USERFAULT_H
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

// A descriptor that can register shared memory, or -errno with *step naming what failed. User-mode faults only is enough:
// asynchronous protection never stops a thread, and it needs no privilege.
static inline int tt_open_userfault(const char **step) {
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
                                         UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    *step = "userfaultfd";
    if (fd < 0) return -errno;
    *step = "UFFDIO_API";
    if (!ioctl(fd, UFFDIO_API, &api)) return fd;
    int error = errno;
    close(fd);
    return -error;
}
#endif
