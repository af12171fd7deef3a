/* jobview.h: jobs and their events as the API shows them. Pure functions. */
#ifndef SERVER_JOBVIEW_H
#define SERVER_JOBVIEW_H

#include <jansson.h>

#include "store/store.h"

/* `base`: name of the backbone. `estimate`: as jobs_estimate. `whole`: with the rows it got wrong, which
 * lists leave out. NULL: out of memory. */
json_t *job_json(const store_job *job, const char *tenant, const char *base, int64_t estimate,
                 bool whole);
json_t *job_event_json(const store_event *event);

/* The stored state of a job that is not finished. */
struct job_state {
    int64_t step, bytes, created;
};
/* The checkpoint that there is: what the job published, or its stored state (`state`, may be NULL).
 * NULL: there is none, or out of memory. */
json_t *job_checkpoint_json(const store_job *job, const struct job_state *state, const char *tenant,
                            const char *base);

#endif
