#define _GNU_SOURCE
#include "CTurntableXen.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>
#include <xenstore.h>
#include <xen/hvm/params.h>

// Exported by libxenctrl 4.17 and declared in none of its headers.
int xc_get_pfn_type_batch(xc_interface *xch, uint32_t dom, unsigned int num, xen_pfn_t *arr);

struct tt_xen {
    xc_interface *control;
    xenforeignmemory_handle *memory;
    struct xs_handle *store;
    // Dirty marks as the hypervisor writes them; made at the first fetch.
    xc_hypercall_buffer_t marks_buffer;
    void *marks;
    size_t marks_pages;
    // Xen's table of the host's frames, by their numbers: which frame of its owner's each is. Mapped at the first question.
    const xen_pfn_t *owners_frames;
    unsigned long host_frames;
};

static int failure(void) { return errno ? -errno : -EIO; }

int tt_xen_open(struct tt_xen **xen) {
    struct tt_xen *opened = calloc(1, sizeof *opened);
    if (!opened) return -ENOMEM;
    opened->control = xc_interface_open(NULL, NULL, 0);
    opened->memory = opened->control ? xenforeignmemory_open(NULL, 0) : NULL;
    opened->store = opened->memory ? xs_open(0) : NULL;
    if (!opened->store) {
        int error = failure();
        tt_xen_close(opened);
        return error;
    }
    *xen = opened;
    return 0;
}

static void free_marks(struct tt_xen *xen) {
    if (!xen->marks) return;
    xc__hypercall_buffer_free_pages(xen->control, &xen->marks_buffer, (int)xen->marks_pages);
    xen->marks = NULL;
}

// The table's pieces are of 2 MiB.
static size_t owners_bytes(unsigned long frames) { return (frames * sizeof(xen_pfn_t) + (2 << 20) - 1) & ~((size_t)(2 << 20) - 1); }

void tt_xen_close(struct tt_xen *xen) {
    free_marks(xen);
    if (xen->owners_frames) munmap((void *)(uintptr_t)xen->owners_frames, owners_bytes(xen->host_frames));
    if (xen->store) xs_close(xen->store);
    if (xen->memory) xenforeignmemory_close(xen->memory);
    if (xen->control) xc_interface_close(xen->control);
    free(xen);
}

int tt_xen_version(struct tt_xen *xen, struct tt_xen_version *version) {
    int found = xc_version(xen->control, XENVER_version, NULL);
    if (found < 0) return failure();
    version->major = found >> 16;
    version->minor = found & 0xffff;
    return 0;
}

int tt_xen_domain(struct tt_xen *xen, uint32_t domain, struct tt_xen_domain *description) {
    xc_domaininfo_t found;
    xen_pfn_t frames = 0;
    if (xc_domain_getinfolist(xen->control, domain, 1, &found) != 1 || found.domain != domain) return -ESRCH;
    if (xc_domain_nr_gpfns(xen->control, domain, &frames) < 0) return failure();
    int is_hvm = (found.flags & XEN_DOMINF_hvm_guest) != 0;
    *description = (struct tt_xen_domain){
        .pages = found.tot_pages, .frames = frames, .is_hvm = is_hvm,
        // Of a pvh domain only the local interrupt controller is emulated, and that by Xen.
        .has_device_model = is_hvm && (found.arch_config.emulation_flags & ~XEN_X86_EMU_LAPIC) != 0,
        .is_shut_down = (found.flags & XEN_DOMINF_shutdown) != 0, .is_dying = (found.flags & XEN_DOMINF_dying) != 0};
    return 0;
}

int tt_xen_store_read(struct tt_xen *xen, const char *path, char *text, size_t bytes) {
    unsigned int length;
    char *found = xs_read(xen->store, XBT_NULL, path, &length);
    if (!found) return failure();
    int fits = length < bytes;
    if (fits) memcpy(text, found, length), text[length] = 0;
    free(found);
    return fits ? 0 : -ENAMETOOLONG;
}

int tt_xen_store_names(struct tt_xen *xen, const char *path, char *text, size_t bytes) {
    unsigned int count;
    char **names = xs_directory(xen->store, XBT_NULL, path, &count);
    if (!names) return failure();
    size_t end = 0;
    for (unsigned int index = 0; index < count && end < bytes; index++)
        end += (size_t)snprintf(text + end, bytes - end, "%s\n", names[index]);
    free(names);
    if (end >= bytes) return -ENAMETOOLONG;
    text[end] = 0;
    return 0;
}

