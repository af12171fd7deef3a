/* openapi.c: GET /openapi.json.
 *
 * Paths, methods, path parameters, scopes and the shape of errors come from THE table of endpoints, so
 * that the document cannot forget one. What a table cannot know (schemas, summaries, query parameters)
 * is openapi.json, which CMake puts into the program: its "components" go into the document as they
 * are, and each of its "operations" ("POST /v1/predict") is completed with the row of that name:
 *
 *     summary        one line
 *     request        schema of the body, with request_media when it is not JSON
 *     response       schema of the answer, with media when it is not JSON and status when not 200
 *     stream         true: also as server-sent events
 *     query          names of parameters in components (of the query, or headers)
 *
 * It is made once, when the server starts.
 */
#include "server/openapi.h"

#include "server/auth.h"
#include "server/endpoints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the gate lets through as one segment of a path: no control bytes, not "." or "..". */
#define SEGMENT "^(?!\\.{1,2}$)[^\\u0000-\\u001F\\u007F]+$"

static json_t *reference(const char *kind, const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "#/components/%s/%s", kind, name);
    return json_pack("{s:s}", "$ref", text);
}

static json_t *content(const char *media, const char *schema)
{
    json_t *holder = json_object();
    json_t *type =
        schema != NULL ? json_pack("{s:o}", "schema", reference("schemas", schema)) : json_object();
    json_object_set_new(holder, media, type);
    return holder;
}

/* The {names} of a pattern, then the query parameters. */
static json_t *parameters(const struct endpoint *endpoint, const json_t *about)
{
    json_t *list = json_array(), *name;
    size_t i;
    for (const char *at = strchr(endpoint->pattern, '{'); at != NULL; at = strchr(at + 1, '{')) {
        json_array_append_new(list, json_pack("{s:s#, s:s, s:b, s:{s:s, s:s}}", "name", at + 1,
                                              (int)strcspn(at + 1, "}"), "in", "path", "required",
                                              1, "schema", "type", "string", "pattern", SEGMENT));
    }
    json_array_foreach(json_object_get(about, "query"), i, name)
    {
        json_array_append_new(list, reference("parameters", json_string_value(name)));
    }
    return list;
}

/* Bearer key; any one of the scopes will do, so they are named in words. */
static json_t *security(const struct endpoint *endpoint)
{
    return endpoint->scopes == 0 ? json_array() : json_pack("[{s:[]}]", "key");
}

static char *scope_text(const struct endpoint *endpoint, char *text, size_t size)
{
    char scopes[64];
    auth_scopes_text(endpoint->scopes, scopes, sizeof scopes);
    if (endpoint->scopes == 0) {
        snprintf(text, size, "Public.");
    } else {
        snprintf(text, size, "One of these scopes: %s.", scopes);
    }
    return text;
}

static json_t *responses(const struct endpoint *endpoint, const json_t *about)
{
    static const char *const errors[] = {[API_NATIVE] = "Problem",
                                         [API_OPENAI] = "OpenAIError",
                                         [API_HF] = "Problem",
                                         [API_OIP] = "OIPError"};
    const char *schema = json_string_value(json_object_get(about, "response"));
    const char *media = json_string_value(json_object_get(about, "media"));
    json_int_t status = json_integer_value(json_object_get(about, "status"));
    char code[16];
    snprintf(code, sizeof code, "%d", status != 0 ? (int)status : 200);
    json_t *all = json_object();
    json_t *good = json_pack("{s:s}", "description", "What was asked for");
    if (schema != NULL || media != NULL) {
        json_t *types = content(media != NULL ? media : "application/json", schema);
        if (json_is_true(json_object_get(about, "stream"))) {
            json_object_set_new(types, "text/event-stream", json_object());
        }
        json_object_set_new(good, "content", types);
    }
    json_object_set_new(all, code, good);
    json_object_set_new(all, "default", reference("responses", errors[endpoint->api]));
    return all;
}

