/* ep_files.c: few-shot sets over HTTP, in the shapes of the OpenAI API.
 *
 * An upload streams through the multipart parser into one growing block (bounded by max_upload and
 * counted to max_body_memory). When all has come a worker parses the rows; only then the store thread
 * writes the file, in a transaction of its own when it is large. A file with good rows is stored with
 * a report of its bad ones; a file without any good row is refused with the same report.
 */
#include "server/config.h"
#include "server/endpoints.h"
#include "server/listing.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/multipart.h"
#include "server/workers.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_LISTED     1000
#define MAX_PURPOSE    64
#define ALONE_BYTES    (256u << 10) /* larger files do not hold up a group of writes */
#define SHOWN_PER_TEXT 3            /* bad rows that status_details names */

enum part_kind { PART_IGNORED, PART_FILE, PART_PURPOSE };

struct upload {
    struct request *req;
    struct multipart *form;
    enum part_kind part;
    bool have_file, have_purpose;
    char filename[MULTIPART_MAX_NAME + 1];
    char purpose[MAX_PURPOSE + 1];
    size_t purpose_len;
    bool csv;
    char *bytes;
    size_t len, room;

    /* what the worker found */
    eng_status parsed;
    eng_error err;
    eng_row_error *errors;
    size_t n_errors;
    json_t *details;
    char *details_text;
    unsigned char sha256[crypto_hash_sha256_BYTES];
    char id[OBJECT_ID_SIZE];
    int64_t now;
    uint64_t rows, most_rows; /* of this file, and of all (quota stored_examples; 0: no limit) */
    int64_t stored_rows;
    bool over_quota;
};

/* ---- receiving ------------------------------------------------------------------------------ */

static void release_upload(void *data)
{
    struct upload *upload = data;
    multipart_free(upload->form);
    json_decref(upload->details);
    free(upload->details_text);
    free(upload->errors);
    free(upload->bytes);
    free(upload);
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t len = strlen(name), want = strlen(suffix);
    return len >= want && strcasecmp(name + len - want, suffix) == 0;
}

static bool begin_part(void *arg, const struct multipart_part *part)
{
    struct upload *upload = arg;
    upload->part = strcmp(part->name, "file") == 0      ? PART_FILE
                   : strcmp(part->name, "purpose") == 0 ? PART_PURPOSE
                                                        : PART_IGNORED;
    bool again = (upload->part == PART_FILE && upload->have_file) ||
                 (upload->part == PART_PURPOSE && upload->have_purpose);
    if (again) {
        reply_problem(upload->req, 400, "duplicate_part", part->name,
                      "the form has two parts named \"%.32s\"", part->name);
        return false;
    }
    if (upload->part == PART_FILE) {
        upload->have_file = true;
        snprintf(upload->filename, sizeof upload->filename, "%s",
                 part->filename[0] != '\0' ? part->filename : "upload.jsonl");
        upload->csv = has_suffix(upload->filename, ".csv") ||
                      strncasecmp(part->content_type, "text/csv", 8) == 0;
    }
    request_digest(upload->req, part->name, strlen(part->name) + 1);
    request_digest(upload->req, part->filename, strlen(part->filename) + 1);
    upload->have_purpose = upload->have_purpose || upload->part == PART_PURPOSE;
    return true;
}

static bool grow(struct upload *upload, size_t need)
{
    uint64_t limit = request_server(upload->req)->config->max_upload;
    size_t room = upload->room > 0 ? upload->room : 16384;
    while (room < need) {
        room *= 2; /* need is at most max_upload and a piece more */
    }
    room = room > limit && need <= limit ? (size_t)limit : room;
    if (!request_reserve(upload->req, room - upload->room)) {
        return false;
    }
    char *bytes = realloc(upload->bytes, room);
    if (bytes == NULL) {
        reply_no_memory(upload->req);
        return false;
    }
    upload->bytes = bytes;
    upload->room = room;
    return true;
}

static bool take_file(struct upload *upload, const char *bytes, size_t len)
{
    if (upload->len + len > upload->room && !grow(upload, upload->len + len)) {
        return false;
    }
    memcpy(upload->bytes + upload->len, bytes, len);
    upload->len += len;
    return true;
}

static bool take_part(void *arg, const char *bytes, size_t len)
{
    struct upload *upload = arg;
    request_digest(upload->req, bytes, len);
    if (upload->part == PART_FILE) {
        return take_file(upload, bytes, len);
    }
    if (upload->part == PART_PURPOSE) {
        if (upload->purpose_len + len > MAX_PURPOSE) {
            reply_problem(upload->req, 422, "invalid_value", "purpose",
                          "purpose has at most %d bytes", MAX_PURPOSE);
            return false;
        }
        memcpy(upload->purpose + upload->purpose_len, bytes, len);
        upload->purpose_len += len;
    }
    return true;
}

