// Fibers for the simulation: stacks of their own, and the step from one to another, which no language of higher level has.
// Saved are the registers that a callee must keep, so a switch looks like a call that takes its time.
#ifndef CTURNTABLEFIBERS_H
#define CTURNTABLEFIBERS_H
#include <stddef.h>

// A stack of `bytes`, with a page below it that ends the program when it is touched. Null if there is no memory.
void *tt_fiber_stack(size_t bytes);
// Forgets what the stack held; its memory may be used again.
void tt_fiber_free(void *stack, size_t bytes);
// A fiber that has not begun: its first switch calls `entry(argument)`, which must not return. The value is what to switch to.
void *tt_fiber_new(void *stack, size_t bytes, void (*entry)(void *), void *argument);
// Leaves this fiber, noting in `*from` where it goes on, for the one that `to` stands for.
void tt_fiber_switch(void **from, void *to);

#endif