static json_t *body_of(const struct endpoint *endpoint, const json_t *about)
{
    const char *schema = json_string_value(json_object_get(about, "request"));
    const char *media = json_string_value(json_object_get(about, "request_media"));
    bool json = endpoint->body == BODY_JSON || endpoint->body == BODY_JSON_OPTIONAL;
    if (media == NULL) {
        media = json ? "application/json" : "application/octet-stream";
    }
    return json_pack("{s:b, s:o}", "required", endpoint->body != BODY_JSON_OPTIONAL, "content",
                     content(media, schema));
}

/* "get_v1_tasks_task": the method and the words of the pattern. */
static void operation_id(const struct endpoint *endpoint, char *out, size_t size)
{
    size_t at = 0;
    for (const char *c = endpoint->method; *c != '\0' && at + 1 < size; c++) {
        out[at++] = (char)(*c | 0x20);
    }
    for (const char *c = endpoint->pattern; *c != '\0' && at + 1 < size; c++) {
        if (*c == '/' || *c == '.') {
            out[at++] = '_';
        } else if (*c != '{' && *c != '}') {
            out[at++] = *c;
        }
    }
    out[at] = '\0';
}

static json_t *operation(const struct endpoint *endpoint, const json_t *about)
{
    char id[160], scopes[128];
    const char *summary = json_string_value(json_object_get(about, "summary"));
    operation_id(endpoint, id, sizeof id);
    json_t *made = json_pack("{s:s, s:s, s:s, s:[s], s:o, s:o, s:o}", "operationId", id, "summary",
                             summary != NULL ? summary : endpoint->label, "description",
                             scope_text(endpoint, scopes, sizeof scopes), "tags", endpoint->label,
                             "parameters", parameters(endpoint, about), "security",
                             security(endpoint), "responses", responses(endpoint, about));
    if (endpoint->body != BODY_NONE) {
        json_object_set_new(made, "requestBody", body_of(endpoint, about));
    }
    return made;
}

static json_t *paths(const json_t *operations)
{
    json_t *all = json_object();
    for (size_t i = 0; i < endpoints_count; i++) {
        const struct endpoint *endpoint = &endpoints[i];
        char row[160], method[8] = "";
        snprintf(row, sizeof row, "%s %s", endpoint->method, endpoint->pattern);
        for (size_t k = 0; endpoint->method[k] != '\0' && k + 1 < sizeof method; k++) {
            method[k] = (char)(endpoint->method[k] | 0x20);
        }
        if (json_object_get(all, endpoint->pattern) == NULL) {
            json_object_set_new(all, endpoint->pattern, json_object());
        }
        json_object_set_new(json_object_get(all, endpoint->pattern), method,
                            operation(endpoint, json_object_get(operations, row)));
    }
    return all;
}

/* NULL: out of memory. */
static json_t *document(void)
{
    eng_json_fault fault;
    json_t *doc = eng_json_parse((const char *)openapi_json, openapi_json_len, 0, &fault);
    if (doc == NULL) {
        return NULL;
    }
    json_object_set_new(json_object_get(doc, "info"), "version", json_string(MP2_VERSION));
    json_object_set_new(doc, "paths", paths(json_object_get(doc, "operations")));
    json_object_del(doc, "operations");
    return doc;
}

static char *text; /* made before there are requests, the same for all */
static size_t text_len;

bool openapi_part_start(struct server *server, char *why, size_t size)
{
    (void)server;
    json_t *doc = document();
    text = doc != NULL ? json_text(doc, &text_len) : NULL;
    json_decref(doc);
    if (text == NULL) {
        snprintf(why, size, "out of memory");
    }
    return text != NULL;
}

void openapi_part_stop(struct server *server)
{
    (void)server;
    free(text);
    text = NULL;
}

void ep_openapi(struct request *req)
{
    reply_take(req, 200, "application/json", text, text_len, NULL);
}
