// libxl (libxenlight 4.17), which makes and ends domains, for Swift: its types are large C structures that need their own
// initialisers and disposers. A call gives 0, or libxl's error, which is negative; libxl says on standard error what was wrong.
// Not for several threads.
#ifndef CTURNTABLELIBXL_H
#define CTURNTABLELIBXL_H
#include <stdint.h>

struct tt_libxl;

struct tt_libxl_domain {
    uint32_t number;
    uint8_t uuid[16];
    int is_paused;
    int is_shut_down;
    int is_suspended;  // shut down in order to be moved or saved
};

extern const int tt_libxl_not_found;  // the error of a domain that is not there

int tt_libxl_open(struct tt_libxl **libxl, int is_verbose);
void tt_libxl_close(struct tt_libxl *libxl);

// The domain that an operator names, by name or number.
int tt_libxl_find(struct tt_libxl *libxl, const char *name, uint32_t *domain);
int tt_libxl_describe(struct tt_libxl *libxl, uint32_t domain, struct tt_libxl_domain *description);
// What the domain is made of, as JSON that another host's libxl makes it from; NULL if that cannot be had. To be freed.
char *tt_libxl_configuration(struct tt_libxl *libxl, uint32_t domain);

// The disks of such a configuration that this host's kernel can serve: a line each, of name, tabulator and place. NULL if it cannot be read. To
// be freed.
char *tt_libxl_disks(struct tt_libxl *libxl, const char *configuration);

// Writes the running domain to `stream`, and returns when its helper is done: it is suspended then, or the move has failed.
int tt_libxl_save(struct tt_libxl *libxl, uint32_t domain, int stream);
// Makes the domain that comes in `stream`. It is paused, and its devices are there.
int tt_libxl_restore(struct tt_libxl *libxl, const char *configuration, int stream, uint32_t *domain);
int tt_libxl_unpause(struct tt_libxl *libxl, uint32_t domain);
// Lets a suspended domain run on, as if its suspend had been cancelled.
int tt_libxl_resume(struct tt_libxl *libxl, uint32_t domain);
int tt_libxl_destroy(struct tt_libxl *libxl, uint32_t domain);

// Does what its configuration says when the domain shuts down, as xl's own process for a domain does; returns when it is gone or stays as it is.
int tt_libxl_watch(struct tt_libxl *libxl, uint32_t domain);
#endif
