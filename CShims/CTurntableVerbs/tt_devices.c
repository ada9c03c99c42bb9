#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "CTurntableVerbs.h"
#include "tt_loader.h"

static int mtu_bytes(enum ibv_mtu mtu) { return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128 << mtu : 0; }

int tt_device_limits(struct ibv_context *context, struct tt_verbs_device *out) {
    struct ibv_device_attr limits;
    int failure = tt_loaded.ibv_query_device(context, &limits);
    if (failure) return -failure;
    out->largest_region_bytes = limits.max_mr_size;
    out->queue_pairs = limits.max_qp;
    out->send_depth = limits.max_qp_wr;
    out->completions = limits.max_cqe;
    out->regions = limits.max_mr;
    out->scatter = limits.max_sge;
    out->ports = limits.phys_port_cnt;
    return 0;
}

int tt_verbs_devices(struct tt_verbs_device *devices, int capacity) {
    int count = 0;
    struct ibv_device **list = tt_loaded.ibv_get_device_list(&count);
    if (!list) return errno == ENOSYS ? 0 : -errno;
    int described = 0;
    for (int index = 0; index < count && described < capacity; index++) {
        struct tt_verbs_device *out = &devices[described];
        memset(out, 0, sizeof *out);
        snprintf(out->name, sizeof out->name, "%s", tt_loaded.ibv_get_device_name(list[index]));
        struct ibv_context *context = tt_loaded.ibv_open_device(list[index]);
        if (!context) continue;
        if (tt_device_limits(context, out) == 0) described++;
        tt_loaded.ibv_close_device(context);
    }
    tt_loaded.ibv_free_device_list(list);
    return described;
}

static struct ibv_context *open_named(const char *name) {
    struct ibv_device **list = tt_loaded.ibv_get_device_list(NULL);
    struct ibv_context *context = NULL;
    for (struct ibv_device **device = list; list && *device && !context; device++)
        if (strcmp(tt_loaded.ibv_get_device_name(*device), name) == 0) context = tt_loaded.ibv_open_device(*device);
    if (list) tt_loaded.ibv_free_device_list(list);
    return context;
}

int tt_verbs_port(const char *device, int port, struct tt_verbs_port *out) {
    struct ibv_context *context = open_named(device);
    if (!context) return -ENODEV;
    struct ibv_port_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    int failure = tt_loaded.ibv_query_port(context, (uint8_t)port, (struct _compat_ibv_port_attr *)&attributes);
    tt_loaded.ibv_close_device(context);
    if (failure) return -failure;
    out->state = attributes.state;
    out->mtu_bytes = mtu_bytes(attributes.active_mtu);
    out->largest_mtu_bytes = mtu_bytes(attributes.max_mtu);
    out->is_ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
    out->gids = attributes.gid_tbl_len;
    return 0;
}

int tt_verbs_gid(const char *device, int port, int index, char *text) {
    struct ibv_context *context = open_named(device);
    if (!context) return -ENODEV;
    union ibv_gid gid;
    int failure = tt_loaded.ibv_query_gid(context, (uint8_t)port, index, &gid);
    tt_loaded.ibv_close_device(context);
    static const union ibv_gid none;
    if (failure || memcmp(&gid, &none, sizeof gid) == 0) return -ENOENT;
    inet_ntop(AF_INET6, gid.raw, text, INET6_ADDRSTRLEN);
    return 0;
}

// A number of /proc/self/status: bytes of a size in kB, else the value in that base; -1 if it is not there.
static int64_t status_number(const char *name, int base) {
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return -1;
    char line[256];
    int64_t value = -1;
    while (value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0) value = (int64_t)strtoull(line + strlen(name), NULL, base) * (strstr(line, " kB") ? 1024 : 1);
    fclose(file);
    return value;
}

int64_t tt_pinned_bytes(void) {
    int64_t bytes = status_number("VmPin:", 10);
    return bytes < 0 ? -ENOENT : bytes;
}

uint64_t tt_memlock_bytes(int *is_lifted) {
    enum { cap_ipc_lock = 14 };
    int64_t capabilities = status_number("CapEff:", 16);
    *is_lifted = capabilities >= 0 && (capabilities >> cap_ipc_lock & 1);
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}
