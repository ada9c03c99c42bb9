// talk PORT: a TCP session that outlives a migration, and a file that does. Every line that a client sends comes back with
// the count of lines so far; a record of it is appended to a file, and once a second the whole file is read again and
// compared. One client at a time: a new one takes the place of the old one, which may be gone without a word.
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

static const char path[] = "/tmp/talk.log";
enum { records_max = 16384, request_bytes_max = 100, record_bytes = 64 };

static uint64_t lines;             // since the start: what the client sees
static uint32_t records;           // in the file
static uint64_t first_in_file;     // the count of its first record
static int file;

static _Noreturn void fail(const char *what, uint64_t value) {
    printf("{\"talk\":\"failed\",\"what\":\"%s\",\"value\":%llu,\"errno\":%d}\n", what, (unsigned long long)value, errno);
    exit(1);
}

static void format_record(char *record, uint64_t number) {
    // The dots would show a record that was cut or overwritten in part.
    memset(record, '.', record_bytes);
    int length = snprintf(record, record_bytes, "%llu %016llx ", (unsigned long long)number, (unsigned long long)number * 0x9e3779b97f4a7c15);
    record[length] = '.';
    record[record_bytes - 1] = '\n';
}

static void append_record(void) {
    char record[record_bytes];
    if (records == records_max) {
        if (ftruncate(file, 0) != 0) fail("truncate", records);
        records = 0;
    }
    if (records == 0) first_in_file = lines;
    format_record(record, lines);
    if (write(file, record, record_bytes) != record_bytes) fail("append", lines);
    records++;
}

static void verify_file(void) {
    char seen[record_bytes], expected[record_bytes];
    for (uint32_t index = 0; index < records; index++) {
        format_record(expected, first_in_file + index);
        if (pread(file, seen, record_bytes, (off_t)index * record_bytes) != record_bytes) fail("read", index);
        if (memcmp(seen, expected, record_bytes) != 0) fail("compare", index);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4) != 0) fail("listen", (uint64_t)port);
    return listener;
}

struct session {
    int socket;  // -1: nobody
    size_t length;
    char line[request_bytes_max];
};

static void end_session(struct session *session) {
    if (session->socket >= 0) close(session->socket);
    *session = (struct session){.socket = -1};
}

static bool answer(struct session *session) {
    char reply[request_bytes_max + 32];
    append_record();
    int length = snprintf(reply, sizeof reply, "%.*s %llu\n", (int)session->length, session->line, (unsigned long long)lines++);
    session->length = 0;
    return send(session->socket, reply, (size_t)length, MSG_NOSIGNAL) == length;
}

static bool receive(struct session *session) {
    char bytes[512];
    ssize_t count = recv(session->socket, bytes, sizeof bytes, 0);
    for (ssize_t index = 0; index < count; index++) {
        if (bytes[index] == '\n') {
            if (!answer(session)) return false;
        } else {
            if (session->length == request_bytes_max) return false;
            session->line[session->length++] = bytes[index];
        }
    }
    return count > 0;
}

int main(int count, char **values) {
    int listener = listen_on(count > 1 ? atoi(values[1]) : 7007);
    file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (file < 0) fail("open", 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("{\"talk\":\"listening\"}\n");

    struct session session = {.socket = -1};
    uint64_t reported = 0;
    int64_t next_check = clock_nanoseconds(CLOCK_MONOTONIC);
    for (;;) {
        struct pollfd waits[] = {{.fd = listener, .events = POLLIN}, {.fd = session.socket, .events = POLLIN}};
        int64_t now = clock_nanoseconds(CLOCK_MONOTONIC);
        if (now >= next_check) {
            next_check = now + NANOSECONDS_PER_SECOND;
            verify_file();
            if (lines != reported) {
                printf("{\"talk\":\"progress\",\"lines\":%llu,\"records\":%u}\n", (unsigned long long)lines, records);
            }
            reported = lines;
        }
        poll(waits, 2, (int)((next_check - now) / NANOSECONDS_PER_MILLISECOND) + 1);
        if (waits[1].revents != 0 && !receive(&session)) end_session(&session);
        if (waits[0].revents != 0) {
            end_session(&session);
            session.socket = accept(listener, NULL, NULL);
        }
    }
}
