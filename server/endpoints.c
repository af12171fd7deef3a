/* endpoints.c: THE table, and the search in it.
 *
 * The table is small, so a request walks all of it: rows whose path fits compete, and the one with a
 * fixed segment where another has a name wins. Comparing raw segments means that "%2F" stays inside
 * its segment and "/v1/%74asks" is not "/v1/tasks".
 */
#include "server/endpoints.h"
#include "server/errmap.h"

#include <stdio.h>
#include <string.h>

#define ADMIN   STORE_SCOPE_ADMIN
#define READ    STORE_SCOPE_READ
#define PREDICT STORE_SCOPE_PREDICT
#define ADAPT   STORE_SCOPE_ADAPT
#define ANY     (ADMIN | READ | PREDICT | ADAPT)

/* clang-format off */
const struct endpoint endpoints[] = {
    /* method, pattern, scopes, body, limit, api, label, handler, sink */
    {"GET", "/", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "root", ep_root, NULL},
    {"GET", "/static/{asset}", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "static", ep_asset, NULL},
    {"GET", "/healthz", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "healthz", ep_healthz, NULL},
    {"GET", "/readyz", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "readyz", ep_readyz, NULL},
    {"GET", "/metrics", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "metrics", ep_metrics, NULL},
    {"GET", "/version", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "version", ep_version, NULL},
    {"GET", "/openapi.json", 0, BODY_NONE, LIMIT_NONE, API_NATIVE, "openapi", ep_openapi, NULL},

    {"POST", "/v1/predict", PREDICT, BODY_JSON, LIMIT_JSON, API_NATIVE, "predict", ep_predict, NULL},

    {"GET", "/v1/tasks", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "tasks", ep_tasks_list, NULL},
    {"POST", "/v1/tasks", ADAPT, BODY_JSON, LIMIT_JSON, API_NATIVE, "tasks", ep_tasks_create, NULL},
    {"GET", "/v1/tasks/{task}", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "tasks", ep_task_get, NULL},
    {"PATCH", "/v1/tasks/{task}", ADAPT, BODY_JSON, LIMIT_JSON, API_NATIVE, "tasks", ep_task_update, NULL},
    {"DELETE", "/v1/tasks/{task}", ADAPT, BODY_NONE, LIMIT_NONE, API_NATIVE, "tasks", ep_task_delete, NULL},
    {"POST", "/v1/tasks/{task}/restore", ADAPT, BODY_JSON_OPTIONAL, LIMIT_JSON, API_NATIVE, "tasks", ep_task_restore, NULL},
    {"GET", "/v1/tasks/{task}/similar", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "tasks", ep_task_similar, NULL},
    {"GET", "/v1/tasks/{task}/usage", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "tasks", ep_task_usage, NULL},
    {"POST", "/v1/tasks/{task}/evaluate", PREDICT, BODY_JSON, LIMIT_JSON, API_NATIVE, "evaluate", ep_task_evaluate, NULL},
    {"GET", "/v1/tasks/{task}/versions", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "versions", ep_versions_list, NULL},
    {"POST", "/v1/tasks/{task}/versions", ADAPT, BODY_JSON, LIMIT_JSON, API_NATIVE, "versions", ep_versions_import, NULL},
    {"GET", "/v1/tasks/{task}/versions/{version}", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "versions", ep_version_get, NULL},
    {"POST", "/v1/tasks/{task}/current", ADAPT, BODY_JSON, LIMIT_JSON, API_NATIVE, "versions", ep_task_current, NULL},
    {"PUT", "/v1/tasks/{task}/current", ADAPT, BODY_JSON, LIMIT_JSON, API_NATIVE, "versions", ep_task_current, NULL},

    {"GET", "/v1/models", ANY, BODY_NONE, LIMIT_NONE, API_OPENAI, "models", ep_models_list, NULL},
    {"GET", "/v1/models/{model}", ANY, BODY_NONE, LIMIT_NONE, API_OPENAI, "models", ep_model_get, NULL},
    {"DELETE", "/v1/models/{model}", ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "models", ep_model_delete, NULL},

    {"GET", "/v1/usage", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "usage", ep_usage, NULL},
    {"GET", "/v1/me", ANY, BODY_NONE, LIMIT_NONE, API_NATIVE, "me", ep_me, NULL},

    {"GET", "/v1/admin/tenants", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "tenants", ep_tenants_list, NULL},
    {"POST", "/v1/admin/tenants", ADMIN, BODY_JSON, LIMIT_JSON, API_NATIVE, "tenants", ep_tenants_create, NULL},
    {"GET", "/v1/admin/tenants/{tenant}", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "tenants", ep_tenant_get, NULL},
    {"PATCH", "/v1/admin/tenants/{tenant}", ADMIN, BODY_JSON, LIMIT_JSON, API_NATIVE, "tenants", ep_tenant_update, NULL},
    {"GET", "/v1/admin/tenants/{tenant}/keys", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "keys", ep_keys_list, NULL},
    {"POST", "/v1/admin/tenants/{tenant}/keys", ADMIN, BODY_JSON, LIMIT_JSON, API_NATIVE, "keys", ep_keys_create, NULL},
    {"PATCH", "/v1/admin/tenants/{tenant}/keys/{key}", ADMIN, BODY_JSON, LIMIT_JSON, API_NATIVE, "keys", ep_key_update, NULL},
    {"DELETE", "/v1/admin/tenants/{tenant}/keys/{key}", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "keys", ep_key_revoke, NULL},
    {"POST", "/v1/admin/tenants/{tenant}/keys/{key}/rotate", ADMIN, BODY_JSON_OPTIONAL, LIMIT_JSON, API_NATIVE, "keys", ep_key_rotate, NULL},
    {"GET", "/v1/admin/stats", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "stats", ep_stats, NULL},
    {"GET", "/v1/admin/audit", ADMIN, BODY_NONE, LIMIT_NONE, API_NATIVE, "audit", ep_audit, NULL},
    {"POST", "/v1/admin/backup", ADMIN, BODY_JSON_OPTIONAL, LIMIT_JSON, API_NATIVE, "backup", ep_backup, NULL},

    {"POST", "/v1/files", ADAPT, BODY_STREAM, LIMIT_FILE, API_OPENAI, "files", ep_files_create, &upload_sink},
    {"GET", "/v1/files", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "files", ep_files_list, NULL},
    {"GET", "/v1/files/{file}", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "files", ep_file_get, NULL},
    {"GET", "/v1/files/{file}/content", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "files", ep_file_content, NULL},
    {"DELETE", "/v1/files/{file}", ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "files", ep_file_delete, NULL},

    {"POST", "/v1/fine_tuning/jobs", ADAPT, BODY_JSON, LIMIT_JSON, API_OPENAI, "jobs", ep_jobs_create, NULL},
    {"POST", "/v1/fine_tuning/jobs/estimate", ADAPT, BODY_JSON, LIMIT_JSON, API_OPENAI, "jobs", ep_jobs_estimate, NULL},
    {"GET", "/v1/fine_tuning/jobs", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "jobs", ep_jobs_list, NULL},
    {"GET", "/v1/fine_tuning/jobs/{job}", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "jobs", ep_job_get, NULL},
    {"POST", "/v1/fine_tuning/jobs/{job}/cancel", ADAPT, BODY_JSON_OPTIONAL, LIMIT_JSON, API_OPENAI, "jobs", ep_job_cancel, NULL},
    {"POST", "/v1/fine_tuning/jobs/{job}/pause", ADAPT, BODY_JSON_OPTIONAL, LIMIT_JSON, API_OPENAI, "jobs", ep_job_pause, NULL},
    {"POST", "/v1/fine_tuning/jobs/{job}/resume", ADAPT, BODY_JSON_OPTIONAL, LIMIT_JSON, API_OPENAI, "jobs", ep_job_resume, NULL},
    {"GET", "/v1/fine_tuning/jobs/{job}/events", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "job_events", ep_job_events, NULL},
    {"GET", "/v1/fine_tuning/jobs/{job}/checkpoints", READ | ADAPT, BODY_NONE, LIMIT_NONE, API_OPENAI, "jobs", ep_job_checkpoints, NULL},

    {"POST", "/hf/{task}", PREDICT, BODY_JSON, LIMIT_JSON, API_HF, "hf", ep_hf_predict, NULL},
    {"GET", "/hf/{task}", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_info, NULL},
    {"GET", "/hf/{task}/info", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_info, NULL},
    {"GET", "/hf/{task}/health", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_health, NULL},
    {"POST", "/hf/{tenant}/{task}", PREDICT, BODY_JSON, LIMIT_JSON, API_HF, "hf", ep_hf_tenant_predict, NULL},
    {"GET", "/hf/{tenant}/{task}", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_tenant_info, NULL},
    {"GET", "/hf/{tenant}/{task}/info", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_tenant_info, NULL},
    {"GET", "/hf/{tenant}/{task}/health", ANY, BODY_NONE, LIMIT_NONE, API_HF, "hf", ep_hf_tenant_health, NULL},

    {"GET", "/v2", 0, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_server, NULL},
    {"GET", "/v2/health/live", 0, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_live, NULL},
    {"GET", "/v2/health/ready", 0, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_ready, NULL},
    {"GET", "/v2/models/{model}", ANY, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_model, NULL},
    {"GET", "/v2/models/{model}/ready", ANY, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_model_ready, NULL},
    {"POST", "/v2/models/{model}/infer", PREDICT, BODY_JSON, LIMIT_JSON, API_OIP, "oip", ep_oip_infer, NULL},
    {"GET", "/v2/models/{model}/versions/{version}", ANY, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_version, NULL},
    {"GET", "/v2/models/{model}/versions/{version}/ready", ANY, BODY_NONE, LIMIT_NONE, API_OIP, "oip", ep_oip_version_ready, NULL},
    {"POST", "/v2/models/{model}/versions/{version}/infer", PREDICT, BODY_JSON, LIMIT_JSON, API_OIP, "oip", ep_oip_version_infer, NULL},
};
/* clang-format on */
const size_t endpoints_count = sizeof endpoints / sizeof endpoints[0];

