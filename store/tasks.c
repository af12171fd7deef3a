/* tasks.c: tasks by number, by name and in pages; soft delete, restore and purge.
 *
 * A name is unique among the tenant's live tasks (a partial index), so that a deleted task does not
 * stand in the way of a new one. Searching by prefix walks that index: names from the prefix up to
 * the prefix followed by the greatest character.
 */
#include "store/db.h"

#include <string.h>

#define TASK_COLUMNS                                                                               \
    "t.id, t.tenant, t.name, t.type, t.labels, t.text_template, t.flags, t.metadata, t.current, "  \
    "t.created, t.updated, t.deleted"

static void read_task(db_query *q, store_mem *mem, void *item)
{
    store_task *out = item;
    out->id = db_int(q);
    out->tenant = db_int(q);
    out->name = db_text(q, mem);
    out->type = db_text(q, mem);
    out->labels = db_text(q, mem);
    out->text_template = db_text(q, mem);
    out->flags = (uint32_t)db_int(q);
    out->metadata = db_text(q, mem);
    out->current = db_int(q);
    out->created = db_int(q);
    out->updated = db_int(q);
    out->deleted = db_int(q);
}

static store_status name_taken(const char *name, store_error *err)
{
    return db_fail(err, STORE_EEXISTS, "name",
                   "a task named %s exists already; choose another name or delete it", name);
}

/* ---- one task ------------------------------------------------------------------------------ */

store_status db_task_insert(store *s, const store_task *task, int64_t *id, store_error *err)
{
    store_status status = db_check_name("name", task->name, err);
    if (status == STORE_OK) {
        status = db_check_name("type", task->type, err);
    }
    if (status == STORE_OK) {
        status = db_check_json(s, "labels", task->labels, err);
    }
    if (status == STORE_OK) {
        status = db_check_json(s, "metadata", task->metadata, err);
    }
    db_query q;
    if (status == STORE_OK) {
        status = db_prepare(s,
                            "INSERT INTO tasks (tenant, name, type, labels, text_template, flags,"
                            " metadata, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?8, ?8)",
                            &q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, task->tenant);
    db_bind_text(&q, task->name);
    db_bind_text(&q, task->type);
    db_bind_text(&q, task->labels);
    db_bind_text(&q, task->text_template);
    db_bind_int(&q, (int64_t)task->flags);
    db_bind_text(&q, task->metadata);
    db_bind_int(&q, task->created);
    status = db_run(&q, err);
    *id = sqlite3_last_insert_rowid(s->db);
    if (status == STORE_EEXISTS) {
        return name_taken(task->name, err);
    }
    if (status == STORE_ENOTFOUND) {
        return db_fail(err, status, "tenant", "no tenant with this number");
    }
    return status;
}

static store_status create_with_version(store *s, const store_task *task,
                                        const store_version *first, int64_t *id, store_error *err)
{
    store_status status = db_task_insert(s, task, id, err);
    if (status != STORE_OK || first == NULL) {
        return status;
    }
    int64_t number = 0;
    status = db_version_insert(s, *id, first, &number, err);
    if (status == STORE_OK) {
        status = db_set_current(s, *id, number, task->created, err);
    }
    return status;
}

store_status store_task_create(store *s, const store_task *task, const store_version *first,
                               int64_t *id, store_error *err)
{
    *id = 0;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, create_with_version(s, task, first, id, err), err);
    if (status != STORE_OK) {
        *id = 0;
    }
    return status;
}

/* Reads the one row of a bound query. */
static store_status task_read(db_query *q, const char *what, store_mem *mem, store_task *out,
                              store_error *err)
{
    store_status status = db_step(q, err);
    if (status == STORE_OK && q->row) {
        read_task(q, mem, out);
    } else if (status == STORE_OK) {
        status = db_not_found(err, "task", what);
    }
    status = db_finish(q, status, err);
    if (status != STORE_OK) {
        *out = (store_task){0};
    }
    return status;
}

