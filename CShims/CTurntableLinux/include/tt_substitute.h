// What stands in for the operating system on the calling thread (TurntableLinux/Substitute.swift), or null. Swift has no
// thread-local variables.
#ifndef TT_SUBSTITUTE_H
#define TT_SUBSTITUTE_H

extern _Thread_local void *tt_substitute_of_thread;

static inline void *tt_substitute(void) { return tt_substitute_of_thread; }
static inline void tt_set_substitute(void *substitute) { tt_substitute_of_thread = substitute; }

#endif
