/* taskuse.h: who asks a task: by task, key and day, counted in memory, added to the database with what
 * tenants use (usage.h). At most TASKUSE_MAX pairs of task and key between two flushes; what is beyond is
 * counted for the tenant alone, and the log says so.
 *
 * Threads. Loop thread, but for taskuse_write (store thread).
 */
#ifndef SERVER_TASKUSE_H
#define SERVER_TASKUSE_H

#include "server/server.h"
#include "store/store.h"

#define TASKUSE_MAX 4096

struct taskuse; /* what was counted since the last flush; NULL: nothing */

/* One request of `key` for `task`; *uses is made when it is NULL. */
void taskuse_count(struct taskuse **uses, int64_t task, const char *key, int64_t requests,
                   int64_t inputs, int64_t tokens);
/* Adds what `from` holds (a flush that was not written). */
void taskuse_add(struct taskuse **uses, const struct taskuse *from);
store_status taskuse_write(store *s, const struct taskuse *uses, int64_t day, store_error *err);
void taskuse_free(struct taskuse *uses);

#endif
