/* admit.c: from the first byte of a request to its handler.
 *
 * libmicrohttpd calls once when the headers are there, once for each piece of body, and once when all
 * has come. Everything that can be known from the headers is decided in the first call, before a byte
 * of body is stored. When the answer is known early but a body of modest size is on its way, the body
 * is read and dropped first: closing on a client that still sends could make it lose the answer.
 * What fails the gate is answered at once and closed, because where that request ends is in doubt.
 */
#include "server/cors.h"
#include "server/gate.h"
#include "server/http_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SWALLOW_MAX (4u << 20) /* of a body whose answer is known already */

/* ---- the gate ------------------------------------------------------------------------------------------ */

struct walk {
    struct gate_headers gate;
    uintptr_t expected; /* where the next header line begins when nothing was dropped before it */
    bool old_library;
};

/* libmicrohttpd before 1.0 ends a value at the first NUL, joins folded lines and takes a bare LF as a
 * line end. It splits its buffer in place, so such a line shows as a gap of another size than CR LF
 * between the end of a value and the next name. Newer ones refuse these requests themselves. */
static bool is_gap_wrong(const struct walk *walk, const char *name)
{
    uintptr_t at = (uintptr_t)name;
    return walk->old_library && walk->expected != 0 && at != walk->expected;
}

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                   size_t name_len, const char *value, size_t value_len)
{
    (void)kind;
    struct walk *walk = cls;
    if (is_gap_wrong(walk, name)) {
        walk->gate.wrong = "a header line holds a NUL, is folded, or does not end in CR LF";
    }
    gate_header(&walk->gate, name, name_len, value != NULL ? value : "", value_len);
    walk->expected = value != NULL ? (uintptr_t)value + value_len + 2 : 0;
    return MHD_YES;
}

/* Nor does it tell that a line without a name ended the headers for it: what follows the last value is
 * then not the blank line (whose bytes it may have set to NUL already). */
static bool is_block_ended(const struct walk *walk)
{
    if (!walk->old_library || walk->expected == 0) {
        return true;
    }
    const char *blank = (const char *)walk->expected; /* received, so inside its buffer */
    return (blank[0] == '\0' || blank[0] == '\r') && (blank[1] == '\0' || blank[1] == '\n');
}

/* The target as libmicrohttpd saw it is a C string; a NUL inside shows as a longer way to the
 * version behind it. */
static bool is_target_cut(const struct request *req, const char *version)
{
    uintptr_t at = (uintptr_t)version;
    return MHD_get_version()[0] == '0' && at > req->target_at && at - req->target_at < 65536 &&
           at - req->target_at != req->target_len + 1;
}

static const char *check_gate(struct request *req, const char *version)
{
    struct walk walk = {.old_library = MHD_get_version()[0] == '0',
                        .expected = (uintptr_t)version + strlen(version) + 2};
    MHD_get_connection_values_n(req->conn->mhd, MHD_HEADER_KIND, take_header, &walk);
    if (walk.gate.wrong == NULL && !is_block_ended(&walk)) {
        walk.gate.wrong = "a header line has no name";
    }
    const char *wrong = gate_finish(&walk.gate, version);
    req->has_body = walk.gate.encodings > 0 || walk.gate.length > 0;
    req->chunked = walk.gate.encodings > 0;
    req->body_declared = walk.gate.length;
    if (wrong == NULL && strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        wrong = "the protocol must be HTTP/1.1 or HTTP/1.0";
    }
    if (wrong == NULL && !gate_method(req->method)) {
        wrong = "the method is not a word of at most 32 letters";
    }
    if (wrong == NULL && is_target_cut(req, version)) {
        wrong = "the request line holds a NUL or more than one space";
    }
    if (wrong == NULL) {
        wrong = gate_path(req->path);
    }
    return wrong != NULL ? wrong : gate_query(req->query_raw);
}

/* "http://host/path" is allowed by RFC 9112 3.2.2; only the path counts here. */
static void split_target(struct request *req)
{
    char *path = req->path;
    for (size_t skip = 7; skip <= 8; skip++) {
        if (strncasecmp(path, skip == 7 ? "http://" : "https://", skip) == 0) {
            char *slash = strpbrk(path + skip, "/?");
            path = slash != NULL && *slash == '/' ? slash : path;
        }
    }
    req->path = path;
    char *query = strchr(path, '?');
    if (query != NULL) {
        *query = '\0';
        req->query_raw = query + 1;
    }
}

