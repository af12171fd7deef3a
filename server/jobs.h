/* jobs.h: the threads that train, a bounded number of them.
 *
 * A job thread claims the next queued job through the store thread, runs it (jobrun.c), and writes
 * what happens to the job's events. Every few seconds, and when it is paused or the server stops, its
 * state is stored: whoever claims it next goes on from there and ends with the same bytes. A job that a
 * crash cut off is queued again at start, at most job_attempts times without getting any further; one
 * that a shutdown cuts off goes back to the queue in order. Whose job is next goes round the tenants.
 *
 * Threads.   jobs_poke, jobs_cancel, jobs_pause, jobs_pace, jobs_changed, jobs_estimate: any. The part's functions: see server.h.
 */
#ifndef SERVER_JOBS_H
#define SERVER_JOBS_H

#include "server/server.h"

struct jobs;

bool jobs_part_start(struct server *server, char *why, size_t size);
void jobs_part_drain(struct server *server);
bool jobs_part_idle(struct server *server);
void jobs_part_stop(struct server *server);

/* A job was queued: wakes a thread that waits for one. */
void jobs_poke(struct jobs *jobs);
/* The tenant cancelled a running job (the store knows already): ends it within a step. */
void jobs_cancel(struct jobs *jobs, const char *id);
/* Its status or events changed, and the change is committed: wakes who watches it. */
void jobs_changed(struct jobs *jobs, const char *id);
/* The tenant paused a running job, or took the pause back (the store knows already). */
void jobs_pause(struct jobs *jobs, const char *id, bool pause);
/* How fast jobs run here. */
struct job_pace *jobs_pace(struct jobs *jobs);
/* When the running job `id` is expected to end, in ms since 1970; 0: not known. */
int64_t jobs_estimate(struct jobs *jobs, const char *id);

#endif
