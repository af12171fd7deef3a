/* jobview.h: jobs and their events as the API shows them. Pure functions. */
#ifndef SERVER_JOBVIEW_H
#define SERVER_JOBVIEW_H

#include <jansson.h>

#include "store/store.h"

/* `base`: name of the backbone. `estimate`: as jobs_estimate. NULL: out of memory. */
json_t *job_json(const store_job *job, const char *tenant, const char *base, int64_t estimate);
json_t *job_event_json(const store_event *event);

#endif
