/* backup.h: a backup while the server runs, made on a thread of its own.
 *
 * Threads.   backup_begin and the part's functions on the loop. One backup at a time.
 * Lifetime.  The request is parked until the copy is in place or has failed; when its client goes away
 *            or the server stops, the copy is dropped and nothing is left behind.
 */
#ifndef SERVER_BACKUP_H
#define SERVER_BACKUP_H

#include "server/http.h"

struct backup_result {
    store_status status;
    store_error err;
    const char *path;
    int64_t bytes, began_ms, took_ms;
};

/* Parks `req`; `done` is called on the loop with the result, which lives with the request. False: one
 * is being made already, or no thread or memory: replied. */
bool backup_begin(struct request *req, const char *path,
                  void (*done)(struct request *req, const struct backup_result *result));

void backup_part_drain(struct server *server);
bool backup_part_idle(struct server *server);
void backup_part_stop(struct server *server);

#endif
