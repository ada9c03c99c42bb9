// The libraries' functions by their own names, each a pointer that tt_verbs_load() fills.
#ifndef TT_LOADER_H
#define TT_LOADER_H
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
// Macros over functions of later versions; the plain functions do all that is needed here.
#undef ibv_reg_mr
#undef ibv_query_port

#define TT_VERBS(X) \
    X(ibv_get_device_list) X(ibv_free_device_list) X(ibv_get_device_name) X(ibv_open_device) X(ibv_close_device) X(ibv_query_device) \
    X(ibv_query_port) X(ibv_query_gid) X(ibv_alloc_pd) X(ibv_dealloc_pd) X(ibv_reg_mr) X(ibv_dereg_mr) X(ibv_create_comp_channel) \
    X(ibv_destroy_comp_channel) X(ibv_create_cq) X(ibv_destroy_cq) X(ibv_get_cq_event) X(ibv_ack_cq_events) X(ibv_wc_status_str)
#define TT_RDMACM(X) \
    X(rdma_create_event_channel) X(rdma_destroy_event_channel) X(rdma_create_id) X(rdma_destroy_id) X(rdma_bind_addr) X(rdma_listen) \
    X(rdma_resolve_addr) X(rdma_resolve_route) X(rdma_set_option) X(rdma_create_qp) X(rdma_destroy_qp) X(rdma_connect) X(rdma_accept) \
    X(rdma_reject) X(rdma_disconnect) X(rdma_get_cm_event) X(rdma_ack_cm_event) X(rdma_event_str)

struct tt_loaded {
#define TT_DECLARE(name) __typeof__(name) *name;
    TT_VERBS(TT_DECLARE)
    TT_RDMACM(TT_DECLARE)
#undef TT_DECLARE
};
extern struct tt_loaded tt_loaded;
#endif
