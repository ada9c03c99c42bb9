// Processes and threads: variadic calls, GNU extensions and macros that the importer leaves out.
#ifndef TT_PROCESS_H
#define TT_PROCESS_H
#include <stddef.h>
#include <stdint.h>

// POSIX_SPAWN_SETSID, which glibc shows to GNU sources only.
enum { tt_spawn_new_session = 0x80 };

// posix_spawn_file_actions_addclosefrom_np, which glibc (2.34) shows to GNU sources only: the child keeps no descriptor from
// `first` on. 0 or -errno.
int tt_spawn_close_from(void *file_actions, int first);
int tt_open(const char *path, int flags, unsigned mode);
// A descriptor that polls readable when the process ends (pidfd_open, Linux 5.3), or -errno.
int tt_process_descriptor(int pid);
int tt_clear_close_on_exec(int fd);
int tt_set_thread_name(const char *name);
// The child's status as waitpid gives it: exit code, or 128 + signal. -errno if it could not be waited for.
int tt_wait(int pid);
// Like tt_wait without waiting: -EAGAIN while it runs.
int tt_try_wait(int pid);
#endif
