/* stats.h: what a dashboard shows: rates and quantiles of the last minute, levels, and how far each
 * limit is.
 *
 * The counters behind /metrics only grow, so every few seconds their values are kept, and the minute is
 * the difference of two. Quantiles are read from a histogram's buckets, evenly spread inside one.
 *
 * Threads.   Loop thread. Jobs waiting and running are counted by a worker, at most every five seconds
 *            and only while somebody asks.
 */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H

#include "server/metrics.h"
#include "server/server.h"

struct stats;

bool stats_part_start(struct server *server, char *why, size_t size);
void stats_part_stop(struct server *server);
/* At least every second, from the loop. */
void stats_tick(struct server *server);

/* The q-th quantile (0 … 1) of a histogram's counts with `n` bounds and one count above them; NAN when
 * it is empty. Above the last bound: that bound. */
double stats_quantile(const double *bounds, const uint64_t *counts, size_t n, double q);

#endif