/* ---- parameters ---------------------------------------------------------------------------------------- */

static char *decode(struct request *req, const char *raw, size_t len, bool plus)
{
    char *text = request_alloc(req, len + 1);
    return text != NULL && percent_decode(raw, len, plus, text, NULL) ? text : NULL;
}

static bool take_params(struct request *req, const struct endpoint_match *match)
{
    for (size_t i = 0; i < match->n_params; i++) {
        char *name =
            request_printf(req, "%.*s", (int)match->params[i].name_len, match->params[i].name);
        char *value = decode(req, match->params[i].raw, match->params[i].raw_len, false);
        if (name == NULL || value == NULL) {
            return false;
        }
        req->params[req->n_params++] = (struct pair){name, value};
    }
    return true;
}

/* False: answered. */
static bool take_query(struct request *req)
{
    const char *at = req->query_raw;
    while (*at != '\0') {
        size_t len = strcspn(at, "&");
        size_t name_len = strcspn(at, "=&");
        const char *value_at = at + name_len + (name_len < len);
        if (len > 0) {
            char *name = decode(req, at, name_len, true);
            char *value = decode(req, value_at, (size_t)(at + len - value_at), true);
            if (name == NULL || value == NULL) {
                reply_no_memory(req);
                return false;
            }
            if (req->n_query == MAX_QUERY || request_query(req, name) != NULL) {
                reply_problem(req, 400, "invalid_query", NULL,
                              "the query has more than %d parameters or one of them twice",
                              MAX_QUERY);
                return false;
            }
            req->query[req->n_query++] = (struct pair){name, value};
        }
        at += len + (at[len] == '&');
    }
    return true;
}

/* ---- who, what, how large --------------------------------------------------------------------------------- */

/* A browser asks before a page of another origin may send a request with a key. The origin itself is
 * answered in reply.c, as for every answer. */
static void answer_preflight(struct request *req, const char *allow)
{
    const char *origin = request_header(req, "Origin");
    if (request_header(req, "Access-Control-Request-Method") != NULL &&
        cors_allow(req->http->server->config->cors_origins, origin) != NULL) {
        reply_header(req, "Access-Control-Allow-Methods", allow);
        reply_header(req, "Access-Control-Allow-Headers", CORS_REQUEST_HEADERS);
        reply_header(req, "Access-Control-Max-Age", CORS_MAX_AGE);
    }
}

static bool check_endpoint(struct request *req)
{
    struct endpoint_match match;
    endpoint_find(req->method, req->path, &match);
    req->api = match.api;
    if (match.path_known && strcmp(req->method, "OPTIONS") == 0) {
        reply_header(req, "Allow", match.allow);
        answer_preflight(req, match.allow);
        reply_empty(req, 204);
        return false;
    }
    if (match.endpoint == NULL && match.path_known) {
        reply_header(req, "Allow", match.allow);
        reply_problem(req, 405, "method_not_allowed", NULL, "%s is not possible here; allowed: %s",
                      req->method, match.allow);
        return false;
    }
    if (match.endpoint == NULL) {
        reply_problem(req, 404, "not_found", NULL, "there is nothing at this path");
        return false;
    }
    req->endpoint = match.endpoint;
    if (!take_params(req, &match)) {
        reply_no_memory(req);
        return false;
    }
    return take_query(req);
}

/* Before the key is looked at, so that guessing is bounded, too. */
static bool check_address(struct request *req)
{
    struct http *http = req->http;
    uint64_t limit = http->server->config->max_requests_per_ip;
    if (req->endpoint->scopes == 0 || limit == 0) {
        return true;
    }
    int64_t wait = peers_take(http->peers, &req->client, limit, clock_ms());
    if (wait == 0) {
        return true;
    }
    counter_add(&http->rejected[REJECT_ADDRESS], 1);
    char detail[160];
    snprintf(detail, sizeof detail,
             "%" PRIu64 " requests a minute are taken from one address (setting "
             "max_requests_per_ip); the next one in %" PRId64 " ms",
             limit, wait);
    reply_error(req, &(struct error_view){.status = 429,
                                          .code = "address_limit",
                                          .detail = detail,
                                          .request_id = req->id,
                                          .retry_ms = wait});
    return false;
}

