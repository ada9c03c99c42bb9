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
#include <stdio.h>
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

// A pipe cannot be peeked at, but its contents can be doubled into another, which is emptied each time.
static ssize_t peek_once(int file, void *bytes, size_t count, const int *copy) {
    ssize_t result = recv(file, bytes, count, MSG_PEEK);
    if (result >= 0 || errno != ENOTSOCK) return result < 0 ? -errno : result;
    ssize_t doubled = tee(file, copy[1], count, 0);
    if (doubled > 0) doubled = read(copy[0], bytes, (size_t)doubled);
    return doubled < 0 ? -errno : doubled;
}

ssize_t tt_xen_peek(int file, void *bytes, size_t count) {
    int copy[2];
    if (pipe2(copy, O_CLOEXEC) != 0) return -errno;
    ssize_t result = 0;
    for (;;) {
        // Before the look: what came before the other end left is seen by it.
        struct pollfd wait = {.fd = file, .events = POLLIN | POLLRDHUP};
        poll(&wait, 1, -1);
        result = peek_once(file, bytes, count, copy);
        if (result == -EINTR) continue;
        if (result <= 0 || (size_t)result == count || (wait.revents & (POLLHUP | POLLRDHUP))) break;
        // The rest is on its way.
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    close(copy[0]);
    close(copy[1]);
    return result;
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

// Copies until the input ends, or nobody takes the output.
static int copy(int from, int to, size_t skipped) {
    static char buffer[1 << 18];
    for (;;) {
        ssize_t count = read(from, buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return count < 0 ? -errno : 0;
        size_t start = (size_t)count < skipped ? (size_t)count : skipped;
        skipped -= start;
        while (start < (size_t)count) {
            ssize_t written = write(to, buffer + start, (size_t)count - start);
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) return -errno;
            start += (size_t)written;
        }
    }
}

pid_t tt_xen_start(const char *program, char **words, int stream_word, int stream, int messages) {
    static char name[16];
    snprintf(name, sizeof name, "%d", stream);
    words[stream_word] = name;
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fcntl(stream, F_SETFD, 0);
        if (messages >= 0 && (dup2(messages, STDIN_FILENO) < 0 || dup2(messages, STDOUT_FILENO) < 0)) _exit(127);
        execv(program, words);
        _exit(127);
    }
    return child;
}

int tt_xen_wait(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int tt_xen_run_into(const char *program, char **words, int stream_word, int stream, size_t skipped) {
    int way[2];
    if (pipe2(way, O_CLOEXEC) != 0) return -errno;
    pid_t child = tt_xen_start(program, words, stream_word, way[1], -1);
    close(way[1]);
    if (child < 0) {
        close(way[0]);
        return child;
    }
    int copied = copy(way[0], stream, skipped);
    close(way[0]);
    int code = tt_xen_wait(child);
    return copied < 0 ? copied : code;
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
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child > 0) {
        close(way[1]);
        stand_in_front(way[0], child);
    }
    close(way[0]);
    return way[1];
}

void tt_xen_let_go(int descriptor, int stream, uint8_t code) {
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    dup2(nothing, STDERR_FILENO);
    if (stream >= 0) dup2(nothing, stream);
    close(nothing);
    while (write(descriptor, &code, 1) < 0 && errno == EINTR) {}
    close(descriptor);
}