static bool end_part(void *arg)
{
    (void)arg;
    return true;
}

static void begin_upload(struct request *req)
{
    static const struct multipart_sink sink = {begin_part, take_part, end_part};
    char why[256];
    struct upload *upload = calloc(1, sizeof *upload);
    if (upload == NULL) {
        reply_no_memory(req);
        return;
    }
    upload->req = req;
    request_set_data(req, upload, release_upload);
    upload->form =
        multipart_new(request_header(req, "Content-Type"), &sink, upload, why, sizeof why);
    if (upload->form == NULL && why[0] == '\0') {
        reply_no_memory(req);
    } else if (upload->form == NULL) {
        reply_problem(req, 415, "unsupported_media_type", NULL, "%s", why);
    }
}

static void take_upload(struct request *req, const char *bytes, size_t len)
{
    struct upload *upload = request_data(req);
    char why[256];
    if (!multipart_feed(upload->form, bytes, len, why, sizeof why) && why[0] != '\0') {
        reply_problem(req, 400, "malformed_form", NULL, "malformed multipart body: %s", why);
    }
}

const struct body_sink upload_sink = {begin_upload, take_upload};

/* ---- texts ------------------------------------------------------------------------------------- */

/* Appends, cut to fit. */
static void append(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t size, const char *format, ...)
{
    size_t at = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + at, size - at, format, args);
    va_end(args);
}

/* ---- judging the rows ------------------------------------------------------------------------- */

static json_t *label_list(const eng_dataset *set)
{
    json_t *labels = json_array();
    for (size_t i = 0; i < eng_dataset_get_info(set)->labels; i++) {
        json_array_append_new(labels, json_string(eng_dataset_label(set, i)));
    }
    return labels;
}

static json_t *error_list(const struct upload *upload)
{
    json_t *list = json_array();
    for (size_t i = 0; i < upload->n_errors; i++) {
        const eng_row_error *error = &upload->errors[i];
        json_array_append_new(list, json_pack("{s:I, s:s, s:s}", "line", (json_int_t)error->line,
                                              "pointer", error->pointer, "message", error->text));
    }
    return list;
}

static json_t *describe(const struct upload *upload, const eng_dataset *set)
{
    const eng_dataset_info *info = eng_dataset_get_info(set);
    json_t *details = json_object();
    bool ok = json_put(details, "format", json_string(upload->csv ? "csv" : "jsonl")) &&
              json_put(details, "type", json_string(eng_task_type_name(info->type))) &&
              json_put(details, "rows", json_integer((json_int_t)info->rows)) &&
              json_put(details, "bad_rows", json_integer((json_int_t)info->bad_rows)) &&
              json_put(details, "labels", label_list(set)) &&
              json_put(details, "errors", error_list(upload));
    if (!ok) {
        json_decref(details);
        return NULL;
    }
    return details;
}

static void judge_upload(void *arg, store *reader)
{
    (void)reader;
    struct upload *upload = arg;
    eng_dataset *set = NULL;
    size_t len = 0;
    upload->n_errors = ENG_MAX_ROW_ERRORS;
    upload->errors = calloc(ENG_MAX_ROW_ERRORS, sizeof *upload->errors);
    if (upload->errors == NULL) {
        upload->parsed = ENG_ENOMEM;
        return;
    }
    upload->parsed = eng_dataset_parse((eng_text){upload->bytes, upload->len},
                                       upload->csv ? ENG_ROWS_CSV : ENG_ROWS_JSONL, NULL, &set,
                                       upload->errors, &upload->n_errors, &upload->err);
    if (upload->parsed != ENG_OK) {
        return;
    }
    upload->rows = eng_dataset_get_info(set)->rows;
    upload->details = describe(upload, set);
    upload->details_text = upload->details != NULL ? json_text(upload->details, &len) : NULL;
    if (upload->details_text == NULL) {
        upload->parsed = ENG_ENOMEM;
    }
    crypto_hash_sha256(upload->sha256, (const unsigned char *)upload->bytes, upload->len);
    eng_dataset_free(set);
}

/* ---- views ------------------------------------------------------------------------------------ */

/* "2 of 40 rows are not used: line 3 /label: …", or NULL when all are. */
static json_t *status_text(const json_t *details)
{
    json_int_t good = json_integer_value(json_object_get(details, "rows"));
    json_int_t bad = json_integer_value(json_object_get(details, "bad_rows"));
    const json_t *errors = json_object_get(details, "errors");
    char text[1024];
    if (bad == 0) {
        return json_null();
    }
    snprintf(text, sizeof text, "%lld of %lld rows are not used", (long long)bad,
             (long long)(good + bad));
    for (size_t i = 0; i < json_array_size(errors) && i < SHOWN_PER_TEXT; i++) {
        const json_t *error = json_array_get(errors, i);
        append(text, sizeof text, "%s line %lld %s: %s", i == 0 ? ":" : ";",
               (long long)json_integer_value(json_object_get(error, "line")),
               json_string_value(json_object_get(error, "pointer")),
               json_string_value(json_object_get(error, "message")));
    }
    return json_string(text);
}

