/* backup.c: one thread, one backup.
 *
 * Not a worker: a large database takes minutes, and the workers are few. The thread reads through a
 * handle of its own (store/care.c says why), so neither predictions nor writes wait for it.
 */
#include "server/backup.h"

#include "server/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

struct backup {
    struct request *req;
    const char *db;
    void (*done)(struct request *req, const struct backup_result *result);
    struct backup_result result;
};

static struct {
    pthread_t thread;
    bool running; /* loop thread: started and not joined */
    atomic_bool cancelled;
} the_backup;

static bool goes_on(void *arg, int64_t pages_done, int64_t pages)
{
    (void)arg;
    (void)pages_done;
    (void)pages;
    return !the_backup.cancelled;
}

static void join(void)
{
    if (the_backup.running) {
        pthread_join(the_backup.thread, NULL);
        the_backup.running = false;
    }
}

static void ended(struct request *req, void *arg)
{
    struct backup *backup = arg;
    join();
    backup->done(req, &backup->result);
}

static void *make(void *arg)
{
    struct backup *backup = arg;
    struct backup_result *result = &backup->result;
    store *reader = NULL;
    struct stat info;
    int64_t began = clock_ms();
    result->status = store_open_reader(backup->db, &reader, &result->err);
    if (result->status == STORE_OK) {
        result->status = store_backup(reader, result->path, goes_on, NULL, &result->err);
    }
    store_close(reader);
    result->took_ms = clock_ms() - began;
    if (result->status == STORE_OK && stat(result->path, &info) == 0) {
        result->bytes = (int64_t)info.st_size;
    }
    request_resume(backup->req, ended, backup);
    return NULL;
}

static void cancel(struct request *req, void *arg)
{
    (void)req;
    (void)arg;
    the_backup.cancelled = true;
}

bool backup_begin(struct request *req, const char *path,
                  void (*done)(struct request *req, const struct backup_result *result))
{
    struct backup *backup = request_alloc(req, sizeof *backup);
    if (backup == NULL) {
        reply_no_memory(req);
        return false;
    }
    if (the_backup.running) {
        reply_problem(req, 409, "backup_running", NULL, "a backup is being made; one at a time");
        return false;
    }
    *backup = (struct backup){.req = req, .db = request_server(req)->db_path, .done = done};
    backup->result.path = path;
    backup->result.began_ms = wall_ms();
    the_backup.cancelled = false;
    request_park(req, cancel, NULL);
    the_backup.running = pthread_create(&the_backup.thread, NULL, make, backup) == 0;
    if (!the_backup.running) {
        backup->result.status = STORE_ENOMEM;
        request_resume(req, ended, backup);
    }
    return true;
}

void backup_part_drain(struct server *server)
{
    (void)server;
    the_backup.cancelled = true;
}

bool backup_part_idle(struct server *server)
{
    (void)server;
    return !the_backup.running;
}

void backup_part_stop(struct server *server)
{
    (void)server;
    the_backup.cancelled = true;
    join();
}
