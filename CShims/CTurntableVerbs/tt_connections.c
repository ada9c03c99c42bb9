#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "CTurntableVerbs.h"
#include "tt_loader.h"

static int outcome(int result) { return result == 0 ? 0 : -errno; }

struct rdma_event_channel *tt_cm_open(void) {
    struct rdma_event_channel *channel = tt_loaded.rdma_create_event_channel();
    if (channel) fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK);
    return channel;
}
int tt_cm_descriptor(struct rdma_event_channel *channel) { return channel->fd; }
void tt_cm_close(struct rdma_event_channel *channel) { tt_loaded.rdma_destroy_event_channel(channel); }

static enum tt_cm_kind kind(enum rdma_cm_event_type event) {
    switch (event) {
        case RDMA_CM_EVENT_ADDR_RESOLVED: return tt_cm_address_resolved;
        case RDMA_CM_EVENT_ROUTE_RESOLVED: return tt_cm_route_resolved;
        case RDMA_CM_EVENT_CONNECT_REQUEST: return tt_cm_requested;
        case RDMA_CM_EVENT_ESTABLISHED: return tt_cm_established;
        case RDMA_CM_EVENT_REJECTED: return tt_cm_rejected;
        case RDMA_CM_EVENT_ADDR_ERROR:
        case RDMA_CM_EVENT_ROUTE_ERROR:
        case RDMA_CM_EVENT_CONNECT_ERROR:
        case RDMA_CM_EVENT_UNREACHABLE: return tt_cm_unreachable;
        case RDMA_CM_EVENT_DISCONNECTED: return tt_cm_disconnected;
        case RDMA_CM_EVENT_DEVICE_REMOVAL: return tt_cm_device_removed;
        default: return tt_cm_other;
    }
}

int tt_cm_next(struct rdma_event_channel *channel, struct tt_cm_event *out) {
    struct rdma_cm_event *event;
    if (tt_loaded.rdma_get_cm_event(channel, &event)) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    out->kind = kind(event->event);
    out->id = event->id;
    out->status = event->status;
    out->text = tt_loaded.rdma_event_str(event->event);
    out->private_data_bytes = 0;
    if (event->param.conn.private_data && (out->kind == tt_cm_requested || out->kind == tt_cm_established || out->kind == tt_cm_rejected)) {
        out->private_data_bytes = event->param.conn.private_data_len;
        memcpy(out->private_data, event->param.conn.private_data, event->param.conn.private_data_len);
    }
    tt_loaded.rdma_ack_cm_event(event);
    return 1;
}

int tt_cm_create(struct rdma_event_channel *channel, struct rdma_cm_id **id) {
    return outcome(tt_loaded.rdma_create_id(channel, id, NULL, RDMA_PS_TCP));
}
void tt_cm_destroy(struct rdma_cm_id *id) { tt_loaded.rdma_destroy_id(id); }

static int address(const char *host, uint16_t port, int flags, struct sockaddr_storage *out) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_flags = flags, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, service, &hints, &found)) return -EADDRNOTAVAIL;
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

int tt_cm_listen(struct rdma_cm_id *id, const char *host, uint16_t port, int backlog) {
    struct sockaddr_storage where;
    int failure = address(host, port, AI_PASSIVE, &where);
    if (!failure) failure = outcome(tt_loaded.rdma_bind_addr(id, (struct sockaddr *)&where));
    return failure ? failure : outcome(tt_loaded.rdma_listen(id, backlog));
}

int tt_cm_resolve_address(struct rdma_cm_id *id, const char *host, uint16_t port, int milliseconds) {
    struct sockaddr_storage where;
    int failure = address(host, port, 0, &where);
    return failure ? failure : outcome(tt_loaded.rdma_resolve_addr(id, NULL, (struct sockaddr *)&where, milliseconds));
}

int tt_cm_set_acknowledgement_time(struct rdma_cm_id *id, uint8_t exponent) {
    return outcome(tt_loaded.rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &exponent, sizeof exponent));
}

int tt_cm_resolve_route(struct rdma_cm_id *id, int milliseconds) { return outcome(tt_loaded.rdma_resolve_route(id, milliseconds)); }

// Not ready is never for long: receives are posted before the peer may send. 7 means without end.
int tt_cm_connect(struct rdma_cm_id *id, const void *data, uint8_t bytes, uint8_t retries) {
    struct rdma_conn_param parameters = {.private_data = data, .private_data_len = bytes, .retry_count = retries, .rnr_retry_count = 6};
    return outcome(tt_loaded.rdma_connect(id, &parameters));
}

int tt_cm_accept(struct rdma_cm_id *id, const void *data, uint8_t bytes) {
    struct rdma_conn_param parameters = {.private_data = data, .private_data_len = bytes, .rnr_retry_count = 6};
    return outcome(tt_loaded.rdma_accept(id, &parameters));
}

int tt_cm_reject(struct rdma_cm_id *id, const void *data, uint8_t bytes) { return outcome(tt_loaded.rdma_reject(id, data, bytes)); }
int tt_cm_disconnect(struct rdma_cm_id *id) { return outcome(tt_loaded.rdma_disconnect(id)); }
struct ibv_context *tt_cm_context(struct rdma_cm_id *id) { return id->verbs; }

void tt_cm_peer(struct rdma_cm_id *id, char *text, size_t bytes) {
    if (getnameinfo(rdma_get_peer_addr(id), sizeof(struct sockaddr_storage), text, (socklen_t)bytes, NULL, 0, NI_NUMERICHOST))
        snprintf(text, bytes, "an unknown peer");
}

int tt_waker_open(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

void tt_wake(int waker) {
    uint64_t one = 1;
    // Full is awake.
    if (write(waker, &one, sizeof one) < 0) return;
}

int tt_wait_any(const int *descriptors, int count, int milliseconds) {
    struct pollfd entries[8];
    if (count > 8) return -EINVAL;
    for (int index = 0; index < count; index++) entries[index] = (struct pollfd){.fd = descriptors[index], .events = POLLIN};
    int ready = poll(entries, (nfds_t)count, milliseconds);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    int bits = 0;
    for (int index = 0; index < count; index++)
        if (entries[index].revents) bits |= 1 << index;
    return bits;
}
