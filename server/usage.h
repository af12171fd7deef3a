/* usage.h: what tenants use, by day: counted in memory, added to the database every other second.
 *
 * A crash loses what was counted since the last flush that was acknowledged: at most some three seconds,
 * unless the disk is slower than that. Jobs and their tokens are counted by the store in the transaction
 * that creates or ends them and are never lost.
 *
 * Threads.   Loop thread.
 * Lifetime.  The flush of usage_stop is the last.
 */
#ifndef SERVER_USAGE_H
#define SERVER_USAGE_H

#include "server/server.h"

#define DAY_MS    86400000
#define USAGE_DAY 16 /* bytes of "2026-11-28" */

struct auth_tenant;
struct usage;

struct usage *usage_new(struct server *server); /* NULL: out of memory */
/* usage NULL: the server stops, nothing is counted. */
void usage_count(struct usage *usage, struct auth_tenant *tenant, int64_t requests, int64_t inputs,
                 int64_t tokens);
/* One request for a task, beside usage_count; see taskuse.h. */
void usage_count_task(struct usage *usage, int64_t task, const char *key, int64_t inputs,
                      int64_t tokens);
/* Hands what was counted to the store thread, unless an earlier flush is still on its way. */
void usage_flush(struct usage *usage);
bool usage_is_flushing(const struct usage *usage);
/* A day's number (since 1970, UTC) as a date. */
void usage_day(int64_t number, char day[USAGE_DAY]);
/* Waits for the last flush; the loop has ended. */
void usage_stop(struct usage *usage);

#endif
