// What Swift cannot import from Linux: variadic calls, function-like macros, and kernel interfaces newer than the
// distribution's headers. One prefix (tt_), a value or -errno back, no policy.
#ifndef CTURNTABLELINUX_H
#define CTURNTABLELINUX_H
#include "tt_digest.h"
#include "tt_memory.h"
#include "tt_network.h"
#include "tt_process.h"
#include "tt_socket.h"
#include "tt_substitute.h"
#include "tt_tun.h"
#include "tt_userfault.h"
#endif
