/* lease.h: what jobs.c and lease.c share about rows of jobs. */
#ifndef STORE_LEASE_H
#define STORE_LEASE_H

#include "store/db.h"

#define DB_JOB_COLUMNS                                                                             \
    "j.id, j.tenant, j.status, j.model, j.spec, j.metadata, j.request_hash, j.seed, "              \
    "j.training_file, j.validation_file, j.task, j.task_name, j.version, j.result, j.error, "      \
    "j.created, j.started, j.finished, j.attempts, j.lease_owner, j.lease_until, "                 \
    "j.trained_tokens, j.cancel_requested, j.pause_requested, j.estimate"

void db_read_job(db_query *q, store_mem *mem, void *item);
/* Reads the one row of a bound query; STORE_ENOTFOUND names `id`. */
store_status db_job_one(db_query *q, const char *id, store_mem *mem, store_job *out,
                        store_error *err);
store_status db_drop_checkpoint(store *s, const char *id, store_error *err);

#endif
