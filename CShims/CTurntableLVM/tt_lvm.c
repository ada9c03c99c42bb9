#include "CTurntableLVM.h"

enum tt_lvm_line tt_lvm_line_kind(int level) {
    int severity = level & 0x0f, to_standard_error = level & 0x80;
    if (severity == LVM2_LOG_PRINT && !to_standard_error) return tt_lvm_output;
    return severity <= LVM2_LOG_PRINT ? tt_lvm_complaint : tt_lvm_noise;
}
