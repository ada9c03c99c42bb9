#include "CTurntableFibers.h"
#include <stdint.h>
#include <sys/mman.h>

enum { guard_bytes = 4096 };

void *tt_fiber_stack(size_t bytes) {
    char *memory = mmap(NULL, bytes + guard_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    if (mprotect(memory, guard_bytes, PROT_NONE) < 0) {
        munmap(memory, bytes + guard_bytes);
        return NULL;
    }
    return memory + guard_bytes;
}

void tt_fiber_free(void *stack, size_t bytes) { munmap((char *)stack - guard_bytes, bytes + guard_bytes); }

#if defined(__x86_64__)
// rbp, rbx and r12 to r15, then the return address.
enum { saved_words = 7 };
__asm__(
    ".text\n"
    ".globl tt_fiber_switch\n"
    ".type tt_fiber_switch,@function\n"
    "tt_fiber_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size tt_fiber_switch,.-tt_fiber_switch\n"
    // A new fiber's first return leads here: r12 holds the function, r13 its argument.
    ".type tt_fiber_begin,@function\n"
    "tt_fiber_begin:\n"
    "  movq %r13, %rdi\n"
    "  callq *%r12\n"
    "  ud2\n"
    ".size tt_fiber_begin,.-tt_fiber_begin\n");
void tt_fiber_begin(void);

void *tt_fiber_new(void *stack, size_t bytes, void (*entry)(void *), void *argument) {
    // The stack is aligned to 16 bytes where tt_fiber_begin calls.
    uint64_t *top = (uint64_t *)((char *)stack + bytes) - 2;
    uint64_t *saved = top - saved_words;
    saved[0] = 0, saved[1] = 0;                // r15, r14
    saved[2] = (uint64_t)(uintptr_t)argument;  // r13
    saved[3] = (uint64_t)(uintptr_t)entry;     // r12
    saved[4] = 0, saved[5] = 0;                // rbx, rbp
    saved[6] = (uint64_t)(uintptr_t)tt_fiber_begin;
    return saved;
}
#elif defined(__aarch64__)
// x19 to x30 and d8 to d15.
enum { saved_words = 20 };
__asm__(
    ".text\n"
    ".globl tt_fiber_switch\n"
    ".type tt_fiber_switch,@function\n"
    "tt_fiber_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x2, sp\n  str x2, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size tt_fiber_switch,.-tt_fiber_switch\n"
    // A new fiber's first return leads here: x19 holds the function, x20 its argument.
    ".type tt_fiber_begin,@function\n"
    "tt_fiber_begin:\n"
    "  mov x0, x20\n"
    "  blr x19\n"
    "  brk #0\n"
    ".size tt_fiber_begin,.-tt_fiber_begin\n");
void tt_fiber_begin(void);

void *tt_fiber_new(void *stack, size_t bytes, void (*entry)(void *), void *argument) {
    uint64_t *saved = (uint64_t *)((char *)stack + bytes) - saved_words;
    for (int word = 0; word < saved_words; word++) saved[word] = 0;
    saved[0] = (uint64_t)(uintptr_t)entry;
    saved[1] = (uint64_t)(uintptr_t)argument;
    saved[11] = (uint64_t)(uintptr_t)tt_fiber_begin;
    return saved;
}
#else
#error "no fibers for this processor"
#endif
