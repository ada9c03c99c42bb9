#include "tt_loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "CTurntableVerbs.h"

struct tt_loaded tt_loaded;
static char reason[256];
static int outcome;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *library(const char *name) {
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *text = dlerror();
        snprintf(reason, sizeof reason, "%s", text ? text : name);
        outcome = -ENOENT;
    }
    return handle;
}

static void *function(void *handle, const char *name) {
    void *address = handle ? dlsym(handle, name) : NULL;
    if (handle && !address) {
        snprintf(reason, sizeof reason, "it has no %s", name);
        outcome = -ENOENT;
    }
    return address;
}

static void load(void) {
    void *verbs = library("libibverbs.so.1"), *rdmacm = verbs ? library("librdmacm.so.1") : NULL;
#define TT_FROM_VERBS(name) tt_loaded.name = (__typeof__(tt_loaded.name))function(verbs, #name);
#define TT_FROM_RDMACM(name) tt_loaded.name = (__typeof__(tt_loaded.name))function(rdmacm, #name);
    TT_VERBS(TT_FROM_VERBS)
    TT_RDMACM(TT_FROM_RDMACM)
}

int tt_verbs_load(void) {
    pthread_once(&once, load);
    return outcome;
}

const char *tt_verbs_load_error(void) { return reason; }
