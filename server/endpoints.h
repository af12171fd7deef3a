/* endpoints.h: THE table of what the server answers.
 *
 * A pattern is matched on the raw path, segment by segment; {name} takes one segment, percent-decoded
 * afterwards, so a name may hold %2F. Rows with fixed segments win over rows with names. A known path
 * with another method is 405 with Allow; HEAD runs GET; OPTIONS answers Allow.
 *
 * To add an endpoint: declare its handler below, add a row to the table in endpoints.c.
 */
#ifndef SERVER_ENDPOINTS_H
#define SERVER_ENDPOINTS_H

#include "server/http.h"

enum body_kind {
    BODY_NONE,          /* a body is refused (413) unless empty; DELETE may carry one, ignored */
    BODY_JSON,          /* a JSON object; 415 for another content type, 400 malformed */
    BODY_JSON_OPTIONAL, /* the same, or nothing */
    BODY_RAW,           /* bytes, any content type */
    BODY_STREAM         /* handed to a body_sink piece by piece as they arrive */
};

/* Which setting limits the body. */
enum body_limit { LIMIT_NONE, LIMIT_JSON /* max_json */, LIMIT_FILE /* max_upload */ };

/* Receives a body that is never held whole. `begin` checks headers and sets request_data; `data` takes
 * a piece. Either may reply (an error): what still comes is then swallowed up to the limit. When all
 * has come and no reply was made, the endpoint's handler is called. */
struct body_sink {
    void (*begin)(struct request *req);
    void (*data)(struct request *req, const char *bytes, size_t len);
};

/* How errors look. */
enum api { API_NATIVE, API_OPENAI, API_HF, API_OIP };

struct endpoint {
    const char *method; /* GET, POST, PATCH, PUT, DELETE */
    const char *pattern;
    uint32_t scopes; /* one of these must be held; 0: public. admin holds read as well */
    enum body_kind body;
    enum body_limit limit;
    enum api api;
    const char *label; /* for metrics and logs: "predict" */
    void (*handle)(struct request *req);
    const struct body_sink *sink; /* BODY_STREAM */
};

extern const struct endpoint endpoints[];
extern const size_t endpoints_count;

/* A POST that makes something: an Idempotency-Key counts. */
bool endpoint_makes(const struct endpoint *endpoint);

#define ENDPOINT_MAX_PARAMS 4

struct endpoint_match {
    const struct endpoint *endpoint; /* NULL: none has this path and method */
    bool path_known;                 /* some endpoint has this path: 405, not 404 */
    char allow[64];                  /* "GET, HEAD, POST, OPTIONS" */
    enum api api;                    /* of the path: how its errors look */
    size_t n_params;
    struct {
        const char *name; /* points into the pattern, name_len bytes */
        size_t name_len;
        const char *raw; /* points into the path */
        size_t raw_len;
    } params[ENDPOINT_MAX_PARAMS];
};
/* `path` raw, without the query, accepted by gate_path. */
void endpoint_find(const char *method, const char *path, struct endpoint_match *out);

/* ---- handlers, by file ------------------------------------------------------------------------- */

/* ep_ops.c */
void ep_healthz(struct request *req);
void ep_readyz(struct request *req);
void ep_metrics(struct request *req);
void ep_version(struct request *req);

/* assets.c */
void ep_root(struct request *req);
void ep_asset(struct request *req);

/* openapi.c */
void ep_openapi(struct request *req);

/* ep_predict.c */
void ep_predict(struct request *req);

/* ep_tasks.c */
void ep_tasks_list(struct request *req);
void ep_tasks_create(struct request *req);
void ep_task_get(struct request *req);
void ep_task_update(struct request *req);
void ep_task_delete(struct request *req);
void ep_task_restore(struct request *req);

/* ep_similar.c */
void ep_task_similar(struct request *req);

/* ep_evaluate.c */
void ep_task_evaluate(struct request *req);

/* ep_versions.c */
void ep_versions_list(struct request *req);
void ep_versions_import(struct request *req);
void ep_version_get(struct request *req);
void ep_task_current(struct request *req);

/* ep_models.c */
void ep_models_list(struct request *req);
void ep_model_get(struct request *req);
void ep_model_delete(struct request *req);

/* ep_tenants.c, ep_keys.c */
void ep_tenants_list(struct request *req);
void ep_tenants_create(struct request *req);
void ep_tenant_get(struct request *req);
void ep_tenant_update(struct request *req);
void ep_keys_list(struct request *req);
void ep_keys_create(struct request *req);
void ep_key_update(struct request *req);
void ep_key_revoke(struct request *req);
void ep_key_rotate(struct request *req);
void ep_me(struct request *req);

/* usage.c, taskuse.c */
void ep_usage(struct request *req);
void ep_task_usage(struct request *req);

/* ep_care.c */
void ep_backup(struct request *req);
void ep_audit(struct request *req);

/* stats.c */
void ep_stats(struct request *req);

/* ep_files.c */
extern const struct body_sink upload_sink;
void ep_files_create(struct request *req);
void ep_files_list(struct request *req);
void ep_file_get(struct request *req);
void ep_file_content(struct request *req);
void ep_file_delete(struct request *req);

/* ep_jobs.c */
void ep_jobs_create(struct request *req);
void ep_jobs_list(struct request *req);
void ep_job_get(struct request *req);
void ep_job_cancel(struct request *req);
void ep_job_pause(struct request *req);
void ep_job_resume(struct request *req);
void ep_jobs_estimate(struct request *req);
void ep_job_events(struct request *req);
void ep_job_checkpoints(struct request *req);

/* ep_hf.c */
void ep_hf_predict(struct request *req);
void ep_hf_info(struct request *req);
void ep_hf_health(struct request *req);
void ep_hf_tenant_predict(struct request *req);
void ep_hf_tenant_info(struct request *req);
void ep_hf_tenant_health(struct request *req);

/* ep_oip.c */
void ep_oip_server(struct request *req);
void ep_oip_live(struct request *req);
void ep_oip_ready(struct request *req);
void ep_oip_model(struct request *req);
void ep_oip_model_ready(struct request *req);
void ep_oip_infer(struct request *req);
void ep_oip_version(struct request *req);
void ep_oip_version_ready(struct request *req);
void ep_oip_version_infer(struct request *req);

#endif
