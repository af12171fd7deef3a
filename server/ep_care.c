/* ep_care.c: what the administrator of a running server does: backups, and reading the audit log. */
#include "server/audit.h"
#include "server/backup.h"
#include "server/config.h"
#include "server/endpoints.h"
#include "server/log.h"
#include "server/loop.h"

#include <string.h>
#include <time.h>

#define MAX_NAME      128
#define MAX_PAGE_ROWS 100

/* ---- backup -------------------------------------------------------------------------------------- */

static void backup_recorded(struct request *req, store_status status, const store_error *err,
                            void *arg)
{
    const struct backup_result *made = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    reply_json(req, 201,
               json_pack("{s:s, s:s, s:I, s:f, s:I}", "object", "backup", "path", made->path,
                         "bytes", (json_int_t)made->bytes, "seconds", (double)made->took_ms / 1000,
                         "created_at", (json_int_t)(made->began_ms / 1000)));
}

static void backup_made(struct request *req, const struct backup_result *made)
{
    struct log_line line;
    log_begin(&line, made->status == STORE_OK ? LOG_INFO : LOG_WARN, "backup");
    log_text(&line, "id", request_id(req));
    log_text(&line, "path", made->path);
    log_number(&line, "bytes", made->bytes);
    log_number(&line, "ms", made->took_ms);
    log_text(&line, "failed", made->status != STORE_OK ? made->err.text : NULL);
    log_end(&line);
    if (made->status == STORE_OK) {
        audit_store(req, NULL, backup_recorded, (void *)(uintptr_t)made, "backup.create",
                    made->path);
    } else if (made->status == STORE_ESTATE) {
        reply_problem(req, 503, "stopping", NULL, "the server is stopping; nothing was kept");
    } else if (made->status == STORE_EEXISTS) {
        reply_problem(req, 409, "exists", "#/name", "%s exists already", made->path);
    } else {
        reply_store_error(req, made->status, &made->err);
    }
}

/* A plain file name: nothing that leads elsewhere, nothing hidden. */
static bool is_name(const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_.";
    size_t len = strlen(name);
    return len > 0 && len <= MAX_NAME && name[0] != '.' && strspn(name, plain) == len;
}

static const char *dated_name(struct request *req)
{
    char stamp[32];
    time_t now = (time_t)(wall_ms() / 1000);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    return request_printf(req, "mp2-%s.db", stamp);
}

void ep_backup(struct request *req)
{
    static const char *const known[] = {"name", NULL};
    struct problems problems = {0};
    const struct config *config = request_server(req)->config;
    const char *name = NULL;
    if (request_json(req) != NULL) {
        json_only(request_json(req), "#", known, &problems);
        if (json_get_string(request_json(req), "#", "name", JSON_OPTIONAL_FIELD, 0, SIZE_MAX, &name,
                            &problems) &&
            !is_name(name)) {
            problem_add(&problems, "#", "name",
                        "\"name\" must be 1 to %d letters, digits, \"-\", \"_\" and \".\", not "
                        "beginning with \".\"",
                        MAX_NAME);
        }
    }
    if (problems.count > 0) {
        reply_problems(req, &problems);
        return;
    }
    if (config->backup_dir[0] == '\0') {
        reply_problem(req, 409, "no_backup_dir", NULL,
                      "this server has no place for backups (setting backup_dir)");
        return;
    }
    name = name != NULL ? name : dated_name(req);
    const char *path = name != NULL ? request_printf(req, "%s/%s", config->backup_dir, name) : NULL;
    if (path == NULL) {
        reply_no_memory(req);
        return;
    }
    request_set_deadline(req, config->backup_timeout);
    backup_begin(req, path, backup_made);
}

/* ---- audit log ------------------------------------------------------------------------------------- */

struct audit_call {
    store_mem *mem;
    store_status status;
    store_error err;
    store_page page;
    store_audit *rows;
    size_t n;
    bool has_more;
};

static void release_call(void *data)
{
    store_mem_free(((struct audit_call *)data)->mem);
}

static void read_audit(void *arg, store *reader)
{
    struct audit_call *call = arg;
    if (reader == NULL) {
        call->status = STORE_EBUSY;
        return;
    }
    call->status = store_audit_list(reader, &call->page, call->mem, &call->rows, &call->n,
                                    &call->has_more, &call->err);
}

static void show_audit(struct request *req, void *arg)
{
    struct audit_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, audit_view(&call->rows[i]));
    }
    reply_json(
        req, 200,
        json_pack("{s:s, s:o, s:b}", "object", "list", "data", data, "has_more", call->has_more));
}

void ep_audit(struct request *req)
{
    struct audit_call *call = request_alloc(req, sizeof *call);
    store_mem *mem = store_mem_new();
    uint64_t limit = 0;
    if (call == NULL || mem == NULL) {
        store_mem_free(mem);
        reply_no_memory(req);
        return;
    }
    *call = (struct audit_call){.mem = mem};
    request_set_data(req, call, release_call);
    if (request_query_u64(req, "limit", 1, MAX_PAGE_ROWS, 20, &limit)) {
        call->page = (store_page){.after = request_query(req, "after"), .limit = (size_t)limit};
        request_offload(req, read_audit, show_audit, call);
    }
}
