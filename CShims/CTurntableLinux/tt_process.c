#define _GNU_SOURCE
#include "tt_process.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int tt_open(const char *path, int flags, unsigned mode) {
    int fd = open(path, flags, mode);
    return fd < 0 ? -errno : fd;
}

int tt_process_descriptor(int pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int tt_clear_close_on_exec(int fd) {
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) < 0) return -errno;
    return 0;
}

int tt_set_thread_name(const char *name) { return -pthread_setname_np(pthread_self(), name); }

static int wait_for(int pid, int options) {
    int status;
    pid_t ended;
    do {
        ended = waitpid(pid, &status, options);
    } while (ended < 0 && errno == EINTR);
    if (ended < 0) return -errno;
    if (ended == 0) return -EAGAIN;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
int tt_wait(int pid) { return wait_for(pid, 0); }
int tt_try_wait(int pid) { return wait_for(pid, WNOHANG); }

int tt_spawn_close_from(void *file_actions, int first) { return -posix_spawn_file_actions_addclosefrom_np(file_actions, first); }
