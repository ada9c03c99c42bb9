// LVM's command library for the helper that runs it; it has no pkg-config file and no module map of its own.
#ifndef CTURNTABLELVM_H
#define CTURNTABLELVM_H
#include <lvm2cmd.h>

// What one line of the library's output is (lvm2cmd.h leaves out the flag for standard error, 0x80).
enum tt_lvm_line { tt_lvm_noise, tt_lvm_output, tt_lvm_complaint };
enum tt_lvm_line tt_lvm_line_kind(int level);
#endif
