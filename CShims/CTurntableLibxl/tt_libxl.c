#include "CTurntableLibxl.h"

#include <libxl.h>
#include <libxl_event.h>
#include <libxl_utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tt_libxl {
    libxl_ctx *context;
    xentoollog_logger *log;
};

const int tt_libxl_not_found = ERROR_DOMAIN_NOTFOUND;

int tt_libxl_open(struct tt_libxl **libxl, int is_verbose) {
    struct tt_libxl *opened = calloc(1, sizeof *opened);
    if (!opened) return ERROR_NOMEM;
    opened->log =
        (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, is_verbose ? XTL_DEBUG : XTL_INFO, XTL_STDIOSTREAM_HIDE_PROGRESS);
    int error = opened->log ? libxl_ctx_alloc(&opened->context, LIBXL_VERSION, 0, opened->log) : ERROR_NOMEM;
    if (error) {
        tt_libxl_close(opened);
        return error;
    }
    *libxl = opened;
    return 0;
}

void tt_libxl_close(struct tt_libxl *libxl) {
    libxl_ctx_free(libxl->context);
    xtl_logger_destroy(libxl->log);
    free(libxl);
}

int tt_libxl_find(struct tt_libxl *libxl, const char *name, uint32_t *domain) {
    return libxl_domain_qualifier_to_domid(libxl->context, name, domain);
}

int tt_libxl_describe(struct tt_libxl *libxl, uint32_t domain, struct tt_libxl_domain *description) {
    libxl_dominfo found;
    libxl_dominfo_init(&found);
    int error = libxl_domain_info(libxl->context, &found, domain);
    if (!error) {
        *description = (struct tt_libxl_domain){
            .number = found.domid,
            .is_paused = found.paused,
            .is_shut_down = found.shutdown,
            .is_suspended = found.shutdown && found.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND,
        };
        memcpy(description->uuid, libxl_uuid_bytearray(&found.uuid), sizeof description->uuid);
    }
    libxl_dominfo_dispose(&found);
    return error;
}

char *tt_libxl_configuration(struct tt_libxl *libxl, uint32_t domain) {
    libxl_domain_config configuration;
    libxl_domain_config_init(&configuration);
    char *text = NULL;
    if (!libxl_retrieve_domain_configuration(libxl->context, domain, &configuration, NULL))
        text = libxl_domain_config_to_json(libxl->context, &configuration);
    libxl_domain_config_dispose(&configuration);
    return text;
}

static int is_served_here(const libxl_device_disk *disk) {
    int is_kernels = disk->backend == LIBXL_DISK_BACKEND_PHY || disk->backend == LIBXL_DISK_BACKEND_UNKNOWN;
    return is_kernels && disk->backend_domid == 0 && !disk->backend_domname && !disk->script && !disk->is_cdrom && disk->vdev && disk->pdev_path;
}

char *tt_libxl_disks(struct tt_libxl *libxl, const char *text) {
    libxl_domain_config configuration;
    libxl_domain_config_init(&configuration);
    char *lines = NULL;
    size_t bytes = 0;
    FILE *out = libxl_domain_config_from_json(libxl->context, &configuration, text) ? NULL : open_memstream(&lines, &bytes);
    if (out) {
        for (int index = 0; index < configuration.num_disks; index++) {
            const libxl_device_disk *disk = &configuration.disks[index];
            // As libxl's own script finds it.
            const char *directory = disk->pdev_path && disk->pdev_path[0] == '/' ? "" : "/dev/";
            if (is_served_here(disk)) fprintf(out, "%s\t%s%s\n", disk->vdev, directory, disk->pdev_path);
        }
        fclose(out);
    }
    libxl_domain_config_dispose(&configuration);
    return lines;
}

int tt_libxl_save(struct tt_libxl *libxl, uint32_t domain, int stream) {
    return libxl_domain_suspend(libxl->context, domain, stream, LIBXL_SUSPEND_LIVE, NULL);
}

