/* jobrows.h: a job's files as rows that train and rows that choose.
 *
 * Threads.   One at a time; reads the store through the handle it is given.
 */
#ifndef SERVER_JOBROWS_H
#define SERVER_JOBROWS_H

#include "server/jobspec.h"

struct job_rows {
    eng_dataset *train_set, *dev_set; /* dev_set may be train_set */
    size_t *train, *dev, n_train, n_dev;
    size_t folds; /* > 0: cross-validation; every row trains and, left out once, is a dev row */
    const char *dev_source; /* "validation_file", "k_shot", "cross_validation", "stratified_half" */

    /* why job_rows_read failed */
    const char *code, *param;
    char text[512];
};

/* Reads, parses and splits; sets plan->config.folds, and its steps when the plan counts epochs. File contents live in
 * `mem` for the call only (it is reset). False: code, param and text say why. job_rows_fini frees, also
 * after a failure. */
bool job_rows_read(struct job_rows *rows, struct job_plan *plan, store *reader, int64_t tenant,
                   const char *training_file, const char *validation_file, store_mem *mem);
void job_rows_fini(struct job_rows *rows);

#endif