static bool check_key(struct request *req)
{
    uint32_t wanted = req->endpoint->scopes;
    if (wanted == 0) {
        return true;
    }
    const char *wrong = auth_check(req->http->server->auth, request_header(req, "Authorization"),
                                   wall_ms(), &req->who);
    if (wrong != NULL) {
        counter_add(&req->http->rejected[REJECT_AUTH], 1);
        reply_problem(req, 401, "unauthorized", NULL, "%s", wrong);
        return false;
    }
    uint32_t held = req->who.scopes;
    held |= (held & STORE_SCOPE_ADMIN) != 0 ? STORE_SCOPE_READ : 0;
    if ((held & wanted) == 0) {
        char names[64];
        auth_scopes_text(wanted, names, sizeof names);
        reply_problem(req, 403, "missing_scope", NULL, "this needs a key with the scope: %s",
                      names);
        return false;
    }
    return true;
}

/* Public endpoints are for those who watch the server: they answer also when it is full. */
static bool check_room(struct request *req)
{
    struct http *http = req->http;
    struct quota_excess excess;
    if (req->endpoint->scopes == 0) {
        return true;
    }
    if (http->server->draining) {
        counter_add(&http->rejected[REJECT_DRAINING], 1);
        reply_problem(req, 503, "draining", NULL, "the server is stopping; ask another or later");
        return false;
    }
    if (http->inflight >= http->server->config->max_inflight) {
        reply_full(req, "max_inflight", http->server->config->max_inflight);
        return false;
    }
    struct quota_party party = request_party(req);
    if (!quota_enter(&party, req->started_us, &excess)) {
        reply_quota(req, &excess);
        return false;
    }
    req->counted = true;
    http->inflight++;
    usage_count(http->server->usage, req->who.tenant, 1, 0, 0);
    return true;
}

static const char *limit_setting(enum body_limit limit)
{
    return limit == LIMIT_FILE ? "max_upload" : "max_json";
}

static void reply_too_large(struct request *req)
{
    counter_add(&req->http->rejected[REJECT_TOO_LARGE], 1);
    if (req->endpoint->body == BODY_NONE) {
        reply_problem(req, 413, "body_not_allowed", NULL, "this request takes no body");
    } else if (req->chunked) {
        reply_problem(req, 413, "body_too_large", NULL,
                      "the body is larger than %zu bytes (setting %s)", req->body_limit,
                      limit_setting(req->endpoint->limit));
    } else {
        reply_problem(req, 413, "body_too_large", NULL,
                      "the body has %" PRIu64 " bytes, at most %zu are taken (setting %s)",
                      req->body_declared, req->body_limit, limit_setting(req->endpoint->limit));
    }
}

static bool is_json_type(const char *type)
{
    size_t len = strcspn(type, "; \t");
    return (len == 16 && strncasecmp(type, "application/json", len) == 0) ||
           (len > 17 && strncasecmp(type, "application/", 12) == 0 &&
            strncasecmp(type + len - 5, "+json", 5) == 0);
}

static bool check_body(struct request *req)
{
    const struct config *config = req->http->server->config;
    const struct endpoint *endpoint = req->endpoint;
    req->body_limit = endpoint->limit == LIMIT_FILE   ? config->max_upload
                      : endpoint->limit == LIMIT_JSON ? config->max_json
                                                      : 0;
    if (endpoint->body == BODY_NONE && strcmp(req->method, "DELETE") == 0) {
        req->body_limit = 65536;
    }
    if (req->has_body && (req->body_declared > req->body_limit || req->body_limit == 0)) {
        reply_too_large(req);
        return false;
    }
    if (endpoint->api == API_OIP &&
        request_header(req, "Inference-Header-Content-Length") != NULL) {
        reply_problem(req, 400, "binary_extension", NULL, OIP_NOT_BINARY);
        return false;
    }
    const char *type = request_header(req, "Content-Type");
    bool json = endpoint->body == BODY_JSON || endpoint->body == BODY_JSON_OPTIONAL;
    if (json && req->has_body && type != NULL && !is_json_type(type)) {
        reply_problem(req, 415, "unsupported_media_type", NULL,
                      "the body must be JSON: send Content-Type: application/json");
        return false;
    }
    const char *coding = request_header(req, "Content-Encoding");
    if (coding != NULL && req->has_body && strcasecmp(coding, "identity") != 0) {
        reply_problem(req, 415, "unsupported_encoding", NULL,
                      "a compressed body is not read here: send it without Content-Encoding");
        return false;
    }
    return true;
}