int tt_xen_present(struct tt_xen *xen, uint32_t domain, uint64_t first, uint32_t count, uint8_t *is_present) {
    xen_pfn_t types[tt_xen_frames_per_query];
    if (count > tt_xen_frames_per_query) return -EINVAL;
    for (uint32_t index = 0; index < count; index++) types[index] = first + index;
    if (xc_get_pfn_type_batch(xen->control, domain, count, types) != 0) return failure();
    // Above are what is broken, what is not there and what is yet to be.
    for (uint32_t index = 0; index < count; index++) is_present[index] = (types[index] & XEN_DOMCTL_PFINFO_LTAB_MASK) < XEN_DOMCTL_PFINFO_BROKEN;
    return 0;
}

ssize_t tt_xen_on_demand(struct tt_xen *xen, uint32_t domain) {
    uint64_t pages, cached, on_demand;
    if (xc_domain_get_pod_target(xen->control, domain, &pages, &cached, &on_demand) < 0) return failure();
    return (ssize_t)on_demand;
}

enum { frames_at_once = 4096 };

int tt_xen_populate(struct tt_xen *xen, uint32_t domain, uint64_t first, uint32_t count) {
    xen_pfn_t frames[frames_at_once];
    for (uint32_t done = 0, now; done < count; done += now) {
        now = count - done < frames_at_once ? count - done : frames_at_once;
        for (uint32_t index = 0; index < now; index++) frames[index] = first + done + index;
        errno = 0;
        // Without an errno it got fewer than it wanted.
        if (xc_domain_populate_physmap_exact(xen->control, domain, now, 0, 0, frames) != 0) return errno ? -errno : -ENOMEM;
    }
    return 0;
}

int tt_xen_map(struct tt_xen *xen, uint32_t domain, uint64_t first, size_t count, void *address, int is_writable) {
    xen_pfn_t frames[frames_at_once];
    int errors[frames_at_once];
    for (size_t done = 0, now; done < count; done += now) {
        now = count - done < frames_at_once ? count - done : frames_at_once;
        for (size_t index = 0; index < now; index++) frames[index] = first + done + index;
        char *place = (char *)address + done * XC_PAGE_SIZE;
        void *mapped = xenforeignmemory_map2(
            xen->memory, domain, place, PROT_READ | (is_writable ? PROT_WRITE : 0), MAP_FIXED, now, frames, errors);
        if (mapped != place) return failure();
        for (size_t index = 0; index < now; index++)
            if (errors[index] != 0) return errors[index];
    }
    return 0;
}

