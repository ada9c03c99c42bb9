// beat DEVICE: the paper's external measurement of downtime (its Table 2, there with an oscilloscope on the serial ports of
// both hosts). Every millisecond it writes its count as a line of nine bytes to DEVICE, a virtio-serial or serial port;
// whoever watches that port on both hosts can tell when the guest fell silent on one and spoke on the other.
//
// Nine bytes a millisecond stay below the 11.5 a port of 115200 baud carries, so nothing waits in a buffer. The device is
// never waited for: the count goes on, and a beat that could not be written is missing at the observer, who counts it.
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "clock.h"

#define PERIOD NANOSECONDS_PER_MILLISECOND

enum { line_bytes = 9, count_limit = 100000000 };

int main(int count, char **values) {
    int port = count == 2 ? open(values[1], O_WRONLY | O_NONBLOCK | O_NOCTTY) : -1;
    if (port < 0) {
        perror(count == 2 ? values[1] : "usage: beat DEVICE");
        return 2;
    }
    struct termios settings;
    if (tcgetattr(port, &settings) == 0) {  // a serial port, where line endings would be rewritten
        cfmakeraw(&settings);
        settings.c_cflag |= CLOCAL;  // nobody raises the carrier of a virtual port
        cfsetspeed(&settings, B115200);
        tcsetattr(port, TCSANOW, &settings);
    }
    run_as_instrument(40);  // below the probe

    int64_t deadline = clock_nanoseconds(CLOCK_MONOTONIC);
    char line[line_bytes + 1];
    ssize_t unwritten = 0;  // the rest of a line that went out in part: a torn line would be read as another number
    for (int number = 0;; number = (number + 1) % count_limit) {
        int64_t now = clock_nanoseconds(CLOCK_MONOTONIC);
        // Beats that are due in the past are dropped from the schedule, not from the count.
        deadline = deadline + PERIOD < now ? now : deadline + PERIOD;
        sleep_until(deadline);
        if (unwritten == 0) {
            snprintf(line, sizeof line, "%08d\n", number);
            unwritten = line_bytes;
        }
        ssize_t written = write(port, line + line_bytes - unwritten, (size_t)unwritten);
        if (written > 0) unwritten -= written;
        if (written < 0 && unwritten == line_bytes) unwritten = 0;
    }
}
