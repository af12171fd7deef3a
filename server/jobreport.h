/* jobreport.h: what a job has learnt, row by row: the confusion of its labels and the rows of its
 * validation it got wrong.
 *
 * Threads.   The job thread; computes as ENG_TRAINING.
 */
#ifndef SERVER_JOBREPORT_H
#define SERVER_JOBREPORT_H

#include "server/jobrows.h"

#define JOB_MAX_ERRORS 50 /* rows shown */

struct job_report {
    const struct server *server;
    const eng_task *task;
    const struct job_rows *rows;
    const eng_adapt_result *result;
    size_t text_limit;
    eng_cancelled cancelled;
    void *arg;
};

/* Adds "confusion" (fixed labels only, else null) and "errors" to `out`. Nothing is added, and true
 * returned, when there are no validation rows. False: *err says why. */
bool job_report_add(const struct job_report *report, json_t *out, eng_error *err);

#endif