int tt_xen_cover(void *address) {
    void *covered = mmap(address, XC_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return covered == address ? 0 : -errno;
}

int tt_xen_log_dirty(struct tt_xen *xen, uint32_t domain, int is_on) {
    if (!is_on) return xc_shadow_control(xen->control, domain, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) < 0 ? failure() : 0;
    if (xc_shadow_control(xen->control, domain, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0) >= 0) return 0;
    if (xc_shadow_control(xen->control, domain, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) < 0) return failure();
    return xc_shadow_control(xen->control, domain, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0) < 0 ? failure() : 0;
}

int tt_xen_fetch_dirty(struct tt_xen *xen, uint32_t domain, uint64_t count, int is_last, uint64_t *words) {
    size_t bytes = (count + 63) / 64 * sizeof *words;
    size_t pages = (bytes + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE;
    if (xen->marks_pages != pages) free_marks(xen);
    if (!xen->marks) {
        xen->marks_buffer = (xc_hypercall_buffer_t){.ubuf = (void *)-1};  // no buffer of ours behind it
        xen->marks = xc__hypercall_buffer_alloc_pages(xen->control, &xen->marks_buffer, (int)pages);
        if (!xen->marks) return -ENOMEM;
        xen->marks_pages = pages;
    }
    xc_shadow_op_stats_t unused;
    long long fetched = xc_logdirty_control(
        xen->control, domain, XEN_DOMCTL_SHADOW_OP_CLEAN, &xen->marks_buffer, count, is_last ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0, &unused);
    if (fetched < 0) return failure();
    if ((uint64_t)fetched != count) return -EIO;
    memcpy(words, xen->marks, bytes);
    return 0;
}

// A policy = bytes of leaves u32 | bytes of registers u32 | leaves | registers
ssize_t tt_xen_cpu_policy(struct tt_xen *xen, uint32_t domain, void *policy, size_t bytes) {
    uint32_t leaves = 0, registers = 0;
    xc_cpu_policy_t *found = xc_cpu_policy_init();
    if (!found) return -ENOMEM;
    ssize_t result = -EIO;
    xen_cpuid_leaf_t *leaf = NULL;
    xen_msr_entry_t *entry = NULL;
    if (xc_cpu_policy_get_size(xen->control, &leaves, &registers) == 0) {
        leaf = calloc(leaves + 1, sizeof *leaf);
        entry = calloc(registers + 1, sizeof *entry);
    }
    if (leaf && entry && xc_cpu_policy_get_domain(xen->control, domain, found) == 0 &&
        xc_cpu_policy_serialise(xen->control, found, leaf, &leaves, entry, &registers) == 0) {
        uint32_t sizes[2] = {(uint32_t)(leaves * sizeof *leaf), (uint32_t)(registers * sizeof *entry)};
        size_t total = sizeof sizes + sizes[0] + sizes[1];
        if (total <= bytes) {
            char *next = policy;
            memcpy(next, sizes, sizeof sizes);
            memcpy(next + sizeof sizes, leaf, sizes[0]);
            memcpy(next + sizeof sizes + sizes[0], entry, sizes[1]);
        }
        result = total <= bytes ? (ssize_t)total : -ENOBUFS;
    }
    free(leaf);
    free(entry);
    xc_cpu_policy_destroy(found);
    return result;
}

int tt_xen_set_cpu_policy(struct tt_xen *xen, uint32_t domain, const void *policy, size_t bytes) {
    uint32_t sizes[2], bad_leaf, bad_subleaf, bad_register;
    if (bytes < sizeof sizes) return -EINVAL;
    memcpy(sizes, policy, sizeof sizes);
    if (bytes - sizeof sizes != (size_t)sizes[0] + sizes[1] || sizes[0] % sizeof(xen_cpuid_leaf_t) || sizes[1] % sizeof(xen_msr_entry_t))
        return -EINVAL;
    // Copies, for the lists may lie anywhere in a message.
    xen_cpuid_leaf_t *leaf = malloc(sizes[0] + 1);
    xen_msr_entry_t *entry = malloc(sizes[1] + 1);
    int result = -ENOMEM;
    if (leaf && entry) {
        memcpy(leaf, (const char *)policy + sizeof sizes, sizes[0]);
        memcpy(entry, (const char *)policy + sizeof sizes + sizes[0], sizes[1]);
        result = xc_set_domain_cpu_policy(
            xen->control, domain, (uint32_t)(sizes[0] / sizeof *leaf), leaf, (uint32_t)(sizes[1] / sizeof *entry), entry, &bad_leaf,
            &bad_subleaf, &bad_register);
        if (result != 0) result = failure();
    }
    free(leaf);
    free(entry);
    return result;
}

int tt_xen_tsc(struct tt_xen *xen, uint32_t domain, struct tt_xen_tsc *tsc) {
    return xc_domain_get_tsc_info(xen->control, domain, &tsc->mode, &tsc->elapsed_ns, &tsc->khz, &tsc->incarnation) < 0 ? failure() : 0;
}

int tt_xen_set_tsc(struct tt_xen *xen, uint32_t domain, const struct tt_xen_tsc *tsc) {
    return xc_domain_set_tsc_info(xen->control, domain, tsc->mode, tsc->elapsed_ns, tsc->khz, tsc->incarnation) < 0 ? failure() : 0;
}

int tt_xen_parameter(struct tt_xen *xen, uint32_t domain, uint32_t parameter, uint64_t *value) {
    return xc_hvm_param_get(xen->control, domain, parameter, value) < 0 ? failure() : 0;
}

int tt_xen_set_parameter(struct tt_xen *xen, uint32_t domain, uint32_t parameter, uint64_t value) {
    return xc_hvm_param_set(xen->control, domain, parameter, value) < 0 ? failure() : 0;
}

ssize_t tt_xen_context(struct tt_xen *xen, uint32_t domain, void *context, size_t bytes) {
    int count = xc_domain_hvm_getcontext(xen->control, domain, context, (uint32_t)bytes);
    return count < 0 ? failure() : count;
}

int tt_xen_set_context(struct tt_xen *xen, uint32_t domain, const void *context, size_t bytes) {
    // It is only read; the library's signature says otherwise.
    return xc_domain_hvm_setcontext(xen->control, domain, (uint8_t *)(uintptr_t)context, (uint32_t)bytes) < 0 ? failure() : 0;
}

int tt_xen_clear_frame(struct tt_xen *xen, uint32_t domain, uint64_t frame) {
    return xc_clear_domain_page(xen->control, domain, frame) < 0 ? failure() : 0;
}

int tt_xen_seed_grants(
    struct tt_xen *xen, uint32_t domain, int is_hvm, uint64_t console, uint64_t store, uint32_t console_domain, uint32_t store_domain) {
    return xc_dom_gnttab_seed(xen->control, domain, is_hvm != 0, console, store, console_domain, store_domain) < 0 ? failure() : 0;
}

static int map_owners_frames(struct tt_xen *xen) {
    unsigned long last;
    if (xen->owners_frames) return 0;
    if (xc_maximum_ram_page(xen->control, &last) < 0) return failure();
    xen->host_frames = last + 1;
    xen->owners_frames = xc_map_m2p(xen->control, xen->host_frames, PROT_READ, NULL);
    return xen->owners_frames ? 0 : failure();
}

int tt_xen_own_frame(struct tt_xen *xen, uint64_t machine, uint64_t *frame) {
    int result = map_owners_frames(xen);
    if (result < 0) return result;
    if (machine >= xen->host_frames) return -ERANGE;
    *frame = xen->owners_frames[machine];
    return 0;
}

int tt_xen_machine_frame(struct tt_xen *xen, uint32_t domain, uint64_t frame, uint64_t *machine) {
    int result = map_owners_frames(xen);
    for (uint64_t one = 0; result == 0 && one < xen->host_frames; one++) {
        uint8_t is_its = 0;
        if (xen->owners_frames[one] != frame) continue;
        // Others' frames have the same number.
        result = tt_xen_present(xen, domain, one, 1, &is_its);
        if (result == 0 && is_its) {
            *machine = one;
            return 0;
        }
    }
    return result < 0 ? result : -ENOENT;
}

int tt_xen_resume(struct tt_xen *xen, uint32_t domain) {
    if (xc_domain_resume(xen->control, domain, 1) < 0) return failure();
    return xs_resume_domain(xen->store, domain) ? 0 : failure();
}

int tt_xen_unpause(struct tt_xen *xen, uint32_t domain) { return xc_domain_unpause(xen->control, domain) < 0 ? failure() : 0; }

static const uint32_t moved_parameters[] = {
    HVM_PARAM_STORE_PFN,        HVM_PARAM_IOREQ_PFN,        HVM_PARAM_BUFIOREQ_PFN,         HVM_PARAM_PAGING_RING_PFN,
    HVM_PARAM_MONITOR_RING_PFN, HVM_PARAM_SHARING_RING_PFN, HVM_PARAM_VM86_TSS_SIZED,       HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_ACPI_IOPORTS_LOCATION, HVM_PARAM_VIRIDIAN,    HVM_PARAM_IDENT_PT,             HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_IOREQ_SERVER_PFN, HVM_PARAM_NR_IOREQ_SERVER_PAGES, HVM_PARAM_X87_FIP_WIDTH,   HVM_PARAM_MCA_CAP};
size_t tt_xen_moved_parameters(void) { return sizeof moved_parameters / sizeof *moved_parameters; }
uint32_t tt_xen_moved_parameter(size_t index) { return moved_parameters[index]; }

const uint32_t tt_xen_store_frame = HVM_PARAM_STORE_PFN, tt_xen_console_frame = HVM_PARAM_CONSOLE_PFN;
const uint32_t tt_xen_request_frame = HVM_PARAM_IOREQ_PFN, tt_xen_buffered_request_frame = HVM_PARAM_BUFIOREQ_PFN;
const uint32_t tt_xen_store_event = HVM_PARAM_STORE_EVTCHN, tt_xen_console_event = HVM_PARAM_CONSOLE_EVTCHN;
