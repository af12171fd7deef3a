/* jobpublish.h: how a job ends, on disk and in memory. Called on its job thread. */
#ifndef SERVER_JOBPUBLISH_H
#define SERVER_JOBPUBLISH_H

#include "server/jobs_internal.h"
#include "server/jobspec.h"

enum job_end { JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_GIVEN_BACK, JOB_PAUSED, JOB_LOST };

struct job_outcome {
    const store_job *job;
    const struct job_plan *plan;
    eng_adapt_result *result; /* prompt and head are taken from it */
    const char *result_text;  /* JSON */
    const char *event_text;   /* the same in short, for the version and the last event */
    const char *message;      /* of the last event */
};

/* Stores the version, task, end and event in one transaction, and makes the registry serve it. What
 * came out: SUCCEEDED; CANCELLED or FAILED when the store refused (it has been written down); LOST
 * when the job is not ours any more or the store cannot be written. */
enum job_end job_publish(struct job_thread *thread, const struct job_outcome *outcome);

/* Writes down that the job ended without a version. `error` is JSON text or NULL. */
enum job_end job_end(struct job_thread *thread, const store_job *job, store_job_status status,
                     const char *error, int64_t tokens, const char *message);
/* Puts it back into the queue: the server is stopping. */
enum job_end job_give_back(struct job_thread *thread, const store_job *job);

/* Puts it aside until its tenant resumes it (who may have done so already: then into the queue). */
enum job_end job_park(struct job_thread *thread, const store_job *job, int64_t tokens,
                      const char *message);

/* {"code","message","param"} as JSON text, malloc'ed; NULL: out of memory. */
char *job_error_text(const char *code, const char *message, const char *param);

#endif