/* ---- the first call ------------------------------------------------------------------------------------------ */

struct forwarded {
    char text[1024];
    size_t len;
};

/* Every X-Forwarded-For there is, in order: a client may have sent one of its own. */
static enum MHD_Result join_forwarded(void *cls, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    (void)kind;
    struct forwarded *joined = cls;
    if (strcasecmp(name, "X-Forwarded-For") != 0 || value == NULL) {
        return MHD_YES;
    }
    /* Room is kept for the end, which the nearest proxy wrote. */
    size_t len = strlen(value), room = sizeof joined->text - 2;
    value += len > room ? len - room : 0;
    len = len > room ? room : len;
    if (joined->len + len > room) {
        joined->len = 0;
    }
    joined->len += (size_t)snprintf(joined->text + joined->len, sizeof joined->text - joined->len,
                                    "%s%.*s", joined->len > 0 ? "," : "", (int)len, value);
    return MHD_YES;
}

static void find_client(struct request *req)
{
    const struct http *http = req->http;
    struct forwarded joined = {"", 0};
    req->client = req->conn->peer;
    if (http->n_trusted > 0 && address_in(&req->client, http->trusted, http->n_trusted)) {
        MHD_get_connection_values(req->conn->mhd, MHD_HEADER_KIND, join_forwarded, &joined);
        req->client = address_client(&req->conn->peer, joined.len > 0 ? joined.text : NULL,
                                     http->trusted, http->n_trusted);
    }
}

static void take_request_line(struct request *req, const char *method, const char *version)
{
    const char *id = request_header(req, "x-request-id");
    if (id != NULL && gate_request_id(id)) {
        snprintf(req->id, sizeof req->id, "%s", id);
    }
    trace_answer(request_header(req, "traceparent"), req->trace);
    req->head = strcmp(method, "HEAD") == 0;
    req->method = req->head ? "GET" : request_printf(req, "%s", method);
    snprintf(req->version, sizeof req->version, "%s", version);
    split_target(req);
    req->api = api_of_path(req->path); /* also what the gate refuses has the shape of its API */
    find_client(req);
}

/* X-Request-Timeout: seconds. */
static bool check_timeout(struct request *req)
{
    const char *text = request_header(req, "X-Request-Timeout");
    char *end = NULL;
    if (text == NULL) {
        return true;
    }
    bool plain = text[0] >= '0' && text[0] <= '9' && strlen(text) <= 16 &&
                 strspn(text, "0123456789.") == strlen(text);
    double seconds = plain ? strtod(text, &end) : 0;
    if (!plain || *end != '\0' || seconds < 0.001) {
        reply_problem(req, 400, "invalid_header", NULL,
                      "X-Request-Timeout is a number of seconds above 0, such as 2.5");
        return false;
    }
    req->asked_ms = (int64_t)(seconds < 1e6 ? seconds * 1e3 : 1e9);
    return true;
}

/* True: the answer is made already. */
static bool decide(struct request *req)
{
    if (!check_endpoint(req) || !check_address(req) || !check_key(req) || !check_timeout(req) ||
        !check_room(req) || !check_body(req)) {
        return true;
    }
    if (idem_open(req) && req->endpoint->body == BODY_STREAM) {
        req->endpoint->sink->begin(req);
    }
    return req->replied;
}

static enum MHD_Result begin(struct request *req, const char *method, const char *version)
{
    take_request_line(req, method, version);
    const char *wrong = req->method != NULL ? check_gate(req, version) : "out of memory";
    if (wrong != NULL) {
        counter_add(&req->http->rejected[REJECT_GATE], 1);
        req->close_after = true;
        reply_problem(req, 400, "bad_request", NULL, "%s", wrong);
        return reply_send(req);
    }
    bool answered = decide(req);
    req->body_started = clock_ms();
    req->conn->deadline = req->body_started + req->http->server->config->body_timeout;
    if (!answered) {
        req->state = REQUEST_READING;
        return MHD_YES;
    }
    bool waits = req->has_body && request_header(req, "Expect") != NULL;
    if (!waits && req->body_declared <= SWALLOW_MAX) {
        /* Also without a body: an answer in the first call costs the connection. */
        req->state = REQUEST_SWALLOWING;
        return MHD_YES;
    }
    req->close_after = true;
    return reply_send(req);
}

/* ---- the body -------------------------------------------------------------------------------------------------- */

