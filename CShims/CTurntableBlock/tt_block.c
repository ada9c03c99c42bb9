#define _GNU_SOURCE
#include "CTurntableBlock.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int tt_block_open(const char *path, int writable, int exclusive, int *is_direct) {
    int flags = (writable ? O_RDWR : O_RDONLY) | (exclusive ? O_EXCL : 0) | O_CLOEXEC;
    int fd = open(path, flags | O_DIRECT);
    *is_direct = 1;
    if (fd < 0 && errno == EINVAL) { // tmpfs before Linux 6.6
        *is_direct = 0;
        fd = open(path, flags);
    }
    return fd < 0 ? -errno : fd;
}

int tt_block_is_device(int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    return S_ISBLK(status.st_mode) ? 1 : S_ISREG(status.st_mode) ? 0 : -EINVAL;
}

int64_t tt_block_bytes(int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    if (!S_ISBLK(status.st_mode)) return status.st_size;
    uint64_t bytes = 0;
    return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}

int tt_block_number(int fd, unsigned *device_major, unsigned *device_minor) {
    struct stat status;
    if (fstat(fd, &status) < 0) return -errno;
    *device_major = major(status.st_rdev);
    *device_minor = minor(status.st_rdev);
    return 0;
}

int tt_block_inode(int fd, uint64_t *inode, uint64_t *birth) {
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) < 0) return -errno;
    *inode = status.stx_ino;
    *birth = (uint64_t)status.stx_btime.tv_sec * 1000000000 + status.stx_btime.tv_nsec;
    return 0;
}

int tt_block_hold(int fd) { return flock(fd, LOCK_EX | LOCK_NB) < 0 ? (errno == EWOULDBLOCK ? -EAGAIN : -errno) : 0; }

int tt_block_is_locked(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) < 0 ? -errno : lock.l_type != F_UNLCK;
}

int tt_block_write(int fd, const void *bytes, size_t length, int64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t count = pwrite(fd, (const char *)bytes + done, length - done, offset + (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? -errno : -ENOSPC;
        done += (size_t)count;
    }
    return 0;
}

static int write_zeroes(int fd, int64_t offset, int64_t length) {
    enum { piece = 1 << 20, alignment = 4096 };
    void *zeroes = NULL;
    if (posix_memalign(&zeroes, alignment, piece)) return -ENOMEM;
    memset(zeroes, 0, piece);
    int result = 0;
    while (length > 0 && result == 0) {
        size_t count = length < piece ? (size_t)length : piece;
        result = tt_block_write(fd, zeroes, count, offset);
        offset += (int64_t)count;
        length -= (int64_t)count;
    }
    free(zeroes);
    return result;
}

int tt_block_zero(int fd, int64_t offset, int64_t length) {
    const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    for (size_t index = 0; index < sizeof modes / sizeof *modes; index++) {
        int result;
        do {
            result = fallocate(fd, modes[index], offset, length);
        } while (result < 0 && errno == EINTR);
        if (result == 0) return 0;
        // EINVAL: the range is not of whole sectors, as at the end of an odd file.
        if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS) return -errno;
    }
    return write_zeroes(fd, offset, length);
}

int tt_block_sync(int fd) { return fsync(fd) < 0 ? -errno : 0; }
