#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "CTurntableVerbs.h"
#include "tt_loader.h"

const char *tt_device_name(struct ibv_context *context) { return tt_loaded.ibv_get_device_name(context->device); }

struct ibv_pd *tt_pd_open(struct ibv_context *context) { return tt_loaded.ibv_alloc_pd(context); }
int tt_pd_close(struct ibv_pd *pd) { return -tt_loaded.ibv_dealloc_pd(pd); }

struct ibv_comp_channel *tt_completion_channel_open(struct ibv_context *context) {
    struct ibv_comp_channel *channel = tt_loaded.ibv_create_comp_channel(context);
    if (channel) fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK);
    return channel;
}
int tt_completion_channel_descriptor(struct ibv_comp_channel *channel) { return channel->fd; }
int tt_completion_channel_close(struct ibv_comp_channel *channel) { return -tt_loaded.ibv_destroy_comp_channel(channel); }

struct ibv_cq *tt_cq_open(struct ibv_context *context, int entries, struct ibv_comp_channel *channel) {
    return tt_loaded.ibv_create_cq(context, entries, NULL, channel, 0);
}
int tt_cq_close(struct ibv_cq *cq) { return -tt_loaded.ibv_destroy_cq(cq); }

int tt_qp_open(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_cq *cq, int send_depth, int receive_depth) {
    struct ibv_qp_init_attr attributes = {
        .send_cq = cq,
        .recv_cq = cq,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = (uint32_t)send_depth, .max_recv_wr = (uint32_t)receive_depth, .max_send_sge = 1, .max_recv_sge = 1},
    };
    return tt_loaded.rdma_create_qp(id, pd, &attributes) == 0 ? 0 : -errno;
}
void tt_qp_close(struct rdma_cm_id *id) { tt_loaded.rdma_destroy_qp(id); }

struct ibv_mr *tt_mr_open(struct ibv_pd *pd, void *address, size_t bytes, int access, int *failure) {
    int flags = (access & tt_access_local_write ? IBV_ACCESS_LOCAL_WRITE : 0) | (access & tt_access_remote_write ? IBV_ACCESS_REMOTE_WRITE : 0) |
                (access & tt_access_on_demand ? IBV_ACCESS_ON_DEMAND : 0);
    struct ibv_mr *mr = tt_loaded.ibv_reg_mr(pd, address, bytes, flags);
    *failure = mr ? 0 : -errno;
    return mr;
}
int tt_mr_close(struct ibv_mr *mr) { return -tt_loaded.ibv_dereg_mr(mr); }
uint32_t tt_mr_local_key(struct ibv_mr *mr) { return mr->lkey; }
uint32_t tt_mr_remote_key(struct ibv_mr *mr) { return mr->rkey; }

int tt_post_writes(struct rdma_cm_id *id, const struct tt_write *writes, int count) {
    struct ibv_sge pieces[tt_writes_at_once];
    struct ibv_send_wr requests[tt_writes_at_once], *refused;
    if (count <= 0 || count > tt_writes_at_once) return -EINVAL;
    for (int index = 0; index < count; index++) {
        const struct tt_write *write = &writes[index];
        pieces[index] = (struct ibv_sge){.addr = write->local, .length = write->bytes, .lkey = write->local_key};
        requests[index] = (struct ibv_send_wr){
            .wr_id = write->work,
            .next = index + 1 < count ? &requests[index + 1] : NULL,
            .sg_list = &pieces[index],
            .num_sge = 1,
            .opcode = write->has_immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE,
            .send_flags = write->is_signaled ? IBV_SEND_SIGNALED : 0,
            .imm_data = htobe32(write->immediate),
            .wr.rdma = {.remote_addr = write->remote, .rkey = write->remote_key},
        };
    }
    return -ibv_post_send(id->qp, requests, &refused);
}

int tt_post_send(struct rdma_cm_id *id, const void *address, uint32_t bytes, uint32_t local_key, uint64_t work) {
    struct ibv_sge piece = {.addr = (uintptr_t)address, .length = bytes, .lkey = local_key};
    struct ibv_send_wr request = {.wr_id = work, .sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED}, *refused;
    return -ibv_post_send(id->qp, &request, &refused);
}

int tt_post_receive(struct rdma_cm_id *id, void *address, uint32_t bytes, uint32_t local_key, uint64_t work) {
    struct ibv_sge piece = {.addr = (uintptr_t)address, .length = bytes, .lkey = local_key};
    struct ibv_recv_wr request = {.wr_id = work, .sg_list = &piece, .num_sge = bytes ? 1 : 0}, *refused;
    return -ibv_post_recv(id->qp, &request, &refused);
}

static enum tt_completion_kind kind(const struct ibv_wc *wc) {
    switch (wc->opcode) {
        case IBV_WC_RDMA_WRITE: return tt_completed_write;
        case IBV_WC_SEND: return tt_completed_send;
        case IBV_WC_RECV: return tt_received_message;
        case IBV_WC_RECV_RDMA_WITH_IMM: return tt_received_immediate;
        default: return tt_completed_other;
    }
}

int tt_poll(struct ibv_cq *cq, struct tt_completion *completions, int capacity) {
    struct ibv_wc taken[64];
    int count = ibv_poll_cq(cq, capacity < 64 ? capacity : 64, taken);
    for (int index = 0; index < count; index++)
        completions[index] = (struct tt_completion){
            .work = taken[index].wr_id,
            .kind = kind(&taken[index]),
            .status = taken[index].status,
            .immediate = be32toh(taken[index].imm_data),
            .bytes = taken[index].byte_len,
        };
    return count < 0 ? -EIO : count;
}

const char *tt_status_text(int status) { return tt_loaded.ibv_wc_status_str((enum ibv_wc_status)status); }

int tt_arm(struct ibv_cq *cq) { return -ibv_req_notify_cq(cq, 0); }

void tt_disarm(struct ibv_comp_channel *channel) {
    struct ibv_cq *cq;
    void *context;
    while (tt_loaded.ibv_get_cq_event(channel, &cq, &context) == 0) tt_loaded.ibv_ack_cq_events(cq, 1);
}
