// Entry by the PVH note: 32-bit protected mode, flat segments, no paging, interrupts off, %ebx = struct hvm_start_info.
// Any machine monitor that boots PVH kernels enters here: no multiboot header, no real mode of our own.

    .section .note.pvh, "a", @note
    .long 4, 4, 18                  // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

    .text
    .globl start
start:
    cld
    movl $stack_top, %esp
    lgdt gdt_pointer                // the entry's own table may lie in memory that gets filled
    ljmp $8, $1f
1:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    pushl %ebx
    call main
2:  cli
    hlt
    jmp 2b

    // The only interrupt that is let through. It arrives only inside the few instructions of pattern.c that say so (they give
    // up %eax and the flags), and returns by a jump with interrupts off: `iret` is missing in KVM's instruction emulator, which
    // runs all of this guest on a host without hardware virtualisation.
    .globl timer_entry
timer_entry:
    incl ticks
    movb $0x20, %al                 // end of interrupt
    outb %al, $0x20
    popl %eax
    addl $8, %esp                   // code segment and flags
    jmp *%eax

    .section .rodata
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff        // code and data over all 4 GiB
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .bss
    .balign 16
    .skip 16384
stack_top:
