#define _GNU_SOURCE
#include "CTurntableBlock.h"
#include <errno.h>
#include <libdevmapper.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// libdevmapper keeps the control descriptor and its log function in variables of its own.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void no_log(int level, const char *file, int line, int error, const char *format, ...) {
    (void)level, (void)file, (void)line, (void)error, (void)format;
}

// -errno of a task that failed. Before the kernel was asked there is none: then the control device could not be opened.
static int failure(struct dm_task *task) {
    int error = dm_task_get_errno(task);
    return error ? -error : -ENODEV;
}

static struct dm_task *make(int type, const char *name) {
    dm_log_with_errno_init(no_log);
    struct dm_task *task = dm_task_create(type);
    if (task && name && !dm_task_set_name(task, name)) {
        dm_task_destroy(task);
        task = NULL;
    }
    return task;
}

static int run(struct dm_task *task, struct dm_info *info) {
    if (!dm_task_run(task)) return failure(task);
    if (!info) return 0;
    if (!dm_task_get_info(task, info)) return -EIO;
    return info->exists ? 0 : -ENXIO;
}

static void copy(char *target, size_t capacity, const char *text) {
    strncpy(target, text ? text : "", capacity - 1);
    target[capacity - 1] = 0;
}

int tt_dm_target(const char *name, int table, struct tt_dm_target *target) {
    pthread_mutex_lock(&lock);
    struct dm_task *task = make(table ? DM_DEVICE_TABLE : DM_DEVICE_STATUS, name);
    struct dm_info info;
    int result = task ? run(task, &info) : -ENODEV;
    if (result == 0) {
        uint64_t start = 0;
        char *type = NULL, *parameters = NULL;
        dm_get_next_target(task, NULL, &start, &target->sectors, &type, &parameters);
        copy(target->type, sizeof target->type, type);
        copy(target->parameters, sizeof target->parameters, parameters);
    }
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result;
}

// Information on a device by its number; the caller destroys the task.
static int find(unsigned device_major, unsigned device_minor, struct dm_task **task, struct dm_info *info) {
    *task = make(DM_DEVICE_INFO, NULL);
    if (!*task || !dm_task_set_major(*task, (int)device_major) || !dm_task_set_minor(*task, (int)device_minor)) return -ENODEV;
    return run(*task, info);
}

int tt_dm_open_count(unsigned device_major, unsigned device_minor) {
    pthread_mutex_lock(&lock);
    struct dm_task *task;
    struct dm_info info;
    int result = find(device_major, device_minor, &task, &info);
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result < 0 ? result : info.open_count;
}

int tt_dm_name(unsigned device_major, unsigned device_minor, char *name, size_t capacity) {
    pthread_mutex_lock(&lock);
    struct dm_task *task;
    struct dm_info info;
    int result = find(device_major, device_minor, &task, &info);
    if (result == 0) copy(name, capacity, dm_task_get_name(task));
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result;
}

int tt_dm_suspend(const char *name) {
    pthread_mutex_lock(&lock);
    struct dm_task *task = make(DM_DEVICE_SUSPEND, name);
    int result = task && dm_task_skip_lockfs(task) ? run(task, NULL) : -ENODEV;
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result;
}

int tt_dm_resume(const char *name) {
    pthread_mutex_lock(&lock);
    struct dm_task *task = make(DM_DEVICE_RESUME, name);
    uint32_t cookie = 0;
    // Without udev there is nobody to wait for, and no semaphore to wait on.
    int has_udev = dm_udev_get_sync_support() && !getenv("DM_DISABLE_UDEV");
    int result = task && (!has_udev || dm_task_set_cookie(task, &cookie, 0)) ? run(task, NULL) : -ENODEV;
    if (cookie) dm_udev_wait(cookie);
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result;
}

int tt_dm_message(const char *name, const char *message) {
    pthread_mutex_lock(&lock);
    struct dm_task *task = make(DM_DEVICE_TARGET_MSG, name);
    int result = task && dm_task_set_sector(task, 0) && dm_task_set_message(task, message) ? run(task, NULL) : -ENODEV;
    if (task) dm_task_destroy(task);
    pthread_mutex_unlock(&lock);
    return result;
}
