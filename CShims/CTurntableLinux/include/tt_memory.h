// Memory we own and its dirty log.
// PAGEMAP_SCAN and asynchronous write protection are Linux 6.7; Debian 12's headers are 6.1. The declarations can go
// with headers that have them. Source: Documentation/admin-guide/mm/pagemap.rst and userfaultfd.rst.
#ifndef TT_MEMORY_H
#define TT_MEMORY_H
#include <stddef.h>
#include <stdint.h>

struct tt_page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

// memfd_create(2): the descriptor, or -errno. huge_page_shift 0 means ordinary pages.
int tt_memfd(const char *name, unsigned huge_page_shift);

// One PAGEMAP_SCAN over [start, end) of the process behind pagemap_fd: fetches the written ranges and, with clear,
// write-protects them again in the same step. Fills at most capacity regions and sets *walked to where it stopped.
// The number of regions, or -errno.
int tt_scan_written(int pagemap_fd, uint64_t start, uint64_t end, int clear, struct tt_page_region *regions,
                    size_t capacity, uint64_t *walked);

// Whether this kernel offers asynchronous write protection on shared memory: 0, or -errno of the step that failed.
int tt_probe_async_write_protect(void);

// Whether this kernel keeps soft-dirty bits (CONFIG_MEM_SOFT_DIRTY), tried on a page of shared memory: 0, or -errno of the
// step that failed; -EOPNOTSUPP if the bit does not follow what is written. Forgets this process's own bits.
int tt_probe_soft_dirty(void);

// pread(2) until length bytes are there or the file ends, past signals: the bytes read, or -errno.
int64_t tt_read_at(int fd, void *buffer, size_t length, int64_t offset);

// Writes text in one write(2), as files of /proc want it: 0 or -errno.
int tt_write_text(int fd, const char *text);

// Whether a descriptor is a file of huge pages (hugetlbfs): 1, 0 or -errno.
int tt_is_hugetlb(int fd);

// Backs length bytes at offset of a memory file, mapped at address, with memory: fallocate(2) for the pages and
// MADV_POPULATE_WRITE (Linux 5.14) for the mapping, which together take half the time of faulting. 0 or -errno.
int tt_populate(int fd, int64_t offset, void *address, size_t length);

// Whether length bytes (a multiple of 64, aligned to 64) at address are all zero. The memory may change meanwhile;
// the answer is then about no single instant, which the dirty log makes up for.
int tt_is_zero(const volatile void *address, size_t length);

// Has the file system keep room for the first length bytes of a file, and makes it that long. fallocate(2), which Swift's
// Glibc lacks; posix_fallocate(3) would write where the file system cannot.
int tt_allocate(int fd, int64_t length);

// Where data, or a hole, begins in a file at or after offset (lseek SEEK_DATA, SEEK_HOLE); -ENXIO past the last.
int64_t tt_next_data(int fd, int64_t offset);
int64_t tt_next_hole(int fd, int64_t offset);

// Bytes of memory the kernel says can be had without swapping (sysinfo), or 0.
uint64_t tt_available_memory(void);
#endif