static json_t *file_json(const store_file *file)
{
    json_t *details = json_stored(file->details);
    json_t *view = json_object();
    bool ok = json_put(view, "id", json_string(file->id)) &&
              json_put(view, "object", json_string("file")) &&
              json_put(view, "bytes", json_integer(file->bytes)) &&
              json_put(view, "created_at", json_seconds(file->created)) &&
              json_put(view, "expires_at", json_seconds(file->expires)) &&
              json_put(view, "filename", json_string(file->filename)) &&
              json_put(view, "purpose", json_string(file->purpose)) &&
              json_put(view, "status", json_string(file->status)) &&
              json_put(view, "status_details", status_text(details)) &&
              json_put(view, "mp2", details != NULL ? json_incref(details) : json_null());
    json_decref(details);
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

/* ---- POST /v1/files ---------------------------------------------------------------------------- */

static store_file row_of(const struct upload *upload)
{
    store_file file = {.id = upload->id,
                       .tenant = request_tenant(upload->req),
                       .filename = upload->filename,
                       .purpose = upload->purpose,
                       .status = "processed",
                       .details = upload->details_text,
                       .bytes = (int64_t)upload->len,
                       .rows = (int64_t)upload->rows,
                       .created = upload->now};
    memcpy(file.sha256, upload->sha256, sizeof file.sha256);
    return file;
}

static store_status store_upload(store *s, void *arg, store_error *err)
{
    struct upload *upload = arg;
    store_file file = row_of(upload);
    store_status status = STORE_OK;
    if (upload->most_rows > 0) {
        status = store_file_rows(s, file.tenant, &upload->stored_rows, err);
        uint64_t stored = (uint64_t)upload->stored_rows;
        upload->over_quota = status == STORE_OK && stored + upload->rows > upload->most_rows;
    }
    if (status != STORE_OK || upload->over_quota) {
        return status == STORE_OK ? STORE_ELIMIT : status;
    }
    return store_file_create(s, &file, (store_blob){upload->bytes, upload->len}, err);
}

static void upload_stored(struct request *req, store_status status, const store_error *err,
                          void *arg)
{
    const struct upload *upload = arg;
    if (upload->over_quota) {
        struct quota_excess excess = quota_counted(QUOTA_EXAMPLES, upload->most_rows,
                                                   (uint64_t)upload->stored_rows, upload->rows);
        reply_quota(req, &excess);
        return;
    }
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    struct log_line line;
    log_begin(&line, LOG_INFO, "file_created");
    log_text(&line, "id", request_id(req));
    log_number(&line, "tenant", request_tenant(req));
    log_text(&line, "file", upload->id);
    log_number(&line, "bytes", (int64_t)upload->len);
    log_end(&line);
    reply_counted(req, QUOTA_EXAMPLES, upload->most_rows,
                  (uint64_t)upload->stored_rows + upload->rows);
    store_file file = row_of(upload);
    reply_json(req, 200, file_json(&file));
}

/* No good row: everything that is wrong, where OpenAI's clients look for it and in full beside it. */
static void reply_bad_rows(struct request *req, const struct upload *upload)
{
    char text[768];
    snprintf(text, sizeof text, "%s", upload->err.text);
    for (size_t i = 0; i < upload->n_errors && i < SHOWN_PER_TEXT; i++) {
        append(text, sizeof text, "; line %zu %s: %s", upload->errors[i].line,
               upload->errors[i].pointer, upload->errors[i].text);
    }
    json_t *body = json_pack("{s:{s:s, s:s, s:s, s:s, s:o}}", "error", "message", text, "type",
                             "invalid_request_error", "param", "file", "code", "invalid_rows",
                             "errors", error_list(upload));
    reply_header(req, "x-should-retry", "false");
    reply_json(req, 422, body);
}

static void upload_judged(struct request *req, void *arg)
{
    struct upload *upload = arg;
    if (upload->parsed == ENG_EFORMAT) {
        reply_bad_rows(req, upload);
    } else if (upload->parsed != ENG_OK) {
        reply_eng_error(req, upload->parsed, &upload->err, "file");
    } else if (!request_is_over(req)) {
        object_id(upload->id, "file-");
        upload->now = wall_ms();
        upload->most_rows = request_quota(req, QUOTA_EXAMPLES);
        request_store(req, store_upload, upload->len > ALONE_BYTES, upload_stored, upload);
    }
}

void ep_files_create(struct request *req)
{
    struct upload *upload = request_data(req);
    if (!multipart_complete(upload->form)) {
        reply_problem(req, 400, "malformed_form", NULL,
                      "the multipart body ends before its closing delimiter");
    } else if (!upload->have_file || upload->len == 0) {
        reply_problem(req, 422, "missing_part", "file",
                      "the form needs a part \"file\" with the rows%s",
                      upload->have_file ? "; it is empty" : "");
    } else if (!upload->have_purpose || strcmp(upload->purpose, "fine-tune") != 0) {
        reply_problem(req, 422, "invalid_value", "purpose",
                      "the form needs a part \"purpose\" with the value \"fine-tune\"");
    } else {
        request_offload(req, judge_upload, upload_judged, upload);
    }
}

/* ---- reading ------------------------------------------------------------------------------------ */

struct files_call {
    store_mem *mem;
    store_status status;
    store_error err;
    int64_t tenant;
    const char *id;
    const char *purpose;
    store_page page;
    store_file file, *files;
    store_blob data;
    size_t n;
    bool has_more;
};

static void release_call(void *data)
{
    store_mem_free(((struct files_call *)data)->mem);
}

/* NULL: replied. */
static struct files_call *new_call(struct request *req)
{
    struct files_call *call = request_alloc(req, sizeof *call);
    store_mem *mem = store_mem_new();
    if (call == NULL || mem == NULL) {
        store_mem_free(mem);
        reply_no_memory(req);
        return NULL;
    }
    *call = (struct files_call){.mem = mem, .tenant = request_tenant(req)};
    request_set_data(req, call, release_call);
    return call;
}

static void read_files(void *arg, store *reader)
{
    struct files_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status = store_file_list(reader, call->tenant, call->purpose, &call->page, call->mem,
                                       &call->files, &call->n, &call->has_more, &call->err);
    }
}

