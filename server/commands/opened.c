/* opened.c: opening what commands work on, and saying why it could not be opened. */
#include "server/commands/opened.h"

#include "server/cgroup.h"
#include "server/commands/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int engine_failed(const char *command, eng_status status, const eng_error *err)
{
    fprintf(stderr, "mp2 %s: %s%s%s\n", command, err->field, err->field[0] != '\0' ? ": " : "",
            err->text);
    return status == ENG_ENOTFOUND || status == ENG_EIO ? EXIT_NO_INPUT : EXIT_FAILED;
}

int opened_open(const struct open_request *request, struct opened *out)
{
    eng_error err = {0};
    memset(out, 0, sizeof *out);
    const char *dir = default_model_dir(request->model);
    if (dir == NULL) {
        return EXIT_NO_INPUT;
    }
    eng_status status = eng_model_open(dir, &out->model, &err);
    if (status == ENG_OK) {
        status = request->bank != NULL
                     ? eng_bank_open(out->model, request->bank, request->tied, &out->bank, &err)
                     : eng_bank_open_default(out->model, request->tied, &out->bank, &err);
    }
    if (status == ENG_OK) {
        status = eng_compute_start(cgroup_own_threads(request->threads), NULL, &out->compute, &err);
    }
    return status == ENG_OK ? EXIT_DONE : engine_failed(request->command, status, &err);
}

void opened_close(struct opened *opened)
{
    if (opened->compute != NULL) {
        eng_compute_stop(opened->compute);
    }
    eng_bank_free(opened->bank);
    eng_model_free(opened->model);
    memset(opened, 0, sizeof *opened);
}

static char *read_stream(FILE *file, size_t max_bytes, size_t *len)
{
    size_t room = 0, used = 0;
    char *text = NULL;
    while (used <= max_bytes) {
        if (used + 1 >= room) {
            room = room == 0 ? 65536 : room * 2;
            char *grown = realloc(text, room);
            if (grown == NULL) {
                break;
            }
            text = grown;
        }
        size_t got = fread(text + used, 1, room - used - 1, file);
        used += got;
        if (got == 0) {
            text[used] = '\0';
            *len = used;
            return text;
        }
    }
    errno = used > max_bytes ? EFBIG : ENOMEM;
    free(text);
    return NULL;
}

char *read_text_file(const char *command, const char *path, size_t max_bytes, size_t *len)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rb");
    char *text = NULL;
    if (file != NULL) {
        text = read_stream(file, max_bytes, len);
        if (text != NULL && ferror(file)) {
            free(text);
            text = NULL;
        }
    }
    if (text == NULL) {
        fprintf(stderr, "mp2 %s: %s: %s\n", command, path, strerror(errno));
    }
    if (file != NULL && !standard) {
        (void)fclose(file);
    }
    return text;
}

static void list_bad_rows(const char *command, const char *path, const eng_row_error *errors,
                          size_t n, size_t bad)
{
    for (size_t i = 0; i < n; i++) {
        fprintf(stderr, "mp2 %s: %s:%zu: %s%s%s\n", command, path, errors[i].line,
                errors[i].pointer, errors[i].pointer[0] != '\0' ? ": " : "", errors[i].text);
    }
    if (bad > n) {
        fprintf(stderr, "mp2 %s: %s: %zu more bad rows\n", command, path, bad - n);
    }
}

int open_rows(const char *command, const char *path, const eng_task_type *type, eng_dataset **out)
{
    eng_row_error errors[ENG_MAX_ROW_ERRORS];
    size_t n_errors = 0, len = 0;
    eng_error err = {0};
    *out = NULL;
    char *text = read_text_file(command, path, (size_t)256 << 20, &len);
    if (text == NULL) {
        return EXIT_NO_INPUT;
    }
    size_t name = strlen(path);
    bool csv = name > 4 && strcmp(path + name - 4, ".csv") == 0;
    eng_status status =
        eng_dataset_parse((eng_text){text, len}, csv ? ENG_ROWS_CSV : ENG_ROWS_JSONL, type, out,
                          errors, &n_errors, &err);
    free(text);
    list_bad_rows(command, path, errors, n_errors,
                  *out != NULL ? eng_dataset_get_info(*out)->bad_rows : n_errors);
    if (status != ENG_OK) {
        fprintf(stderr, "mp2 %s: %s: %s\n", command, path, err.text);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

bool parse_spec(const char *type, const char *words, const char *text_template, eng_text *labels,
                eng_task_spec *spec)
{
    if (type != NULL && !eng_task_type_parse(type, &spec->type)) {
        usage_error("--type wants classification, pair, choice or extractive, got \"%s\"", type);
        return false;
    }
    if (text_template != NULL) {
        spec->text_template = (eng_text){text_template, strlen(text_template)};
    }
    for (const char *at = words; at != NULL;) {
        size_t len = strcspn(at, ",");
        if (spec->n_labels == ENG_MAX_LABELS) {
            usage_error("--labels wants at most %d words separated by commas", ENG_MAX_LABELS);
            return false;
        }
        labels[spec->n_labels++] = (eng_text){at, len};
        at = at[len] == ',' ? at + len + 1 : NULL;
    }
    spec->labels = labels;
    return true;
}

bool parse_init(const char *name, eng_init *init)
{
    static const char *const names[] = {"average", "random", "retrieve"};
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(names[i], name) == 0) {
            *init = (eng_init)i;
            return true;
        }
    }
    usage_error("--init wants average, random or retrieve, got \"%s\"", name);
    return false;
}
