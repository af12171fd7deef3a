/* task_folder.c: a task as the data layout keeps it: task.json beside train, dev and test rows. */
#include "engine/engine.h"
#include "engine/jsonload.h"
#include "engine/mapfile.h"
#include "engine/status.h"

#include <limits.h>
#include <string.h>

#define MAX_ROWS_BYTES ((size_t)256 << 20)

static const struct json_limits task_limits = {(size_t)1 << 20, 16, 20000};

static eng_status join(const char *dir, const char *name, char *path, eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", dir, name);
    if (len < 0 || len >= PATH_MAX) {
        return fail(err, ENG_ELIMIT, "dir", "path longer than %d bytes", PATH_MAX);
    }
    return ENG_OK;
}

static void folder_name(const char *dir, char *name, size_t size)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    size_t from = len;
    while (from > 0 && dir[from - 1] != '/') {
        from--;
    }
    snprintf(name, size, "%.*s", (int)(len - from), dir + from);
}

/* template and labels of task.json; the texts stay inside `root`. */
static eng_status read_spec(const json_t *root, eng_text *labels, eng_task_spec *spec,
                            eng_error *err)
{
    const char *type = json_string_value(json_object_get(root, "type"));
    const json_t *text = json_object_get(root, "template");
    const json_t *words = json_object_get(root, "labels");
    if (type == NULL || !eng_task_type_parse(type, &spec->type)) {
        return fail(err, ENG_EFORMAT, "task.json",
                    "type wants classification, pair, choice or "
                    "extractive");
    }
    if (json_is_string(text)) {
        spec->text_template = (eng_text){json_string_value(text), json_string_length(text)};
    }
    if (json_array_size(words) > ENG_MAX_LABELS) {
        return fail(err, ENG_ELIMIT, "task.json", "%zu labels, at most %d are allowed",
                    json_array_size(words), ENG_MAX_LABELS);
    }
    for (size_t i = 0; i < json_array_size(words); i++) {
        const json_t *word = json_array_get(words, i);
        if (!json_is_string(word)) {
            return fail(err, ENG_EFORMAT, "task.json", "label %zu is not a string", i);
        }
        labels[i] = (eng_text){json_string_value(word), json_string_length(word)};
    }
    spec->labels = labels;
    spec->n_labels = json_array_size(words);
    spec->may_have_no_answer = json_is_true(json_object_get(root, "may_have_no_answer"));
    return ENG_OK;
}

static eng_status open_task(const eng_model *model, const eng_bank *bank, const char *dir,
                            eng_task **out, eng_error *err)
{
    char path[PATH_MAX];
    json_t *root = NULL;
    eng_text labels[ENG_MAX_LABELS];
    eng_task_spec spec = {0};
    eng_status status = join(dir, "task.json", path, err);
    if (status == ENG_OK) {
        status = json_load_file_limited(path, &task_limits, &root, err);
    }
    if (status == ENG_OK) {
        status = read_spec(root, labels, &spec, err);
    }
    if (status == ENG_OK) {
        status = eng_task_new(model, bank, &spec, out, err);
    }
    json_decref(root);
    return status;
}

static eng_status open_rows(const char *dir, const char *name, eng_task_type type,
                            eng_dataset **out, eng_error *err)
{
    char path[PATH_MAX];
    struct mapfile map = {.fd = -1};
    eng_status status = join(dir, name, path, err);
    if (status == ENG_OK) {
        status = mapfile_open(path, MAX_ROWS_BYTES, &map, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    status = eng_dataset_parse((eng_text){(const char *)map.data, map.size}, ENG_ROWS_JSONL, &type,
                               out, NULL, NULL, err);
    mapfile_close(&map);
    return status;
}

eng_status eng_task_folder_open(const eng_model *model, const eng_bank *bank, const char *dir,
                                eng_task_folder *out, eng_error *err)
{
    memset(out, 0, sizeof *out);
    folder_name(dir, out->name, sizeof out->name);
    eng_status status = open_task(model, bank, dir, &out->task, err);
    struct {
        const char *name;
        eng_dataset **set;
    } files[] = {
        {"train.jsonl", &out->train}, {"dev.jsonl", &out->dev}, {"test.jsonl", &out->test}};
    for (size_t i = 0; i < sizeof files / sizeof files[0] && status == ENG_OK; i++) {
        status = open_rows(dir, files[i].name, eng_task_get_type(out->task), files[i].set, err);
    }
    if (status != ENG_OK) {
        eng_task_folder_close(out);
    }
    return status;
}

void eng_task_folder_close(eng_task_folder *folder)
{
    eng_task_free(folder->task);
    eng_dataset_free(folder->train);
    eng_dataset_free(folder->dev);
    eng_dataset_free(folder->test);
    memset(folder, 0, sizeof *folder);
}
