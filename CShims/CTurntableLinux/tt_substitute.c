#include "tt_substitute.h"

_Thread_local void *tt_substitute_of_thread;