static bool grow_body(struct request *req, size_t need)
{
    struct http *http = req->http;
    size_t room = req->body_room > 0 ? req->body_room : 1024;
    while (room < need) {
        room *= 2;
    }
    if (req->body_declared >= need && room > req->body_declared) {
        room = (size_t)req->body_declared;
    }
    size_t more = room - req->body_room;
    if (http->body_bytes + more > http->server->config->max_body_memory) {
        reply_full(req, "max_body_memory", http->server->config->max_body_memory);
        return false;
    }
    char *body = realloc(req->body, room);
    if (body == NULL) {
        reply_no_memory(req);
        return false;
    }
    req->body = body;
    req->body_room = room;
    http->body_bytes += more;
    return true;
}

static void store_piece(struct request *req, const char *bytes, size_t len)
{
    if (req->body_seen > req->body_limit) {
        reply_too_large(req);
    } else if (req->endpoint->body == BODY_STREAM) {
        req->endpoint->sink->data(req, bytes, len);
    } else if (req->endpoint->body != BODY_NONE &&
               (req->body_len + len <= req->body_room || grow_body(req, req->body_len + len))) {
        memcpy(req->body + req->body_len, bytes, len);
        req->body_len += len;
    }
    if (req->replied) {
        req->state = REQUEST_SWALLOWING;
    }
}

static enum MHD_Result take_piece(struct request *req, const char *bytes, size_t len)
{
    req->body_seen += len;
    if (req->state == REQUEST_READING) {
        store_piece(req, bytes, len);
        return MHD_YES;
    }
    /* An answer cannot be sent before the end of the body: past this the connection is cut. */
    return req->body_seen <= req->body_limit + SWALLOW_MAX ? MHD_YES : MHD_NO;
}

/* ---- the end of the body ------------------------------------------------------------------------------------------ */

static void parse_body(void *arg, store *reader)
{
    (void)reader;
    struct request *req = arg;
    const struct config *config = req->http->server->config;
    struct json_limits limits = {config->max_json, JSON_MAX_DEPTH, config->max_json_tokens};
    request_digest(req, req->body, req->body_len);
    req->json = json_parse(req->body, req->body_len, &limits, req->json_why, sizeof req->json_why);
}

static void handle_parsed(struct request *req, void *arg)
{
    (void)arg;
    if (request_is_over(req)) {
        return;
    }
    if (req->json == NULL && req->json_why[0] == '\0') {
        reply_no_memory(req);
    } else if (req->json == NULL) {
        reply_problem(req, 400, "malformed_json", NULL, "%s", req->json_why);
    } else if (!json_is_object(req->json)) {
        reply_problem(req, 422, "invalid", "#", "the body must be a JSON object, found %s",
                      json_type_word(req->json));
    } else {
        idem_run(req);
    }
}

static void handle(struct request *req)
{
    enum body_kind kind = req->endpoint->body;
    if (req->http->stopping) {
        reply_problem(req, 503, "stopping", NULL, "the server stopped before this was begun");
    } else if (clock_ms() >= req->deadline) {
        reply_late(req);
    } else if (kind != BODY_JSON && kind != BODY_JSON_OPTIONAL) {
        idem_run(req);
    } else if (req->body_len == 0 && kind == BODY_JSON_OPTIONAL) {
        idem_run(req);
    } else if (req->body_len == 0) {
        reply_problem(req, 400, "malformed_json", NULL, "the body is empty: send a JSON object");
    } else if (req->body_len > req->http->server->config->json_offload) {
        request_offload(req, parse_body, handle_parsed, req);
    } else {
        parse_body(req, NULL);
        handle_parsed(req, NULL);
    }
}

enum MHD_Result admit_call(struct request *req, const char *url, const char *method,
                           const char *version, const char *upload, size_t *upload_size)
{
    (void)url; /* decoded once already; the raw one is in the request */
    if (req->state == REQUEST_NEW) {
        return begin(req, method, version);
    }
    if (*upload_size > 0) {
        size_t len = *upload_size;
        *upload_size = 0;
        return take_piece(req, upload, len);
    }
    if (req->state == REQUEST_READING) {
        req->state = REQUEST_ADMITTED;
        req->conn->deadline = INT64_MAX;
        request_set_deadline(req, req->http->server->config->request_timeout);
        handle(req);
        return request_settle(req);
    }
    return reply_send(req);
}