bool endpoint_makes(const struct endpoint *endpoint)
{
    static void (*const making[])(struct request *) = {
        ep_tasks_create,   ep_versions_import, ep_files_create, ep_jobs_create,
        ep_tenants_create, ep_keys_create,     ep_key_rotate};
    for (size_t i = 0; i < sizeof making / sizeof making[0]; i++) {
        if (endpoint->handle == making[i]) {
            return true;
        }
    }
    return false;
}

/* One segment of each; true when both had one. Moves past it and its slash. */
static bool next_segment(const char **at, const char **segment, size_t *len)
{
    if (**at == '\0') {
        return false;
    }
    *segment = *at;
    *len = strcspn(*at, "/");
    *at += *len;
    *at += **at == '/';
    return true;
}

static bool take_param(struct endpoint_match *match, const char *name, size_t name_len,
                       const char *raw, size_t raw_len)
{
    if (match->n_params == ENDPOINT_MAX_PARAMS || raw_len == 0) {
        return false;
    }
    match->params[match->n_params].name = name;
    match->params[match->n_params].name_len = name_len;
    match->params[match->n_params].raw = raw;
    match->params[match->n_params].raw_len = raw_len;
    match->n_params++;
    return true;
}

/* The number of fixed segments, or -1 when the path does not fit. */
static int fit(const char *pattern, const char *path, struct endpoint_match *match)
{
    int fixed = 0;
    size_t path_end = strlen(path), pattern_end = strlen(pattern);
    if ((path[path_end - 1] == '/') != (pattern[pattern_end - 1] == '/')) {
        return -1; /* "/v1/tasks/" is not "/v1/tasks" */
    }
    match->n_params = 0;
    pattern++;
    path++;
    while (true) {
        const char *want = NULL, *have = NULL;
        size_t want_len = 0, have_len = 0;
        bool more = next_segment(&pattern, &want, &want_len);
        if (next_segment(&path, &have, &have_len) != more) {
            return -1;
        }
        if (!more) {
            return fixed;
        }
        if (want[0] == '{') {
            if (!take_param(match, want + 1, want_len - 2, have, have_len)) {
                return -1;
            }
        } else if (want_len == have_len && memcmp(want, have, want_len) == 0) {
            fixed++;
        } else {
            return -1;
        }
    }
}

