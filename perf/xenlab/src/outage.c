// outage ADDRESS INTERVAL_MS: asks ADDRESS by ping, and at SIGTERM prints the longest time from one answer to the next,
// {"answers":N,"longest_outage_ms":X,"began_s":CLOCK_REALTIME}. What a machine's peer on its network sees of a migration: the
// time between two packets of it, by one clock.
#include <arpa/inet.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t is_over;
static void end(int number) {
    (void)number;
    is_over = 1;
}

static int64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static uint16_t checksum(const uint16_t *words, int count) {
    uint32_t sum = 0;
    while (count-- > 0) sum += *words++;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int64_t interval = count == 3 ? atoi(words[2]) * INT64_C(1000000) : 0;
    if (interval <= 0 || inet_pton(AF_INET, words[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: outage ADDRESS INTERVAL_MS\n");
        return 2;
    }
    int socket_ = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (socket_ < 0 || connect(socket_, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("outage: socket");
        return 1;
    }
    signal(SIGTERM, end);
    struct sched_param priority = {.sched_priority = 10};
    sched_setscheduler(0, SCHED_FIFO, &priority);  // what it measures must not be its own wait for the processor
    int64_t next = now(CLOCK_MONOTONIC), last = 0, longest = 0, began = 0;
    long answers = 0;
    uint16_t identifier = (uint16_t)getpid(), number = 0;
    while (!is_over) {
        int64_t time = now(CLOCK_MONOTONIC);
        if (time >= next) {
            struct icmphdr request = {.type = ICMP_ECHO, .un.echo = {.id = identifier, .sequence = ++number}};
            request.checksum = checksum((const uint16_t *)&request, sizeof request / 2);
            (void)!send(socket_, &request, sizeof request, MSG_DONTWAIT);
            next = time + interval;
        }
        struct pollfd wait = {.fd = socket_, .events = POLLIN};
        if (poll(&wait, 1, (int)((next - time) / 1000000) + 1) <= 0) continue;
        uint8_t packet[256];
        ssize_t length = recv(socket_, packet, sizeof packet, 0);
        struct icmphdr *answer = (struct icmphdr *)(packet + (packet[0] & 15) * 4);
        if (length < 28 || answer->type != ICMP_ECHOREPLY || answer->un.echo.id != identifier) continue;
        time = now(CLOCK_MONOTONIC);
        if (answers++ > 0 && time - last > longest) {
            longest = time - last;
            began = now(CLOCK_REALTIME) - longest;
        }
        last = time;
    }
    printf("{\"answers\":%ld,\"longest_outage_ms\":%.1f,\"began_s\":%.3f}\n", answers, (double)longest / 1e6, (double)began / 1e9);
    return answers == 0;
}
