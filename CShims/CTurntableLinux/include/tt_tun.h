// TUN/TAP devices and network namespaces: ioctl(2) is variadic and struct ifreq is a union of macros.
// Can go when the Swift Glibc overlay imports <net/if.h> and <linux/if_tun.h>.
#ifndef TT_TUN_H
#define TT_TUN_H
#include <stdint.h>
#endif
