#include "tt_tun.h"
