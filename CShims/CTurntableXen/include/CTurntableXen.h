// Xen's toolstack libraries (libxenctrl, libxenguest, libxenforeignmemory, libxenstore) for Swift: their hypercall buffers are
// macros, and their types are C unions that do not import. Frames are guest frame numbers; a call gives a value or -errno.
// Not for several threads at once.
#ifndef CTURNTABLEXEN_H
#define CTURNTABLEXEN_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tt_xen;

struct tt_xen_domain {
    uint64_t pages;   // that it has
    uint64_t frames;  // of its physical memory's address space, most of which may be empty
    int is_hvm;       // hvm or pvh, in contrast to pv
    int has_device_model;  // hvm, in contrast to the others
    int is_shut_down;
    int is_dying;
};

struct tt_xen_tsc {
    uint32_t mode, khz, incarnation;
    uint64_t elapsed_ns;
};

// The version of the hypervisor that is running.
struct tt_xen_version {
    int major, minor;
};

int tt_xen_open(struct tt_xen **xen);
void tt_xen_close(struct tt_xen *xen);
int tt_xen_version(struct tt_xen *xen, struct tt_xen_version *version);
int tt_xen_domain(struct tt_xen *xen, uint32_t domain, struct tt_xen_domain *description);

// What xenstore has at a path, and the names below it, one a line; text of `bytes` bytes with its end. -ENOENT if there is nothing.
int tt_xen_store_read(struct tt_xen *xen, const char *path, char *text, size_t bytes);
int tt_xen_store_names(struct tt_xen *xen, const char *path, char *text, size_t bytes);

enum { tt_xen_frames_per_query = 1024 };
// Which of `count` frames, at most tt_xen_frames_per_query, are there: a byte for each.
int tt_xen_present(struct tt_xen *xen, uint32_t domain, uint64_t first, uint32_t count, uint8_t *is_present);
// How many frames of a pvh or hvm domain get memory when they are first used.
ssize_t tt_xen_on_demand(struct tt_xen *xen, uint32_t domain);
// Gives the domain memory at these frames.
int tt_xen_populate(struct tt_xen *xen, uint32_t domain, uint64_t first, uint32_t count);
// Maps frames to `address`, in the place of what is mapped there.
int tt_xen_map(struct tt_xen *xen, uint32_t domain, uint64_t first, size_t count, void *address, int is_writable);
// Puts a page of this process at `address` in address space that is reserved.
int tt_xen_cover(void *address);

// Dirty log. On: also if it was on already, as somebody who died left it.
int tt_xen_log_dirty(struct tt_xen *xen, uint32_t domain, int is_on);
// Fetches and clears the marks of frames 0..<count into words of 64; `is_last`: the domain is suspended for good.
int tt_xen_fetch_dirty(struct tt_xen *xen, uint32_t domain, uint64_t count, int is_last, uint64_t *words);

// CPU policy: what the guest was told of its processor, as two lists, opaque here. Gives the number of bytes.
ssize_t tt_xen_cpu_policy(struct tt_xen *xen, uint32_t domain, void *policy, size_t bytes);
int tt_xen_set_cpu_policy(struct tt_xen *xen, uint32_t domain, const void *policy, size_t bytes);

// What else of a suspended hvm or pvh domain is not memory.
int tt_xen_tsc(struct tt_xen *xen, uint32_t domain, struct tt_xen_tsc *tsc);
int tt_xen_set_tsc(struct tt_xen *xen, uint32_t domain, const struct tt_xen_tsc *tsc);
int tt_xen_parameter(struct tt_xen *xen, uint32_t domain, uint32_t parameter, uint64_t *value);
int tt_xen_set_parameter(struct tt_xen *xen, uint32_t domain, uint32_t parameter, uint64_t value);
ssize_t tt_xen_context(struct tt_xen *xen, uint32_t domain, void *context, size_t bytes);  // without a buffer: how many it takes
int tt_xen_set_context(struct tt_xen *xen, uint32_t domain, const void *context, size_t bytes);
int tt_xen_clear_frame(struct tt_xen *xen, uint32_t domain, uint64_t frame);
// Lets console and xenstore of the domain reach their rings; of a pv domain by frames of the host.
int tt_xen_seed_grants(
    struct tt_xen *xen, uint32_t domain, int is_hvm, uint64_t console, uint64_t store, uint32_t console_domain, uint32_t store_domain);
// Of a pv domain: the frame of its own that the host's frame `machine` is, by Xen's table of all the host's; and a frame of the host that is
// the domain's own `frame`, -ENOENT if that has no memory.
int tt_xen_own_frame(struct tt_xen *xen, uint64_t machine, uint64_t *frame);
int tt_xen_machine_frame(struct tt_xen *xen, uint32_t domain, uint64_t frame, uint64_t *machine);
// Lets a suspended domain run on, as if its suspend had been cancelled; without telling xenstore the next one would not be noticed.
int tt_xen_resume(struct tt_xen *xen, uint32_t domain);
// Lets a new domain run: all that libxl does for one without a device model.
int tt_xen_unpause(struct tt_xen *xen, uint32_t domain);

// The parameters that travel, and those that have a meaning here.
size_t tt_xen_moved_parameters(void);
uint32_t tt_xen_moved_parameter(size_t index);
extern const uint32_t tt_xen_store_frame, tt_xen_console_frame, tt_xen_request_frame, tt_xen_buffered_request_frame;
extern const uint32_t tt_xen_store_event, tt_xen_console_event;

// Address space of `bytes` bytes that reads as zero and takes no memory, to map frames into; NULL if there is none.
void *tt_xen_reserve(size_t bytes);

// Reads `count` bytes without taking them, from a socket or a pipe. Waits for them; fewer if the other end closed.
ssize_t tt_xen_peek(int file, void *bytes, size_t count);

// The addresses that this host can be reached by, one a line; of `bytes` bytes with the end.
int tt_xen_addresses(char *text, size_t bytes);

// Whether the other end of a stream, or of what is written to, is gone, without taking anything from it; waits at most so long for that.
int tt_xen_has_hung_up(int file, int milliseconds);

// Becomes another program; returns only if that fails.
int tt_xen_become(const char *program, char *const *words);

// Starts another program, for which words[stream_word] comes to name `stream`, and the socket `messages` is standard input and output, if it
// is none below 0. Gives the process, which is killed when the calling thread ends; its exit code when it has ended, 1 if it was killed.
pid_t tt_xen_start(const char *program, char **words, int stream_word, int stream, int messages);
int tt_xen_wait(pid_t child);

// Runs another program whose output, on the descriptor that words[stream_word] comes to name, goes to `stream` without its first
// `skipped` bytes. Gives its exit code when it has ended.
int tt_xen_run_into(const char *program, char **words, int stream_word, int stream, size_t skipped);

// Splits this process: the parent stays as the one that its caller waits for, the child returns with a descriptor. What the
// child writes there, one byte, is the exit code that the parent ends with at once, while the child goes on alone; a child
// that ends without it takes its parent along, and sees that its parent was killed by a hang-up of the descriptor. (A signal at the
// parent's death belongs to the thread that asked for it, and no other can take it back.)
int tt_xen_split(void);
// Says that byte, after what the caller waits for besides has been let go: the ends of its pipes, and of `stream` unless it is -1.
void tt_xen_let_go(int descriptor, int stream, uint8_t code);
#endif
