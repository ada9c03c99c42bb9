// Block devices and device-mapper for Swift: ioctls are macros or variadic, and libdevmapper's tasks are a sequence of calls
// that each can fail without a reason. One prefix (tt_), a value or -errno back, no policy.
#ifndef CTURNTABLEBLOCK_H
#define CTURNTABLEBLOCK_H
#include <stddef.h>
#include <stdint.h>

// A device or file for direct I/O; *is_direct says 0 where a file system has none, and I/O then goes through the page cache.
// exclusive: O_EXCL, with which a device that is mounted or part of another gives EBUSY (open(2)).
int tt_block_open(const char *path, int writable, int exclusive, int *is_direct);
// 1 for a block device, 0 for a regular file, -EINVAL for anything else.
int tt_block_is_device(int fd);
int64_t tt_block_bytes(int fd);
// The number of a block device, split.
int tt_block_number(int fd, unsigned *device_major, unsigned *device_minor);
// What distinguishes a file from one that gets its number later: when it was made, in nanoseconds, as far as its file system knows.
int tt_block_inode(int fd, uint64_t *inode, uint64_t *birth);
// Holds a file against others that do the same, as long as it is open (flock): 0, or -EAGAIN. QEMU's locks are of another kind.
int tt_block_hold(int fd);
// Whether somebody has locked any part of a file as QEMU does (F_OFD_GETLK): 1 or 0.
int tt_block_is_locked(int fd);
// pwrite(2) until everything is written.
int tt_block_write(int fd, const void *bytes, size_t length, int64_t offset);
// Forgets length bytes, which then read as zero, without writing where the device or file system can: 0 or -errno.
int tt_block_zero(int fd, int64_t offset, int64_t length);
int tt_block_sync(int fd);

struct tt_dm_target {
    uint64_t sectors;
    char type[32];
    // Status or table line behind the type. Longer ones are cut off.
    char parameters[480];
};

// Of the first target of a device: its status, or with table what it was made of. -ENXIO: there is no such device. -ENODEV: this
// kernel has no device-mapper.
int tt_dm_target(const char *name, int table, struct tt_dm_target *target);
// How often a device is open. As tt_dm_target.
int tt_dm_open_count(unsigned device_major, unsigned device_minor);
// What a device is called, in at least 128 bytes. As tt_dm_target.
int tt_dm_name(unsigned device_major, unsigned device_minor, char *name, size_t capacity);
// Without what a suspend otherwise does first: freezing a file system on it.
int tt_dm_suspend(const char *name);
int tt_dm_resume(const char *name);
int tt_dm_message(const char *name, const char *message);
#endif
