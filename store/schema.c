/* schema.c: the tables, as steps from one schema version to the next.
 *
 * A step that was released is never changed; a new one is appended. Each runs in one transaction
 * with its version number (PRAGMA user_version): a crash leaves the old schema or the new one.
 *
 * Why it looks like this:
 *  - lists page by a number that only rises (AUTOINCREMENT: never used again), so that a page begins
 *    where the last ended whatever was deleted in between; texts such as "file-…" are looked up
 *    once.
 *  - rows that are listed hold no large blobs: those live in file_data, version_blobs and
 *    job_checkpoints.
 *  - a million versions of few banks: fingerprints are kept once, in `bases`.
 *  - JSON texts are checked by db_check_json and not by CHECK (json_valid(…)): with TRUSTED_SCHEMA off,
 *    SQLite 3.40 does not let a schema call it.
 *  - task_versions, job_events and audit refuse UPDATE: what was published or said stays.
 *  - jobs name files by text, without a foreign key: a finished job outlives its files.
 */
#include "store/db.h"

#include <stdio.h>

/* clang-format off: one column a line */
static const char first_schema[] =

    "CREATE TABLE tenants ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " name TEXT NOT NULL UNIQUE,"
    " settings TEXT,"
    " created INTEGER NOT NULL,"
    " disabled INTEGER NOT NULL DEFAULT 0) STRICT;"

    "CREATE TABLE api_keys ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),"
    " scopes INTEGER NOT NULL,"
    " label TEXT,"
    " created INTEGER NOT NULL,"
    " expires INTEGER NOT NULL DEFAULT 0,"
    " revoked INTEGER NOT NULL DEFAULT 0,"
    " last_used INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX api_keys_tenant ON api_keys (tenant);"

    "CREATE TABLE tasks ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " name TEXT NOT NULL,"
    " type TEXT NOT NULL,"
    " labels TEXT,"
    " text_template TEXT,"
    " flags INTEGER NOT NULL DEFAULT 0,"
    " metadata TEXT,"
    " current INTEGER,"
    " created INTEGER NOT NULL,"
    " updated INTEGER NOT NULL,"
    " deleted INTEGER NOT NULL DEFAULT 0,"
    " FOREIGN KEY (id, current) REFERENCES task_versions (task, number)) STRICT;"
    "CREATE UNIQUE INDEX tasks_name ON tasks (tenant, name) WHERE deleted = 0;"
    "CREATE INDEX tasks_tenant ON tasks (tenant);"
    "CREATE INDEX tasks_deleted ON tasks (deleted) WHERE deleted > 0;"

    "CREATE TABLE bases ("
    " id INTEGER PRIMARY KEY,"
    " model_fingerprint TEXT NOT NULL,"
    " bank_fingerprint TEXT NOT NULL,"
    " bank TEXT NOT NULL,"
    " UNIQUE (model_fingerprint, bank_fingerprint, bank)) STRICT;"

    "CREATE TABLE task_versions ("
    " id INTEGER PRIMARY KEY,"
    " task INTEGER NOT NULL REFERENCES tasks (id),"
    " number INTEGER NOT NULL CHECK (number > 0),"
    " base INTEGER NOT NULL REFERENCES bases (id),"
    " route BLOB NOT NULL,"
    " method TEXT NOT NULL,"
    " started_from TEXT,"
    " metrics TEXT,"
    " job TEXT,"
    " has_prompt INTEGER NOT NULL,"
    " has_head INTEGER NOT NULL,"
    " created INTEGER NOT NULL,"
    " UNIQUE (task, number)) STRICT;"

    "CREATE TABLE version_blobs ("
    " version INTEGER PRIMARY KEY REFERENCES task_versions (id) ON DELETE CASCADE,"
    " prompt BLOB,"
    " head BLOB) STRICT;"
    "CREATE TRIGGER task_versions_stay BEFORE UPDATE ON task_versions"
    " BEGIN SELECT RAISE(ABORT, 'a version never changes'); END;"

    "CREATE TABLE files ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " filename TEXT NOT NULL,"
    " purpose TEXT NOT NULL,"
    " status TEXT NOT NULL,"
    " details TEXT,"
    " bytes INTEGER NOT NULL,"
    " sha256 BLOB NOT NULL,"
    " created INTEGER NOT NULL,"
    " expires INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX files_tenant ON files (tenant);"

    "CREATE TABLE file_data ("
    " file INTEGER PRIMARY KEY REFERENCES files (seq) ON DELETE CASCADE,"
    " data BLOB NOT NULL) STRICT;"

    "CREATE TABLE jobs ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " status TEXT NOT NULL CHECK (status IN ('validating_files', 'queued', 'running', 'paused',"
    "  'succeeded', 'failed', 'cancelled')),"
    " model TEXT NOT NULL,"
    " spec TEXT NOT NULL,"
    " metadata TEXT,"
    " request_hash TEXT,"
    " seed INTEGER NOT NULL,"
    " training_file TEXT NOT NULL,"
    " validation_file TEXT,"
    " task INTEGER REFERENCES tasks (id) ON DELETE SET NULL,"
    " task_name TEXT NOT NULL,"
    " version INTEGER NOT NULL DEFAULT 0,"
    " result TEXT,"
    " error TEXT,"
    " created INTEGER NOT NULL,"
    " started INTEGER NOT NULL DEFAULT 0,"
    " finished INTEGER NOT NULL DEFAULT 0,"
    " attempts INTEGER NOT NULL DEFAULT 0,"
    " lease_owner TEXT,"
    " lease_until INTEGER NOT NULL DEFAULT 0,"
    " trained_tokens INTEGER NOT NULL DEFAULT 0,"
    " cancel_requested INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX jobs_tenant ON jobs (tenant);"
    "CREATE INDEX jobs_status ON jobs (tenant, status);"
    "CREATE INDEX jobs_open ON jobs (status, tenant)"
    " WHERE status IN ('validating_files', 'queued', 'running', 'paused');"
    "CREATE INDEX jobs_request ON jobs (tenant, request_hash) WHERE request_hash IS NOT NULL;"
    "CREATE INDEX jobs_task ON jobs (task) WHERE task IS NOT NULL;"

    "CREATE TABLE job_checkpoints ("
    " job INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,"
    " step INTEGER NOT NULL,"
    " state BLOB NOT NULL,"
    " created INTEGER NOT NULL) STRICT;"

    "CREATE TABLE job_events ("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,"
    " created INTEGER NOT NULL,"
    " level TEXT NOT NULL,"
    " type TEXT NOT NULL,"
    " message TEXT NOT NULL,"
    " data TEXT) STRICT;"
    "CREATE INDEX job_events_job ON job_events (job);"
    "CREATE TRIGGER job_events_stay BEFORE UPDATE ON job_events"
    " BEGIN SELECT RAISE(ABORT, 'an event never changes'); END;"

    "CREATE TABLE usage ("
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " day INTEGER NOT NULL,"
    " requests INTEGER NOT NULL,"
    " inputs INTEGER NOT NULL,"
    " tokens INTEGER NOT NULL,"
    " jobs INTEGER NOT NULL,"
    " trained_tokens INTEGER NOT NULL,"
    " PRIMARY KEY (tenant, day)) STRICT, WITHOUT ROWID;"

    "CREATE TABLE idempotency ("
    " id INTEGER PRIMARY KEY,"
    " tenant INTEGER NOT NULL REFERENCES tenants (id),"
    " key TEXT NOT NULL,"
    " request_hash TEXT NOT NULL,"
    " expires INTEGER NOT NULL,"
    " status INTEGER NOT NULL DEFAULT 0,"
    " content_type TEXT,"
    " body BLOB,"
    " UNIQUE (tenant, key)) STRICT;"
    "CREATE INDEX idempotency_expires ON idempotency (expires);";
/* Limits of tenants and keys in one place ("quotas"), examples of a file as a column, and indexes for
 * the orders in which tasks are listed. */
static const char second_schema[] =

    "ALTER TABLE api_keys ADD COLUMN settings TEXT;"

    "UPDATE tenants SET settings = json_set(settings, '$.quotas',"
    " json_object('concurrent', json_extract(settings, '$.max_inflight')))"
    " WHERE json_extract(settings, '$.max_inflight') > 0;"
    "UPDATE tenants SET settings = json_remove(settings, '$.max_inflight')"
    " WHERE settings IS NOT NULL;"

    "ALTER TABLE files ADD COLUMN rows INTEGER NOT NULL DEFAULT 0;"
    "UPDATE files SET rows = json_extract(details, '$.rows')"
    " WHERE json_type(details, '$.rows') = 'integer';"

    "CREATE INDEX tasks_updated ON tasks (tenant, updated) WHERE deleted = 0;"
    "CREATE INDEX tasks_type ON tasks (tenant, type, name) WHERE deleted = 0;"
    "CREATE INDEX tasks_undo ON tasks (tenant, name) WHERE deleted > 0;";

static const char third_schema[] =

    "CREATE TABLE audit ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " created INTEGER NOT NULL,"
    " tenant TEXT,"
    " key TEXT,"
    " user TEXT,"
    " action TEXT NOT NULL,"
    " object TEXT,"
    " detail TEXT) STRICT;"
    "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'an audit row never changes'); END;"
    "CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit"
    " BEGIN SELECT RAISE(ABORT, 'an audit row is never removed'); END;";

/* Pausing, estimates, whose turn it is, and what retention looks for. */
static const char fourth_schema[] =

    "ALTER TABLE jobs ADD COLUMN pause_requested INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN estimate TEXT;"
    "CREATE INDEX jobs_finished ON jobs (finished) WHERE finished > 0;"
    "CREATE INDEX files_created ON files (created);"

    "CREATE TABLE job_turns ("
    " tenant INTEGER PRIMARY KEY REFERENCES tenants (id),"
    " turn INTEGER NOT NULL) STRICT;"
    "CREATE INDEX job_turns_turn ON job_turns (turn);";

/* Who asks a task, by key and day. No reference: a purge of the task takes its rows with it. */
static const char fifth_schema[] =

    "CREATE TABLE task_usage ("
    " task INTEGER NOT NULL,"
    " key TEXT NOT NULL,"
    " day INTEGER NOT NULL,"
    " requests INTEGER NOT NULL,"
    " inputs INTEGER NOT NULL,"
    " tokens INTEGER NOT NULL,"
    " PRIMARY KEY (task, key, day)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX task_usage_day ON task_usage (day);";

/* Lists in the order of making walk live tasks alone: beside them lie those deleted within the time of
 * undo, many times as many where tasks come and go. */
static const char sixth_schema[] =

    "DROP INDEX tasks_tenant;"
    "CREATE INDEX tasks_tenant ON tasks (tenant, deleted);";

/* What a version's examples say about the length of answers. */
static const char seventh_schema[] =

    "ALTER TABLE task_versions ADD COLUMN answer_length BLOB;";

/* And about its labels. */
static const char eighth_schema[] =

    "ALTER TABLE task_versions ADD COLUMN label_scaling BLOB;";
/* clang-format on */

static const char *const steps[] = {first_schema, second_schema, third_schema,   fourth_schema,
                                    fifth_schema, sixth_schema,  seventh_schema, eighth_schema};

const db_schema db_current_schema = {steps, (int)(sizeof steps / sizeof steps[0])};

int store_schema_version(void)
{
    return db_current_schema.n;
}

store_status db_pragma_int(store *s, const char *sql, int64_t *out, store_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    *out = code == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
    store_status status = code == SQLITE_ROW || code == SQLITE_DONE
                              ? STORE_OK
                              : db_fail_sqlite(s, code, "cannot read the database", err);
    sqlite3_finalize(stmt);
    return status;
}

static store_status migrate_one(store *s, const char *sql, int version, store_error *err)
{
    char pragmas[128];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             DB_APPLICATION_ID, version);
    store_status status = db_exec(s, "BEGIN IMMEDIATE", err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_exec(s, sql, err);
    if (status == STORE_OK) {
        status = db_exec(s, pragmas, err);
    }
    if (status == STORE_OK) {
        status = db_exec(s, "COMMIT", err);
    }
    if (status != STORE_OK) {
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}

store_status db_migrate(store *s, const db_schema *schema, store_error *err)
{
    int64_t version = 0;
    store_status status = db_pragma_int(s, "PRAGMA user_version", &version, err);
    for (int i = (int)version; status == STORE_OK && i < schema->n; i++) {
        status = migrate_one(s, schema->steps[i], i + 1, err);
    }
    return status;
}