store_status store_task_get(store *s, int64_t tenant, int64_t id, store_mem *mem, store_task *out,
                            store_error *err)
{
    *out = (store_task){0};
    db_query q;
    store_status status =
        db_prepare(s, "SELECT " TASK_COLUMNS " FROM tasks t WHERE id = ? AND tenant = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, id);
    db_bind_int(&q, tenant);
    return task_read(&q, "with this number", mem, out, err);
}

store_status store_task_find(store *s, int64_t tenant, const char *name, store_mem *mem,
                             store_task *out, store_error *err)
{
    *out = (store_task){0};
    db_query q;
    store_status status = db_prepare(
        s, "SELECT " TASK_COLUMNS " FROM tasks t WHERE tenant = ? AND name = ? AND deleted = 0", &q,
        err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, name);
    return task_read(&q, name, mem, out, err);
}

store_status store_task_find_deleted(store *s, int64_t tenant, const char *name, store_mem *mem,
                                     store_task *out, store_error *err)
{
    *out = (store_task){0};
    db_query q;
    store_status status =
        db_prepare(s,
                   "SELECT " TASK_COLUMNS " FROM tasks t WHERE tenant = ? AND name = ?"
                   " AND deleted > 0 ORDER BY deleted DESC, id DESC LIMIT 1",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    db_bind_text(&q, name);
    return task_read(&q, name, mem, out, err);
}

store_status db_task_check(store *s, int64_t tenant, int64_t id, store_error *err)
{
    db_query q;
    int64_t found = 0;
    store_status status =
        db_prepare(s, "SELECT 1 FROM tasks WHERE id = ? AND tenant = ? AND deleted = 0", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, id);
    db_bind_int(&q, tenant);
    status = db_scalar(&q, &found, err);
    return status == STORE_ENOTFOUND ? db_not_found(err, "task", "with this number") : status;
}

/* ---- lists --------------------------------------------------------------------------------- */

/* ?1 tenant, ?2 prefix, ?3 contains, ?4 type, ?5 limit + 1; the index is named because only it makes a
 * page cost no more than its rows. */
#define FILTERS                                                                                    \
    " AND (?2 IS NULL OR substr(name, 1, length(?2)) = ?2) AND (?3 IS NULL OR instr(name, ?3) > "  \
    "0)"                                                                                           \
    " AND (?4 IS NULL OR type = ?4)"
#define LIST_BY_ID(beyond, direction)                                                              \
    "SELECT " TASK_COLUMNS " FROM tasks t INDEXED BY tasks_tenant WHERE tenant = ?1"               \
    " AND deleted = 0" FILTERS " AND id " beyond " ?6 ORDER BY id " direction " LIMIT ?5"
#define LIST_BY_CHANGE(index, which, beyond, direction)                                            \
    "SELECT " TASK_COLUMNS " FROM tasks t INDEXED BY " index                                       \
    " WHERE tenant = ?1 AND deleted " which " 0" FILTERS " AND (updated, id) " beyond              \
    " (?7, ?6) ORDER BY updated " direction ", id " direction " LIMIT ?5"

static const char *const lists[2][2] = {{LIST_BY_ID("<", "DESC"), LIST_BY_ID(">", "ASC")},
                                        {LIST_BY_CHANGE("tasks_updated", "=", "<", "DESC"),
                                         LIST_BY_CHANGE("tasks_updated", "=", ">", "ASC")}};
static const char *const deleted_lists[2] = {LIST_BY_CHANGE("tasks_undo", ">", "<", "DESC"),
                                             LIST_BY_CHANGE("tasks_undo", ">", ">", "ASC")};

/* When the task that ended the page before was changed last. */
static store_status find_change(store *s, int64_t tenant, const store_task_query *query, int64_t id,
                                int64_t *change, store_error *err)
{
    *change = query->page.oldest_first ? INT64_MIN : INT64_MAX;
    if (!query->by_change || query->page.after == NULL) {
        return STORE_OK;
    }
    db_query q;
    store_status status =
        db_prepare(s, "SELECT updated FROM tasks WHERE id = ? AND tenant = ?", &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, id);
    db_bind_int(&q, tenant);
    status = db_scalar(&q, change, err);
    return status == STORE_ENOTFOUND ? db_not_found(err, "task", query->page.after) : status;
}

static store_status list_by_age(store *s, int64_t tenant, const store_task_query *query,
                                db_query *q, store_error *err)
{
    int64_t start = 0, change = 0;
    bool forward = query->page.oldest_first;
    store_status status = db_page_number(&query->page, &start, err);
    if (status == STORE_OK && query->deleted && !query->by_change) {
        status = db_fail(err, STORE_EINVAL, "deleted", "deleted tasks are listed by change only");
    }
    if (status == STORE_OK) {
        status = find_change(s, tenant, query, start, &change, err);
    }
    if (status == STORE_OK) {
        status = db_prepare(
            s, query->deleted ? deleted_lists[forward] : lists[query->by_change][forward], q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(q, tenant);
    db_bind_text(q, query->prefix);
    db_bind_text(q, query->contains);
    db_bind_text(q, query->type);
    db_bind_int(q, (int64_t)query->page.limit + 1);
    db_bind_int(q, start);
    if (query->by_change) {
        db_bind_int(q, change);
    }
    return STORE_OK;
}

/* One range over the index (tenant, name): from the greater of prefix and after, to the prefix followed
 * by U+10FFFF, a character that is never assigned. One bound a side: SQLite seeks by one only. */
#define LEAST    "coalesce(?3, '')"
#define GREATEST LEAST " || char(1114111)"
#define LIST_BY_NAME(index, which, bounds, direction)                                              \
    "SELECT " TASK_COLUMNS " FROM tasks t INDEXED BY " index                                       \
    " WHERE tenant = ?1 AND deleted = 0" which bounds                                              \
    " AND name <> ?2 AND (?5 IS NULL OR instr(name, ?5) > 0) ORDER BY name " direction " LIMIT ?4"
#define FORWARD  " AND name >= max(?2, " LEAST ") AND name <= " GREATEST
#define BACKWARD " AND name >= " LEAST " AND name <= min(?2, " GREATEST ")"
#define OF_TYPE  " AND type = ?6"

/* [whether a type is asked][forward] */
static const char *const named_lists[2][2] = {
    {LIST_BY_NAME("tasks_name", "", BACKWARD, "DESC"),
     LIST_BY_NAME("tasks_name", "", FORWARD, "ASC")},
    {LIST_BY_NAME("tasks_type", OF_TYPE, BACKWARD, "DESC"),
     LIST_BY_NAME("tasks_type", OF_TYPE, FORWARD, "ASC")}};

static store_status list_by_name(store *s, int64_t tenant, const store_task_query *query,
                                 db_query *q, store_error *err)
{
    int64_t unused = 0;
    bool forward = query->page.oldest_first;
    store_status status = db_page_start(&query->page, &unused, err);
    if (status == STORE_OK && query->deleted) {
        status = db_fail(err, STORE_EINVAL, "deleted", "deleted tasks are listed by change only");
    }
    if (status == STORE_OK) {
        status = db_prepare(s, named_lists[query->type != NULL][forward], q, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    const char *after = query->page.after;
    db_bind_int(q, tenant);
    db_bind_text(q, after != NULL ? after : forward ? "" : "\xF4\x8F\xBF\xBF\xF4\x8F\xBF\xBF");
    db_bind_text(q, query->prefix);
    db_bind_int(q, (int64_t)query->page.limit + 1);
    db_bind_text(q, query->contains);
    if (query->type != NULL) {
        db_bind_text(q, query->type);
    }
    return STORE_OK;
}

store_status store_task_list(store *s, int64_t tenant, const store_task_query *query,
                             store_mem *mem, store_task **items, size_t *n, bool *has_more,
                             store_error *err)
{
    *items = NULL;
    *n = 0;
    *has_more = false;
    db_query q;
    void *rows = NULL;
    store_status status = query->by_name ? list_by_name(s, tenant, query, &q, err)
                                         : list_by_age(s, tenant, query, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    status =
        db_list(&q, query->page.limit, sizeof **items, read_task, mem, &rows, n, has_more, err);
    *items = rows;
    return status;
}

/* ---- changes ------------------------------------------------------------------------------- */

static store_status change_task(store *s, int64_t tenant, int64_t id,
                                const store_task_change *change, int64_t now, store_error *err)
{
    db_query q;
    store_status status =
        db_prepare(s,
                   "UPDATE tasks SET name = coalesce(?1, name), text_template = coalesce(?2, "
                   "text_template), metadata = coalesce(?3, metadata), updated = ?4"
                   " WHERE id = ?5 AND tenant = ?6 AND deleted = 0",
                   &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_text(&q, change->name);
    db_bind_text(&q, change->text_template);
    db_bind_text(&q, change->metadata);
    db_bind_int(&q, now);
    db_bind_int(&q, id);
    db_bind_int(&q, tenant);
    status = db_run(&q, err);
    if (status == STORE_EEXISTS) {
        return name_taken(change->name, err);
    }
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_not_found(err, "task", "with this number");
    }
    return status;
}

store_status store_task_update(store *s, int64_t tenant, int64_t id,
                               const store_task_change *change, int64_t now, store_error *err)
{
    store_status status = STORE_OK;
    if (change->name != NULL) {
        status = db_check_name("name", change->name, err);
    }
    if (status == STORE_OK) {
        status = db_check_json(s, "metadata", change->metadata, err);
    }
    if (status == STORE_OK) {
        status = db_write_begin(s, err);
    }
    if (status != STORE_OK) {
        return status;
    }
    return db_write_end(s, change_task(s, tenant, id, change, now, err), err);
}

static store_status refuse_while_jobs(store *s, int64_t id, store_error *err)
{
    db_query q;
    int64_t jobs = 0;
    store_status status = db_prepare(
        s,
        "SELECT count(*) FROM jobs WHERE task = ? AND status IN ('validating_files', 'queued',"
        " 'running', 'paused')",
        &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, id);
    status = db_scalar(&q, &jobs, err);
    if (status == STORE_OK && jobs > 0) {
        return db_fail(err, STORE_ESTATE, "task",
                       "%lld unfinished jobs will publish into this task; cancel them first",
                       (long long)jobs);
    }
    return status;
}

/* `sql`: ?1 the time, ?2 the id, ?3 the tenant. */
static store_status stamp_task(store *s, const char *sql, int64_t tenant, int64_t id, int64_t now,
                               store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, sql, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, now);
    db_bind_int(&q, id);
    db_bind_int(&q, tenant);
    status = db_run(&q, err);
    if (status == STORE_OK && db_changes(s) == 0) {
        return db_not_found(err, "task", "with this number");
    }
    return status;
}

store_status store_task_delete(store *s, int64_t tenant, int64_t id, int64_t now, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_task_check(s, tenant, id, err);
    if (status == STORE_OK) {
        status = refuse_while_jobs(s, id, err);
    }
    if (status == STORE_OK) {
        status = stamp_task(s,
                            "UPDATE tasks SET deleted = max(?1, 1), updated = ?1 WHERE id = ?2"
                            " AND tenant = ?3 AND deleted = 0",
                            tenant, id, now, err);
    }
    return db_write_end(s, status, err);
}

store_status store_task_restore(store *s, int64_t tenant, int64_t id, int64_t now, store_error *err)
{
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = stamp_task(s,
                        "UPDATE tasks SET deleted = 0, updated = ?1 WHERE id = ?2 AND tenant = ?3"
                        " AND deleted > 0",
                        tenant, id, now, err);
    if (status == STORE_EEXISTS) {
        db_fail(err, status, "name", "a task with its name exists now; rename that one first");
    }
    return db_write_end(s, status, err);
}

static store_status purge_one(store *s, int64_t id, store_error *err)
{
    static const char *const steps[] = {
        "UPDATE tasks SET current = NULL WHERE id = ?", "DELETE FROM task_versions WHERE task = ?",
        "DELETE FROM task_usage WHERE task = ?", "DELETE FROM tasks WHERE id = ?"};
    store_status status = STORE_OK;
    for (size_t i = 0; status == STORE_OK && i < sizeof steps / sizeof steps[0]; i++) {
        db_query q;
        status = db_prepare(s, steps[i], &q, err);
        if (status == STORE_OK) {
            db_bind_int(&q, id);
            status = db_run(&q, err);
        }
    }
    return status;
}

static store_status purge(store *s, int64_t before, size_t limit, size_t *removed, store_error *err)
{
    store_status status = STORE_OK;
    while (status == STORE_OK && *removed < limit) {
        db_query q;
        int64_t id = 0;
        status = db_prepare(s, "SELECT id FROM tasks WHERE deleted > 0 AND deleted < ? LIMIT 1", &q,
                            err);
        if (status != STORE_OK) {
            return status;
        }
        db_bind_int(&q, before);
        status = db_scalar(&q, &id, err);
        if (status == STORE_ENOTFOUND) {
            return STORE_OK;
        }
        if (status == STORE_OK) {
            status = purge_one(s, id, err);
            *removed += 1;
        }
    }
    return status;
}

store_status store_tasks_purge(store *s, int64_t before, size_t limit, size_t *removed,
                               store_error *err)
{
    *removed = 0;
    store_status status = db_write_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_write_end(s, purge(s, before, limit, removed, err), err);
    if (status != STORE_OK) {
        *removed = 0;
    }
    return status;
}

/* ---- the registry -------------------------------------------------------------------------- */

/* The index lists one tenant's tasks in the order of rowids, so that tables are read from front to
 * back. */
#define WITH_CURRENT                                                                               \
    "SELECT " TASK_COLUMNS ", " DB_VERSION_COLUMNS " FROM tasks t INDEXED BY tasks_tenant"         \
    " LEFT JOIN task_versions v ON v.task = t.id AND v.number = t.current"                         \
    " LEFT JOIN bases b ON b.id = v.base WHERE t.deleted = 0 AND t.tenant = ?"

/* Steps through a bound query of WITH_CURRENT and finishes it. */
static store_status walk(db_query *q, store_each_task each, void *arg, store_error *err)
{
    store_status status = db_step(q, err);
    while (status == STORE_OK && q->row) {
        store_task task = {0};
        store_version version = {0};
        read_task(q, NULL, &task);
        db_read_version(q, NULL, &version);
        if (q->code != SQLITE_OK || !each(arg, &task, task.current != 0 ? &version : NULL)) {
            break;
        }
        status = db_step(q, err);
    }
    return db_finish(q, status, err);
}

/* What the registry keeps, and no more: a start reads a million of these. */
#define FOR_REGISTRY                                                                               \
    "SELECT t.id, t.tenant, t.name, t.type, t.labels, t.text_template, t.flags, t.current,"        \
    " v.number, v.route, v.answer_length, v.label_scaling, v.has_prompt, v.has_head,"              \
    " b.model_fingerprint, b.bank_fingerprint"                                                     \
    " FROM tasks t LEFT JOIN task_versions v ON v.task = t.id AND v.number = t.current"            \
    " LEFT JOIN bases b ON b.id = v.base WHERE t.deleted = 0 ORDER BY t.id"

static void read_for_registry(db_query *q, store_task *task, store_version *version)
{
    task->id = db_int(q);
    task->tenant = db_int(q);
    task->name = db_text(q, NULL);
    task->type = db_text(q, NULL);
    task->labels = db_text(q, NULL);
    task->text_template = db_text(q, NULL);
    task->flags = (uint32_t)db_int(q);
    task->current = db_int(q);
    version->task = task->id;
    version->number = db_int(q);
    version->route = db_blob(q, NULL);
    version->answer_length = db_blob(q, NULL);
    version->label_scaling = db_blob(q, NULL);
    version->has_prompt = db_int(q) != 0;
    version->has_head = db_int(q) != 0;
    version->model_fingerprint = db_text(q, NULL);
    version->bank_fingerprint = db_text(q, NULL);
}

store_status store_tasks_load(store *s, store_each_task each, void *arg, store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, FOR_REGISTRY, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    status = db_step(&q, err);
    while (status == STORE_OK && q.row) {
        store_task task = {0};
        store_version version = {0};
        read_for_registry(&q, &task, &version);
        if (q.code != SQLITE_OK || !each(arg, &task, task.current != 0 ? &version : NULL)) {
            break;
        }
        status = db_step(&q, err);
    }
    return db_finish(&q, status, err);
}

store_status store_tasks_count(store *s, int64_t *n, store_error *err)
{
    db_query q;
    *n = 0;
    store_status status = db_prepare(s, "SELECT count(*) FROM tasks", &q, err);
    return status == STORE_OK ? db_scalar(&q, n, err) : status;
}

store_status store_tasks_each(store *s, int64_t tenant, store_each_task each, void *arg,
                              store_error *err)
{
    db_query q;
    store_status status = db_prepare(s, WITH_CURRENT, &q, err);
    if (status != STORE_OK) {
        return status;
    }
    db_bind_int(&q, tenant);
    return walk(&q, each, arg, err);
}
