// hostclock serve PORT          answers with this host's CLOCK_REALTIME
// hostclock ask ADDRESS PORT    prints how far that host's clock is ahead of this one's, in microseconds
// hostclock set ADDRESS PORT    steps this host's clock by that
//
// A dom0 that sets its clock sets Xen's wall clock, which is what a guest goes by after it was moved. Of the exchanges the
// quickest counts, as its answer was made nearest to the middle.
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { exchanges = 60, attempts = 3 };

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void step(int64_t nanoseconds) {
    int64_t to = now() + nanoseconds;
    struct timespec time = {.tv_sec = to / 1000000000, .tv_nsec = to % 1000000000};
    if (clock_settime(CLOCK_REALTIME, &time) != 0) {
        perror("hostclock: clock_settime");
        exit(1);
    }
}

static _Noreturn void serve(int socket) {
    for (;;) {
        uint32_t number;
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        if (recvfrom(socket, &number, sizeof number, 0, (struct sockaddr *)&from, &length) != sizeof number) continue;
        struct {
            uint32_t number, unused;
            int64_t time;
        } answer = {number, 0, now()};
        sendto(socket, &answer, sizeof answer, 0, (struct sockaddr *)&from, length);
    }
}

// How far the other clock is ahead of ours.
static int64_t ahead(int socket) {
    static uint32_t number;
    int64_t best_time = INT64_MAX, best = 0;
    for (int exchange = 0; exchange < exchanges; exchange++) {
        struct {
            uint32_t number, unused;
            int64_t time;
        } answer;
        number++;
        int64_t sent = now();
        if (send(socket, &number, sizeof number, 0) < 0) continue;
        // An answer that came too late, as the first may, for the other's address is asked for, is not this one's.
        ssize_t length;
        do length = recv(socket, &answer, sizeof answer, 0);
        while (length == sizeof answer && answer.number != number);
        if (length != sizeof answer) continue;
        int64_t arrived = now();
        if (arrived - sent < best_time) {
            best_time = arrived - sent;
            best = answer.time - (sent + arrived) / 2;
        }
    }
    if (best_time == INT64_MAX) {
        fprintf(stderr, "hostclock: no answer\n");
        exit(1);
    }
    return best;
}

int main(int count, char **words) {
    int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (count == 3 && strcmp(words[1], "serve") == 0) {
        address.sin_port = htons((uint16_t)atoi(words[2]));
        if (bind(socket_, (struct sockaddr *)&address, sizeof address) != 0) {
            perror("hostclock: bind");
            return 1;
        }
        serve(socket_);
    }
    if (count != 4 || (strcmp(words[1], "set") != 0 && strcmp(words[1], "ask") != 0) || inet_pton(AF_INET, words[2], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: hostclock serve PORT | hostclock ask|set ADDRESS PORT\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(words[3]));
    struct timeval patience = {.tv_usec = 500000};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    connect(socket_, (struct sockaddr *)&address, sizeof address);
    if (strcmp(words[1], "set") == 0) {
        for (int attempt = 0; attempt < attempts; attempt++) step(ahead(socket_));
        return 0;
    }
    printf("%" PRId64 "\n", ahead(socket_) / 1000);
}
