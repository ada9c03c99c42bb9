#define _GNU_SOURCE
#include "CTurntableXen.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void *tt_xen_reserve(size_t bytes) {
    void *address = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

// A pipe cannot be peeked at, but its contents can be doubled into another.
static ssize_t peek_pipe(int file, void *bytes, size_t count) {
    int copy[2];
    if (pipe2(copy, O_CLOEXEC) != 0) return -errno;
    ssize_t result = 0;
    for (;;) {
        struct pollfd wait = {.fd = file, .events = POLLIN};
        if (poll(&wait, 1, -1) < 0 && errno != EINTR) {
            result = -errno;
            break;
        }
        ssize_t doubled = tee(file, copy[1], count, 0);
        if (doubled < 0 && errno == EINTR) continue;
        result = doubled < 0 ? -errno : doubled > 0 ? read(copy[0], bytes, (size_t)doubled) : 0;
        if (result <= 0 || (size_t)result == count || (wait.revents & POLLHUP)) break;
        // The rest is on its way.
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    close(copy[0]);
    close(copy[1]);
    return result;
}

ssize_t tt_xen_peek(int file, void *bytes, size_t count) {
    ssize_t result;
    do result = recv(file, bytes, count, MSG_PEEK | MSG_WAITALL);
    while (result < 0 && errno == EINTR);
    if (result < 0 && errno == ENOTSOCK) return peek_pipe(file, bytes, count);
    return result < 0 ? -errno : result;
}

int tt_xen_addresses(char *text, size_t bytes) {
    struct ifaddrs *all;
    size_t used = 0;
    if (getifaddrs(&all) != 0) return -errno;
    for (struct ifaddrs *one = all; one; one = one->ifa_next) {
        char name[NI_MAXHOST];
        const struct sockaddr *address = one->ifa_addr;
        if (!address || !(one->ifa_flags & IFF_UP) || (one->ifa_flags & IFF_LOOPBACK)) continue;
        if (address->sa_family != AF_INET && address->sa_family != AF_INET6) continue;
        // An address that means something on one link only does not name this host elsewhere.
        if (address->sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)address)->sin6_addr)) continue;
        socklen_t length = address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (getnameinfo(address, length, name, sizeof name, NULL, 0, NI_NUMERICHOST) != 0) continue;
        size_t count = strlen(name);
        if (used + count + 2 > bytes) break;
        memcpy(text + used, name, count);
        text[used + count] = '\n';
        used += count + 1;
    }
    text[used] = 0;
    freeifaddrs(all);
    return 0;
}

int tt_xen_has_hung_up(int file, int milliseconds) {
    struct pollfd wait = {.fd = file, .events = POLLRDHUP};
    return poll(&wait, 1, milliseconds) > 0 && (wait.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

int tt_xen_become(const char *program, char *const *words) {
    execv(program, words);
    return -errno;
}

// What the parent does: waits for the child's byte or its end.
static _Noreturn void stand_in_front(int from_child, pid_t child) {
    uint8_t code;
    ssize_t count;
    do count = read(from_child, &code, 1);
    while (count < 0 && errno == EINTR);
    if (count == 1) _exit(code);
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    _exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

int tt_xen_split(void) {
    int way[2];
    if (pipe2(way, O_CLOEXEC) != 0) return -errno;
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child > 0) {
        close(way[1]);
        stand_in_front(way[0], child);
    }
    close(way[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // it was killed before that counted
    return way[1];
}

void tt_xen_let_go(int descriptor, int stream, uint8_t code) {
    prctl(PR_SET_PDEATHSIG, 0);
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    dup2(nothing, STDERR_FILENO);
    dup2(nothing, stream);
    close(nothing);
    while (write(descriptor, &code, 1) < 0 && errno == EINTR) {}
    close(descriptor);
}
