// RDMA: libibverbs and librdmacm, loaded when they are first asked for, so that a host without them runs everything else.
// Swift cannot import them: half of verbs is macros and inline functions over unions. No policy; a value, or -errno.
// Can go when there is a Swift package that loads them at run time.
#ifndef CTURNTABLEVERBS_H
#define CTURNTABLEVERBS_H
#include <stddef.h>
#include <stdint.h>

struct ibv_context;
struct ibv_pd;
struct ibv_mr;
struct ibv_cq;
struct ibv_comp_channel;
struct rdma_cm_id;
struct rdma_event_channel;

// Loads both libraries, once: 0, or -ENOENT with what the loader said in tt_verbs_load_error().
int tt_verbs_load(void);
const char *tt_verbs_load_error(void);

// MARK: Devices, for people

struct tt_verbs_device {
    char name[64];
    uint64_t largest_region_bytes;
    int queue_pairs, send_depth, completions, regions, scatter;
    int ports;
};
struct tt_verbs_port {
    int state;        // 4 is active
    int mtu_bytes;    // of the active MTU
    int largest_mtu_bytes;
    int is_ethernet;
    int gids;
};
// Devices that this process may open; at most capacity are described. Their number, or -errno.
int tt_verbs_devices(struct tt_verbs_device *devices, int capacity);
// Port 1 and above of the device of that name: 0 or -errno.
int tt_verbs_port(const char *device, int port, struct tt_verbs_port *out);
// The text of a GID, at most 46 bytes with its end; -ENOENT if that entry is empty.
int tt_verbs_gid(const char *device, int port, int index, char *text);
// RLIMIT_MEMLOCK of this process, UINT64_MAX if there is none; and whether CAP_IPC_LOCK lifts it.
uint64_t tt_memlock_bytes(int *is_lifted);
// Bytes that the kernel counts as pinned by this process (VmPin), or -errno.
int64_t tt_pinned_bytes(void);

// MARK: Connections

enum { tt_private_data_bytes = 56 };

enum tt_cm_kind {
    tt_cm_address_resolved, tt_cm_route_resolved, tt_cm_requested, tt_cm_established, tt_cm_rejected, tt_cm_unreachable,
    tt_cm_disconnected, tt_cm_device_removed, tt_cm_other
};
struct tt_cm_event {
    enum tt_cm_kind kind;
    struct rdma_cm_id *id;
    int status;
    const char *text;
    // The peer's, padded with zeroes by some devices: what is in it says how long it is.
    uint8_t private_data[256];
    int private_data_bytes;
};

struct rdma_event_channel *tt_cm_open(void);
int tt_cm_descriptor(struct rdma_event_channel *channel);
void tt_cm_close(struct rdma_event_channel *channel);
// The next event, taken over and acknowledged: 1, 0 if there is none, or -errno.
int tt_cm_next(struct rdma_event_channel *channel, struct tt_cm_event *event);

int tt_cm_create(struct rdma_event_channel *channel, struct rdma_cm_id **id);
void tt_cm_destroy(struct rdma_cm_id *id);
int tt_cm_listen(struct rdma_cm_id *id, const char *host, uint16_t port, int backlog);
int tt_cm_resolve_address(struct rdma_cm_id *id, const char *host, uint16_t port, int milliseconds);
// The line is given 4.096 us * 2^exponent for an acknowledgement. Before the route is resolved, or a request accepted.
int tt_cm_set_acknowledgement_time(struct rdma_cm_id *id, uint8_t exponent);
int tt_cm_resolve_route(struct rdma_cm_id *id, int milliseconds);
int tt_cm_connect(struct rdma_cm_id *id, const void *data, uint8_t bytes, uint8_t retries);
int tt_cm_accept(struct rdma_cm_id *id, const void *data, uint8_t bytes);
int tt_cm_reject(struct rdma_cm_id *id, const void *data, uint8_t bytes);
int tt_cm_disconnect(struct rdma_cm_id *id);
// The device it goes over, once an address is resolved or a request has come.
struct ibv_context *tt_cm_context(struct rdma_cm_id *id);
void tt_cm_peer(struct rdma_cm_id *id, char *text, size_t bytes);

// MARK: Queue pairs

const char *tt_device_name(struct ibv_context *context);
int tt_device_limits(struct ibv_context *context, struct tt_verbs_device *out);
struct ibv_pd *tt_pd_open(struct ibv_context *context);
int tt_pd_close(struct ibv_pd *pd);
struct ibv_comp_channel *tt_completion_channel_open(struct ibv_context *context);
int tt_completion_channel_descriptor(struct ibv_comp_channel *channel);
int tt_completion_channel_close(struct ibv_comp_channel *channel);
struct ibv_cq *tt_cq_open(struct ibv_context *context, int entries, struct ibv_comp_channel *channel);
int tt_cq_close(struct ibv_cq *cq);
// A reliable connection's queue pair, of the id: 0 or -errno.
int tt_qp_open(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_cq *cq, int send_depth, int receive_depth);
void tt_qp_close(struct rdma_cm_id *id);

// On demand nothing is pinned: the device asks for pages as it needs them. Few devices have it; others refuse.
enum { tt_access_local_write = 1, tt_access_remote_write = 2, tt_access_on_demand = 4 };
// Registers, and so pins, memory: the registration, or NULL with -errno in *failure.
struct ibv_mr *tt_mr_open(struct ibv_pd *pd, void *address, size_t bytes, int access, int *failure);
int tt_mr_close(struct ibv_mr *mr);
uint32_t tt_mr_local_key(struct ibv_mr *mr);
uint32_t tt_mr_remote_key(struct ibv_mr *mr);

struct tt_write {
    uint64_t local;
    uint64_t remote;
    uint64_t work;  // comes back with its completion
    uint32_t bytes;
    uint32_t local_key;
    uint32_t remote_key;
    uint32_t immediate;
    uint8_t has_immediate;
    uint8_t is_signaled;
};
enum { tt_writes_at_once = 64 };
// Posts RDMA WRITEs in order, at most tt_writes_at_once: 0 or -errno.
int tt_post_writes(struct rdma_cm_id *id, const struct tt_write *writes, int count);
int tt_post_send(struct rdma_cm_id *id, const void *address, uint32_t bytes, uint32_t local_key, uint64_t work);
// A buffer for one SEND of the peer, or none (bytes 0) for the completion of one WRITE with an immediate.
int tt_post_receive(struct rdma_cm_id *id, void *address, uint32_t bytes, uint32_t local_key, uint64_t work);

enum tt_completion_kind { tt_completed_write, tt_completed_send, tt_received_message, tt_received_immediate, tt_completed_other };
struct tt_completion {
    uint64_t work;
    enum tt_completion_kind kind;
    int status;  // 0 is success
    uint32_t immediate;
    uint32_t bytes;
};
enum { tt_status_flushed = 5, tt_status_remote_access = 10, tt_status_retries_exceeded = 12, tt_status_receiver_not_ready = 13 };
// Takes at most capacity completions: their number or -errno.
int tt_poll(struct ibv_cq *cq, struct tt_completion *completions, int capacity);
const char *tt_status_text(int status);
// The next completion makes the channel readable.
int tt_arm(struct ibv_cq *cq);
// Takes what made the channel readable.
void tt_disarm(struct ibv_comp_channel *channel);

// MARK: Waiting

// A descriptor that tt_wake makes readable, for ever; -errno.
int tt_waker_open(void);
void tt_wake(int waker);
// Waits until one of the descriptors is readable: a set of bits, 0 when the time is over, or -errno. -1 stands for none.
int tt_wait_any(const int *descriptors, int count, int milliseconds);
#endif