static void allow(struct endpoint_match *match, const char *method)
{
    size_t at = strlen(match->allow);
    if (strstr(match->allow, method) == NULL) {
        snprintf(match->allow + at, sizeof match->allow - at, "%s%s%s", at > 0 ? ", " : "", method,
                 strcmp(method, "GET") == 0 ? ", HEAD" : "");
    }
}

/* Rows of one path must agree in their fixed segments to be named in one Allow. */
void endpoint_find(const char *method, const char *path, struct endpoint_match *out)
{
    memset(out, 0, sizeof *out);
    out->api = api_of_path(path);
    int best_path = -1;
    struct endpoint_match tried = {0};
    for (size_t i = 0; i < endpoints_count; i++) {
        int fixed = fit(endpoints[i].pattern, path, &tried);
        if (fixed < 0 || fixed < best_path) {
            continue;
        }
        if (fixed > best_path) {
            best_path = fixed;
            out->allow[0] = '\0';
            out->endpoint = NULL;
        }
        out->path_known = true;
        out->api = endpoints[i].api;
        allow(out, endpoints[i].method);
        if (strcmp(endpoints[i].method, method) == 0) {
            out->endpoint = &endpoints[i];
            out->n_params = tried.n_params;
            memcpy(out->params, tried.params, sizeof out->params);
        }
    }
    if (out->path_known) {
        allow(out, "OPTIONS");
    }
}