static void show_files(struct request *req, void *arg)
{
    struct files_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    json_t *data = json_array();
    for (size_t i = 0; i < call->n; i++) {
        json_array_append_new(data, file_json(&call->files[i]));
    }
    const char *first = call->n > 0 ? call->files[0].id : NULL;
    const char *last = call->n > 0 ? call->files[call->n - 1].id : NULL;
    reply_json(req, 200, listing_json(data, first, last, call->has_more));
}

void ep_files_list(struct request *req)
{
    struct files_call *call = new_call(req);
    if (call != NULL && listing_page(req, 100, MAX_LISTED, &call->page)) {
        call->purpose = request_query(req, "purpose");
        request_offload(req, read_files, show_files, call);
    }
}

static void read_file(void *arg, store *reader)
{
    struct files_call *call = arg;
    if (workers_has_reader(reader, &call->status, &call->err)) {
        call->status =
            store_file_get(reader, call->tenant, call->id, call->mem, &call->file, &call->err);
    }
}

static void show_file(struct request *req, void *arg)
{
    struct files_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    reply_json(req, 200, file_json(&call->file));
}

void ep_file_get(struct request *req)
{
    struct files_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "file");
        request_offload(req, read_file, show_file, call);
    }
}

static void read_content(void *arg, store *reader)
{
    struct files_call *call = arg;
    read_file(arg, reader);
    if (call->status == STORE_OK) {
        call->status =
            store_file_data(reader, call->tenant, call->id, call->mem, &call->data, &call->err);
    }
}

static void show_content(struct request *req, void *arg)
{
    struct files_call *call = arg;
    if (call->status != STORE_OK) {
        reply_store_error(req, call->status, &call->err);
        return;
    }
    reply_header(req, "Content-Disposition", "attachment");
    reply_bytes(req, 200, "application/octet-stream", call->data.data, call->data.len);
}

void ep_file_content(struct request *req)
{
    struct files_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "file");
        request_offload(req, read_content, show_content, call);
    }
}

/* ---- DELETE -------------------------------------------------------------------------------------- */

static store_status delete_file(store *s, void *arg, store_error *err)
{
    const struct files_call *call = arg;
    return store_file_delete(s, call->tenant, call->id, err);
}

static void file_deleted(struct request *req, store_status status, const store_error *err,
                         void *arg)
{
    const struct files_call *call = arg;
    if (status != STORE_OK) {
        reply_store_error(req, status, err);
        return;
    }
    reply_json(req, 200,
               json_pack("{s:s, s:s, s:b}", "id", call->id, "object", "file", "deleted", true));
}

void ep_file_delete(struct request *req)
{
    struct files_call *call = new_call(req);
    if (call != NULL) {
        call->id = request_param(req, "file");
        request_store(req, delete_file, false, file_deleted, call);
    }
}
