// Preloaded into an unmodified QEMU by `turntable run`. QEMU maps the memory files that Turntable made for its RAM;
// this registers each such mapping for asynchronous write protection, so that PAGEMAP_SCAN from outside sees what the
// guest writes (Linux 6.7, Documentation/admin-guide/mm/userfaultfd.rst). Only the process that owns a mapping can
// register it, which is why it happens in here. Nothing else of QEMU changes.
//
// Each mapping is reported as one line on the descriptor named by TURNTABLE_RAM_REPORT:
//   ok ADDRESS LENGTH NAME | error ERRNO STEP NAME
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tt_userfault.h"

static const char prefix[] = "/memfd:turntable:";

static void report(const char *line, int length) {
    const char *text = getenv("TURNTABLE_RAM_REPORT");
    if (text && length > 0) (void)!write(atoi(text), line, (size_t)length);
}

static void protect(void *address, size_t length, const char *name) {
    char line[256];
    const char *step;
    struct uffdio_register range = {.range = {(uint64_t)(uintptr_t)address, length},
                                    .mode = UFFDIO_REGISTER_MODE_WP};
    // The descriptor stays open for the life of the process: closing it would end the protection.
    int userfault = tt_open_userfault(&step);
    int error = userfault < 0 ? -userfault : 0;
    if (!error && ioctl(userfault, UFFDIO_REGISTER, &range)) {
        step = "UFFDIO_REGISTER";
        error = errno;
        close(userfault);
    }
    if (error) {
        report(line, snprintf(line, sizeof line, "error %d %s %s\n", error, step, name));
    } else {
        report(line, snprintf(line, sizeof line, "ok %p %zu %s\n", address, length, name));
    }
}

static void *mapped(void *address, size_t length, int flags, int fd) {
    if (address == MAP_FAILED || fd < 0 || !(flags & MAP_SHARED)) return address;
    int saved = errno;
    char link[64], target[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, target, sizeof target - 1);
    if (size > 0) {
        target[size] = 0;
        if (!strncmp(target, prefix, sizeof prefix - 1)) {
            char *end = strstr(target, " (deleted)");
            if (end) *end = 0;
            protect(address, length, target + sizeof prefix - 1);
        }
    }
    errno = saved;
    return address;
}

typedef void *map_function(void *, size_t, int, int, int, off_t);

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    static map_function *next;
    if (!next) next = (map_function *)dlsym(RTLD_NEXT, "mmap");
    return mapped(next(address, length, protection, flags, fd, offset), length, flags, fd);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    static map_function *next;
    if (!next) next = (map_function *)dlsym(RTLD_NEXT, "mmap64");
    return mapped(next(address, length, protection, flags, fd, offset), length, flags, fd);
}
