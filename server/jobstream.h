/* jobstream.h: events of jobs as server-sent events.
 *
 * Whoever wrote an event says so (job_streams_changed); nothing is read from the database but then, and
 * once for all who watch the same job.
 *
 * Threads.   job_streams_changed: any thread, after the commit. The rest: the loop.
 * Lifetime.  Free after the loop has run what was posted and its requests are gone.
 */
#ifndef SERVER_JOBSTREAM_H
#define SERVER_JOBSTREAM_H

#include "server/http.h"

struct job_streams;

struct job_streams *job_streams_new(struct server *server); /* NULL: out of memory */
void job_streams_free(struct job_streams *streams);
/* Events of the job were committed, or its status changed. */
void job_streams_changed(struct job_streams *streams, const char *job);
/* Answers `req` with the events of the tenant's job behind number `after`, and those to come, until the
 * job has ended. The job exists. */
void job_stream_begin(struct request *req, const char *job, int64_t after);
uint64_t job_streams_events(const struct job_streams *streams); /* sent so far */

#endif
