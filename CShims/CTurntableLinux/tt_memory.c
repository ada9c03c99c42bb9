#define _GNU_SOURCE
#include "tt_memory.h"
#include "tt_userfault.h"
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct pagemap_scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, struct pagemap_scan_argument)
#define PAGE_WRITTEN (1 << 1)
#define SCAN_WRITE_PROTECT_MATCHING (1 << 0)
#define SCAN_CHECK_ASYNC (1 << 1)

int tt_memfd(const char *name, unsigned huge_page_shift) {
    unsigned flags = MFD_CLOEXEC;
    if (huge_page_shift) flags |= MFD_HUGETLB | (huge_page_shift << MFD_HUGE_SHIFT);
    int fd = memfd_create(name, flags);
    return fd < 0 ? -errno : fd;
}

int tt_scan_written(int pagemap_fd, uint64_t start, uint64_t end, int clear, struct tt_page_region *regions,
                    size_t capacity, uint64_t *walked) {
    struct pagemap_scan_argument argument = {
        .size = sizeof argument,
        .flags = clear ? SCAN_WRITE_PROTECT_MATCHING | SCAN_CHECK_ASYNC : 0,
        .start = start,
        .end = end,
        .vec = (uint64_t)(uintptr_t)regions,
        .vec_len = capacity,
        .category_mask = PAGE_WRITTEN,
        .return_mask = PAGE_WRITTEN,
    };
    int count;
    do {
        count = ioctl(pagemap_fd, PAGEMAP_SCAN_REQUEST, &argument);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    *walked = argument.walk_end;
    return count;
}

int tt_probe_async_write_protect(void) {
    int result = 0;
    size_t length = (size_t)sysconf(_SC_PAGESIZE);
    const char *step;
    int userfault = tt_open_userfault(&step);
    if (userfault < 0) return userfault;
    close(userfault);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0) return -errno;
    void *page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        result = -errno;
    } else {
        struct tt_page_region region;
        uint64_t walked, start = (uint64_t)(uintptr_t)page;
        int count = tt_scan_written(pagemap, start, start + length, 0, &region, 1, &walked);
        if (count < 0) result = count;
        munmap(page, length);
    }
    close(pagemap);
    return result;
}

int64_t tt_read_at(int fd, void *buffer, size_t length, int64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t count = pread(fd, (char *)buffer + done, length - done, offset + (off_t)done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -errno;
        if (count == 0) break;
        done += (size_t)count;
    }
    return (int64_t)done;
}

int tt_write_text(int fd, const char *text) {
    ssize_t count;
    do {
        count = write(fd, text, strlen(text));
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : 0;
}

int tt_is_hugetlb(int fd) {
    struct statfs status;
    if (fstatfs(fd, &status)) return -errno;
    return status.f_type == HUGETLBFS_MAGIC;
}

// Bit 55 of a page's entry in its own process's page map, or -errno.
static int soft_dirty_bit(int pagemap, const volatile char *page, size_t page_bytes) {
    uint64_t entry = 0;
    int64_t count = tt_read_at(pagemap, &entry, sizeof entry, (int64_t)((uintptr_t)page / page_bytes * sizeof entry));
    if (count < 0) return (int)count;
    return (int)(entry >> 55 & 1);
}

int tt_probe_soft_dirty(void) {
    size_t length = (size_t)sysconf(_SC_PAGESIZE);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0) return -errno;
    int clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    int result = clear < 0 ? -errno : 0;
    volatile char *page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        if (!result) result = -errno;
    } else {
        page[0] = 1;
        if (!result) result = tt_write_text(clear, "4");
        int before = soft_dirty_bit(pagemap, page, length);
        page[0] = 2;
        int after = soft_dirty_bit(pagemap, page, length);
        if (!result && before < 0) result = before;
        if (!result && after < 0) result = after;
        if (!result && (before != 0 || after != 1)) result = -EOPNOTSUPP;
        munmap((void *)page, length);
    }
    if (clear >= 0) close(clear);
    close(pagemap);
    return result;
}

int tt_populate(int fd, int64_t offset, void *address, size_t length) {
    // Without a file system that can, the mapping alone does it.
    if (fallocate(fd, 0, offset, (off_t)length) && errno != EOPNOTSUPP) return -errno;
    return madvise(address, length, MADV_POPULATE_WRITE) ? -errno : 0;
}

int tt_is_zero(const volatile void *address, size_t length) {
    // GCC vector lanes let the compiler use the widest registers the build allows.
    typedef uint64_t lane __attribute__((vector_size(64), may_alias));
    const lane *block = (const lane *)address;
    if (*(const volatile uint64_t *)address) return 0;
    for (size_t i = 0; i < length / sizeof(lane); i++) {
        lane value = block[i];
        uint64_t any = 0;
        for (int k = 0; k < 8; k++) any |= value[k];
        if (any) return 0;
    }
    return 1;
}

static int64_t seek(int fd, int64_t offset, int whence) {
    off_t found = lseek(fd, offset, whence);
    return found < 0 ? -errno : found;
}
int tt_allocate(int fd, int64_t length) {
    while (fallocate(fd, 0, 0, length))
        if (errno != EINTR) return -errno;
    return 0;
}

int64_t tt_next_data(int fd, int64_t offset) { return seek(fd, offset, SEEK_DATA); }
int64_t tt_next_hole(int fd, int64_t offset) { return seek(fd, offset, SEEK_HOLE); }

uint64_t tt_available_memory(void) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return 0;
    char line[128];
    unsigned long long kib = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    fclose(file);
    return (uint64_t)kib * 1024;
}