int tt_libxl_restore(struct tt_libxl *libxl, const char *text, int stream, uint32_t *domain) {
    libxl_domain_config configuration;
    libxl_domain_restore_params parameters;
    libxl_domain_config_init(&configuration);
    libxl_domain_restore_params_init(&parameters);
    parameters.stream_version = 2;
    int error = libxl_domain_config_from_json(libxl->context, &configuration, text);
    if (!error) error = libxl_domain_create_restore(libxl->context, &configuration, domain, stream, -1, &parameters, NULL, NULL);
    libxl_domain_restore_params_dispose(&parameters);
    libxl_domain_config_dispose(&configuration);
    return error;
}

int tt_libxl_unpause(struct tt_libxl *libxl, uint32_t domain) { return libxl_domain_unpause(libxl->context, domain, NULL); }

int tt_libxl_resume(struct tt_libxl *libxl, uint32_t domain) { return libxl_domain_resume(libxl->context, domain, 1, NULL); }

int tt_libxl_destroy(struct tt_libxl *libxl, uint32_t domain) { return libxl_domain_destroy(libxl->context, domain, NULL); }

// Waits for a domain's next end; a negative error, or a libxl_shutdown_reason; `is_gone`: it was destroyed.
static int wait_for_end(libxl_ctx *context, uint32_t domain, int *is_gone) {
    libxl_evgen_domain_death *watch;
    libxl_event *event = NULL;
    int error = libxl_evenable_domain_death(context, domain, 0, &watch);
    if (error) return error;
    error = libxl_event_wait(context, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
    int result = error;
    if (!error) {
        *is_gone = event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
        result = *is_gone ? 0 : event->u.domain_shutdown.shutdown_reason;
        libxl_event_free(context, event);
    }
    libxl_evdisable_domain_death(context, watch);
    return result;
}

static libxl_action_on_shutdown action(const libxl_domain_config *configuration, int reason) {
    switch (reason) {
        case LIBXL_SHUTDOWN_REASON_POWEROFF: return configuration->on_poweroff;
        case LIBXL_SHUTDOWN_REASON_REBOOT: return configuration->on_reboot;
        case LIBXL_SHUTDOWN_REASON_CRASH: return configuration->on_crash;
        case LIBXL_SHUTDOWN_REASON_WATCHDOG: return configuration->on_watchdog;
        default: return LIBXL_ACTION_ON_SHUTDOWN_PRESERVE;
    }
}

// Carries out what the configuration says about a domain that has shut down. 1: there is a new one, in `domain`.
static int act(libxl_ctx *context, uint32_t *domain, int reason) {
    libxl_domain_config configuration;
    libxl_domain_config_init(&configuration);
    int result = libxl_retrieve_domain_configuration(context, *domain, &configuration, NULL);
    libxl_action_on_shutdown wanted = result ? LIBXL_ACTION_ON_SHUTDOWN_PRESERVE : action(&configuration, reason);
    if (wanted == LIBXL_ACTION_ON_SHUTDOWN_DESTROY || wanted == LIBXL_ACTION_ON_SHUTDOWN_RESTART)
        result = libxl_domain_destroy(context, *domain, NULL);
    if (!result && wanted == LIBXL_ACTION_ON_SHUTDOWN_RESTART) {
        result = libxl_domain_create_new(context, &configuration, domain, NULL, NULL);
        if (!result) result = libxl_domain_unpause(context, *domain, NULL);
        if (!result) result = 1;
    }
    libxl_domain_config_dispose(&configuration);
    return result;
}

// A domain that is suspended may be resumed, or be gone when it has moved.
static int wait_for_resume(struct tt_libxl *libxl, uint32_t domain) {
    struct tt_libxl_domain found;
    for (;;) {
        int error = tt_libxl_describe(libxl, domain, &found);
        if (error || !found.is_shut_down) return error;
        sleep(1);
    }
}

int tt_libxl_watch(struct tt_libxl *libxl, uint32_t domain) {
    for (;;) {
        int is_gone = 0, reason = wait_for_end(libxl->context, domain, &is_gone);
        if (reason < 0 || is_gone) return reason;
        if (reason == LIBXL_SHUTDOWN_REASON_SUSPEND) {
            int error = wait_for_resume(libxl, domain);
            if (error) return error == ERROR_DOMAIN_NOTFOUND ? 0 : error;
            continue;
        }
        int result = act(libxl->context, &domain, reason);
        if (result != 1) return result;
    }
}
