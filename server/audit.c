/* audit.c: see audit.h. */
#include "server/audit.h"

#include "server/loop.h"

#include <stdlib.h>

struct audited {
    storeq_fn run;
    request_stored done;
    void *arg;
    store_audit row;
};

static store_status run_audited(store *s, void *arg, store_error *err)
{
    const struct audited *audited = arg;
    store_status status = store_step_begin(s, err);
    if (status != STORE_OK) {
        return status;
    }
    if (audited->run != NULL) {
        status = audited->run(s, audited->arg, err);
    }
    if (status == STORE_OK) {
        status = store_audit_add(s, &audited->row, err);
    }
    return store_step_end(s, status, err);
}

static void audited_done(struct request *req, store_status status, const store_error *err,
                         void *arg)
{
    const struct audited *audited = arg;
    audited->done(req, status, err, audited->arg);
}

bool audit_store(struct request *req, storeq_fn run, request_stored done, void *arg,
                 const char *action, const char *object)
{
    struct audited *audited = request_alloc(req, sizeof *audited);
    size_t len = 0;
    char *body = request_json(req) != NULL ? json_text(request_json(req), &len) : NULL;
    char *detail = body != NULL ? request_printf(req, "%s", body) : NULL;
    bool short_of_memory =
        audited == NULL || object == NULL || (request_json(req) != NULL && detail == NULL);
    free(body);
    if (short_of_memory) {
        reply_no_memory(req);
        return false;
    }
    *audited = (struct audited){run,
                                done,
                                arg,
                                {.created = wall_ms(),
                                 .tenant = request_tenant_name(req),
                                 .key = request_key_id(req),
                                 .action = action,
                                 .object = object,
                                 .detail = detail}};
    return request_store(req, run_audited, false, audited_done, audited);
}

json_t *audit_view(const store_audit *row)
{
    json_t *detail = json_stored(row->detail);
    return json_pack("{s:I, s:I, s:{s:s?, s:s?, s:s?}, s:s, s:s?, s:o}", "id", (json_int_t)row->id,
                     "created_at", (json_int_t)(row->created / 1000), "actor", "tenant",
                     row->tenant, "key", row->key, "user", row->user, "action", row->action,
                     "object", row->object, "detail", detail != NULL ? detail : json_null());
}
