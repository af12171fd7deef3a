/* errmap.c: tables from statuses to HTTP, and the shapes of an error. */
#include "server/errmap.h"

#include <stdio.h>
#include <string.h>

static const struct error_class engine_classes[] = {
    [ENG_OK] = {200, "ok"},
    [ENG_ENOMEM] = {503, "out_of_memory"},
    [ENG_EINVAL] = {422, "invalid"},
    [ENG_EIO] = {500, "internal"},
    [ENG_EFORMAT] = {422, "malformed"},
    [ENG_ELIMIT] = {422, "over_limit"},
    [ENG_EMISMATCH] = {409, "mismatch"},
    [ENG_ENOTFOUND] = {404, "not_found"},
    [ENG_EUNSUPPORTED] = {422, "not_supported"},
    [ENG_ECANCELLED] = {503, "cancelled"},
    [ENG_EDIVERGED] = {500, "diverged"},
};

static const struct error_class store_classes[] = {
    [STORE_OK] = {200, "ok"},
    [STORE_ENOMEM] = {503, "out_of_memory"},
    [STORE_EINVAL] = {422, "invalid"},
    [STORE_ENOTFOUND] = {404, "not_found"},
    [STORE_EEXISTS] = {409, "exists"},
    [STORE_ESTATE] = {409, "wrong_state"},
    [STORE_ELIMIT] = {422, "over_limit"},
    [STORE_EIO] = {500, "storage_failed"},
    [STORE_EFULL] = {503, "storage_full"},
    [STORE_ECORRUPT] = {500, "storage_damaged"},
    [STORE_EFOREIGN] = {500, "storage_failed"},
    [STORE_ENEWER] = {500, "storage_failed"},
    [STORE_EBUSY] = {503, "storage_busy"},
    [STORE_EREADONLY] = {500, "storage_failed"},
    [STORE_EABORTED] = {503, "storage_failed"},
};

struct error_class error_of_engine(eng_status status)
{
    size_t n = sizeof engine_classes / sizeof engine_classes[0];
    return (size_t)status < n ? engine_classes[status] : (struct error_class){500, "internal"};
}

struct error_class error_of_store(store_status status)
{
    size_t n = sizeof store_classes / sizeof store_classes[0];
    return (size_t)status < n ? store_classes[status] : (struct error_class){500, "internal"};
}

static const struct {
    int status;
    const char *title;
    const char *openai_type;
} statuses[] = {
    {400, "Bad Request", "invalid_request_error"},
    {401, "Unauthorized", "authentication_error"},
    {403, "Forbidden", "permission_error"},
    {404, "Not Found", "invalid_request_error"},
    {405, "Method Not Allowed", "invalid_request_error"},
    {408, "Request Timeout", "invalid_request_error"},
    {409, "Conflict", "invalid_request_error"},
    {411, "Length Required", "invalid_request_error"},
    {413, "Content Too Large", "invalid_request_error"},
    {415, "Unsupported Media Type", "invalid_request_error"},
    {422, "Unprocessable Content", "invalid_request_error"},
    {429, "Too Many Requests", "rate_limit_error"},
    {500, "Internal Server Error", "server_error"},
    {501, "Not Implemented", "server_error"},
    {503, "Service Unavailable", "server_error"},
    {504, "Gateway Timeout", "server_error"},
};

static size_t status_row(int status)
{
    size_t i = 0, n = sizeof statuses / sizeof statuses[0];
    while (i < n && statuses[i].status != status) {
        i++;
    }
    return i;
}

const char *status_title(int status)
{
    size_t i = status_row(status);
    return i < sizeof statuses / sizeof statuses[0] ? statuses[i].title : "Error";
}

bool status_is_passing(int status)
{
    return status == 408 || status == 429 || status >= 500;
}

static json_t *problem_list(const struct error_view *view)
{
    json_t *list = json_array();
    size_t n = view->problems != NULL ? view->problems->count : 0;
    n = n < MAX_PROBLEMS ? n : MAX_PROBLEMS;
    for (size_t i = 0; i < n; i++) {
        const struct problem *problem = &view->problems->items[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s}", "pointer", problem->pointer, "detail",
                                        problem->detail, "message", problem->detail));
    }
    if (view->problems == NULL && view->pointer != NULL) {
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "pointer", view->pointer, "detail",
                                              view->detail, "message", view->detail));
    }
    return list;
}

static json_t *problem_body(const struct error_view *view)
{
    char type[96];
    snprintf(type, sizeof type, "urn:mp2:problem:%s", view->code);
    json_t *body = json_object();
    bool ok = json_put(body, "type", json_string(type)) &&
              json_put(body, "title", json_string(status_title(view->status))) &&
              json_put(body, "status", json_integer(view->status)) &&
              json_put(body, "detail", json_string(view->detail)) &&
              json_put(body, "code", json_string(view->code)) &&
              json_put(body, "error", json_string(view->detail)) &&
              json_put(body, "request_id", json_string(view->request_id));
    if (ok && (view->problems != NULL || view->pointer != NULL)) {
        ok = json_put(body, "errors", problem_list(view));
    }
    if (ok && view->quota != NULL) {
        ok = json_put(body, "quota", quota_excess_json(view->quota));
    }
    if (!ok) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static json_t *openai_body(const struct error_view *view)
{
    size_t row = status_row(view->status);
    const char *type =
        row < sizeof statuses / sizeof statuses[0] ? statuses[row].openai_type : "server_error";
    const char *param = view->pointer;
    if (param == NULL && view->problems != NULL && view->problems->count > 0) {
        param = view->problems->items[0].pointer;
    }
    if (param != NULL && strncmp(param, "#/", 2) == 0) {
        param += 2;
    }
    json_t *quota = view->quota != NULL ? quota_excess_json(view->quota) : NULL;
    return json_pack("{s:{s:s, s:s, s:s?, s:s, s:o*}}", "error", "message", view->detail, "type",
                     type, "param", param, "code", view->code, "quota", quota);
}

/* Its clients read one string, so the place goes into it. */
static json_t *oip_body(const struct error_view *view)
{
    const char *pointer = view->pointer;
    if (pointer == NULL && view->problems != NULL && view->problems->count > 0) {
        pointer = view->problems->items[0].pointer;
    }
    if (pointer == NULL) {
        return json_pack("{s:s}", "error", view->detail);
    }
    return json_pack("{s:o}", "error", json_sprintf("%s: %s", pointer, view->detail));
}

json_t *error_body(enum api api, const struct error_view *view)
{
    switch (api) {
    case API_OPENAI:
        return openai_body(view);
    case API_OIP:
        return oip_body(view);
    case API_NATIVE:
    case API_HF:
        break;
    }
    return problem_body(view);
}

const char *error_content_type(enum api api)
{
    return api == API_OPENAI || api == API_OIP ? "application/json" : "application/problem+json";
}

enum api api_of_path(const char *path)
{
    static const struct {
        const char *prefix;
        enum api api;
    } prefixes[] = {{"/v1/files", API_OPENAI},
                    {"/v1/fine_tuning", API_OPENAI},
                    {"/v1/models", API_OPENAI},
                    {"/hf/", API_HF},
                    {"/v2", API_OIP}};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t len = strlen(prefixes[i].prefix);
        if (strncmp(path, prefixes[i].prefix, len) == 0 &&
            (path[len] == '\0' || path[len] == '/' || prefixes[i].prefix[len - 1] == '/')) {
            return prefixes[i].api;
        }
    }
    return API_NATIVE;
}
