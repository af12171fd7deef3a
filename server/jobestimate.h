/* jobestimate.h: what a job will cost, before it starts.
 *
 * Threads.   job_estimate: a worker. job_pace…: any thread.
 */
#ifndef SERVER_JOBESTIMATE_H
#define SERVER_JOBESTIMATE_H

#include "server/jobrows.h"

struct job_estimate {
    size_t train_rows, validation_rows;
    size_t steps;    /* of a gradient-free method: evaluations */
    uint64_t tokens; /* that pass through the model */
    double seconds;  /* on this server with nothing else to do */
    double work;     /* tokens, those of a gradient step counted with their way back */
};

/* From rows that were read for the plan. False: `err` says why the rows do not fit the task. */
bool job_estimate(const struct server *server, const struct job_plan *plan,
                  const struct job_rows *rows, struct job_estimate *out, eng_error *err);
/* {"method","type","labels","train_rows","validation_rows","steps","tokens","seconds"}, or NULL. */
json_t *job_estimate_json(const struct job_plan *plan, const struct job_estimate *estimate);

/* Seconds a token of work takes: from the batcher's calibration, then from the jobs that ended. */
struct job_pace;
struct job_pace *job_pace_new(double tokens_per_second); /* NULL: out of memory */
void job_pace_free(struct job_pace *pace);
void job_pace_learn(struct job_pace *pace, double work, double seconds);

#endif
