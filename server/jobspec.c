/* jobspec.c: the request is read field by field, so that everything wrong with it is said at once;
 * then files and task are looked at, and what is settled is written down as the job's spec. */
#include "server/jobspec.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ID          96
#define MAX_METADATA    16
#define MAX_EPOCHS      10000
#define MAX_BATCH       1024
#define MAX_STEPS       100000
#define MIN_EVALUATIONS 2
#define MAX_EVALUATIONS                                                                            \
    1000 /* each costs a forward pass over every row, and the model of them all more */
#define MAX_SECONDS    86400
#define MAX_TEXT_LIMIT 100000
#define MAX_MULTIPLIER 1000.0

static const char *const types[] = {"classification", "pair", "choice", "extractive", NULL};
static const char *const inits[] = {"average", "random", "retrieve", NULL};

/* ---- reading the request ------------------------------------------------------------------------ */

static void read_metadata(const json_t *body, struct job_request *out, struct problems *problems)
{
    json_t *metadata = NULL;
    if (!json_get_object(body, "#", "metadata", JSON_OPTIONAL_FIELD, &metadata, problems)) {
        return;
    }
    const char *key;
    json_t *value;
    if (json_object_size(metadata) > MAX_METADATA) {
        problem_add(problems, "#", "metadata", "metadata has %zu pairs, at most %d",
                    json_object_size(metadata), MAX_METADATA);
    }
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value) || strlen(key) > 64 || json_string_length(value) > 512) {
            problem_add(problems, "#/metadata", key,
                        "metadata keys have at most 64 bytes, values are strings of at most 512");
        }
    }
    out->metadata = metadata;
}

/* A number or "auto". */
static void read_hyper_u64(const json_t *object, const char *base, const char *key, uint64_t max,
                           uint64_t *out, struct problems *problems)
{
    const char *word = json_string_value(json_object_get(object, key));
    if (word == NULL || strcmp(word, "auto") != 0) {
        json_get_u64(object, base, key, JSON_OPTIONAL_FIELD, 1, max, out, problems);
    }
}

static void read_hyper(const json_t *object, const char *base, struct job_request *out,
                       struct problems *problems)
{
    static const char *const known[] = {"n_epochs", "batch_size", "learning_rate_multiplier", NULL};
    const char *word = json_string_value(json_object_get(object, "learning_rate_multiplier"));
    json_only(object, base, known, problems);
    read_hyper_u64(object, base, "n_epochs", MAX_EPOCHS, &out->epochs, problems);
    read_hyper_u64(object, base, "batch_size", MAX_BATCH, &out->batch, problems);
    if (word == NULL || strcmp(word, "auto") != 0) {
        json_get_double(object, base, "learning_rate_multiplier", JSON_OPTIONAL_FIELD, 1e-6,
                        MAX_MULTIPLIER, &out->lr_multiplier, problems);
    }
}

/* OpenAI's "method": only supervised training exists here. */
static void read_openai_method(const json_t *body, struct job_request *out,
                               struct problems *problems)
{
    static const char *const known[] = {"type", "supervised", NULL};
    static const char *const kinds[] = {"supervised", NULL};
    static const char *const known_inside[] = {"hyperparameters", NULL};
    json_t *method = NULL, *supervised = NULL, *hyper = NULL;
    size_t kind = 0;
    if (!json_get_object(body, "#", "method", JSON_OPTIONAL_FIELD, &method, problems)) {
        return;
    }
    json_only(method, "#/method", known, problems);
    json_get_choice(method, "#/method", "type", JSON_REQUIRED_FIELD, kinds, &kind, problems);
    if (json_get_object(method, "#/method", "supervised", JSON_OPTIONAL_FIELD, &supervised,
                        problems)) {
        json_only(supervised, "#/method/supervised", known_inside, problems);
        if (json_get_object(supervised, "#/method/supervised", "hyperparameters",
                            JSON_OPTIONAL_FIELD, &hyper, problems)) {
            read_hyper(hyper, "#/method/supervised/hyperparameters", out, problems);
        }
    }
}

static void read_method_name(const json_t *mp2, struct job_request *out, struct problems *problems)
{
    const char *methods[16] = {NULL};
    size_t chosen = 0, n = 0;
    for (size_t i = 0; eng_adapt_method(i) != NULL && n + 1 < sizeof methods / sizeof methods[0];
         i++) {
        if (!eng_adapt_gives_model(eng_adapt_method(i))) { /* tenants share one backbone */
            methods[n++] = eng_adapt_method(i);
        }
    }
    if (!json_get_choice(mp2, "#/mp2", "method", JSON_OPTIONAL_FIELD, methods, &chosen, problems)) {
        return;
    }
    out->method = methods[chosen];
}

static void read_budget(const json_t *mp2, struct job_request *out, struct problems *problems)
{
    static const char *const known[] = {"steps", "seconds", "evaluations", NULL};
    json_t *budget = NULL;
    if (!json_get_object(mp2, "#/mp2", "budget", JSON_OPTIONAL_FIELD, &budget, problems)) {
        return;
    }
    json_only(budget, "#/mp2/budget", known, problems);
    json_get_u64(budget, "#/mp2/budget", "steps", JSON_OPTIONAL_FIELD, 1, MAX_STEPS, &out->steps,
                 problems);
    json_get_double(budget, "#/mp2/budget", "seconds", JSON_OPTIONAL_FIELD, 0.1, MAX_SECONDS,
                    &out->seconds, problems);
    json_get_u64(budget, "#/mp2/budget", "evaluations", JSON_OPTIONAL_FIELD, MIN_EVALUATIONS,
                 MAX_EVALUATIONS, &out->evaluations, problems);
    bool searches = out->method != NULL && strncmp(out->method, "blackbox", 8) == 0;
    if (out->evaluations > 0 && !searches) {
        problem_add(problems, "#/mp2/budget", "evaluations",
                    "evaluations is a budget of black-box methods; give steps or seconds, or "
                    "\"method\": \"blackbox-route\"");
    }
}

static void read_labels(const json_t *mp2, struct job_request *out, struct problems *problems)
{
    json_t *labels = NULL;
    if (!json_get_array(mp2, "#/mp2", "labels", JSON_OPTIONAL_FIELD, 2, ENG_MAX_LABELS, &labels,
                        problems)) {
        return;
    }
    for (size_t i = 0; i < json_array_size(labels); i++) {
        const json_t *label = json_array_get(labels, i);
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        if (!json_is_string(label) || json_string_length(label) < 1 ||
            json_string_length(label) > ENG_MAX_LABEL_BYTES) {
            problem_add(problems, "#/mp2/labels", key, "a label is a string of 1 to %d bytes",
                        ENG_MAX_LABEL_BYTES);
        }
    }
    out->labels = labels;
}

static void read_mp2(const json_t *body, struct job_request *out, struct problems *problems)
{
    static const char *const known[] = {"task",
                                        "type",
                                        "labels",
                                        "template",
                                        "method",
                                        "budget",
                                        "init",
                                        "k_shot",
                                        "lr",
                                        "eval_every",
                                        "text_limit",
                                        "weight_decay",
                                        "label_scaling",
                                        "may_have_no_answer",
                                        "publish",
                                        NULL};
    json_t *mp2 = NULL;
    size_t choice = 0;
    bool publish = true, label_scaling = true;
    if (!json_get_object(body, "#", "mp2", JSON_OPTIONAL_FIELD, &mp2, problems)) {
        return;
    }
    json_only(mp2, "#/mp2", known, problems);
    json_get_string(mp2, "#/mp2", "task", JSON_OPTIONAL_FIELD, 1, 256, &out->task, problems);
    if (json_get_choice(mp2, "#/mp2", "type", JSON_OPTIONAL_FIELD, types, &choice, problems)) {
        out->type = types[choice];
    }
    if (json_get_choice(mp2, "#/mp2", "init", JSON_OPTIONAL_FIELD, inits, &choice, problems)) {
        out->init = inits[choice];
    }
    json_get_string(mp2, "#/mp2", "template", JSON_OPTIONAL_FIELD, 1, ENG_MAX_TEMPLATE_BYTES,
                    &out->text_template, problems);
    json_get_bool(mp2, "#/mp2", "may_have_no_answer", JSON_OPTIONAL_FIELD, &out->may_have_no_answer,
                  problems);
    json_get_bool(mp2, "#/mp2", "publish", JSON_OPTIONAL_FIELD, &publish, problems);
    out->hold = !publish;
    json_get_bool(mp2, "#/mp2", "label_scaling", JSON_OPTIONAL_FIELD, &label_scaling, problems);
    out->no_label_scaling = !label_scaling;
    json_get_u64(mp2, "#/mp2", "k_shot", JSON_OPTIONAL_FIELD, 1, 100000, &out->k_shot, problems);
    json_get_u64(mp2, "#/mp2", "eval_every", JSON_OPTIONAL_FIELD, 1, MAX_STEPS, &out->eval_every,
                 problems);
    json_get_u64(mp2, "#/mp2", "text_limit", JSON_OPTIONAL_FIELD, 1, MAX_TEXT_LIMIT,
                 &out->text_limit, problems);
    json_get_double(mp2, "#/mp2", "lr", JSON_OPTIONAL_FIELD, 1e-8, 100, &out->lr, problems);
    json_get_double(mp2, "#/mp2", "weight_decay", JSON_OPTIONAL_FIELD, 0, 10, &out->weight_decay,
                    problems);
    read_labels(mp2, out, problems);
    read_method_name(mp2, out, problems);
    read_budget(mp2, out, problems);
}

static void read_suffix(const json_t *body, struct job_request *out, struct problems *problems)
{
    if (!json_get_string(body, "#", "suffix", JSON_OPTIONAL_FIELD, 1, JOB_MAX_SUFFIX, &out->suffix,
                         problems)) {
        return;
    }
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (out->suffix[strspn(out->suffix, allowed)] != '\0' || out->suffix[0] == '.') {
        problem_add(problems, "#", "suffix",
                    "a suffix has letters, digits, '-', '_' and '.', not first");
    }
}

void job_request_read(const json_t *body, struct job_request *out, struct problems *problems)
{
    static const char *const known[] = {
        "model",  "training_file", "validation_file", "suffix",       "seed", "metadata",
        "method", "mp2",           "hyperparameters", "integrations", NULL};
    json_t *hyper = NULL, *integrations = NULL;
    *out = (struct job_request){0};
    json_only(body, "#", known, problems);
    json_get_string(body, "#", "model", JSON_REQUIRED_FIELD, 1, 256, &out->model, problems);
    json_get_string(body, "#", "training_file", JSON_REQUIRED_FIELD, 1, MAX_ID, &out->training_file,
                    problems);
    json_get_string(body, "#", "validation_file", JSON_OPTIONAL_FIELD, 1, MAX_ID,
                    &out->validation_file, problems);
    out->has_seed =
        json_get_u64(body, "#", "seed", JSON_OPTIONAL_FIELD, 0, JOB_MAX_SEED, &out->seed, problems);
    if (json_get_object(body, "#", "hyperparameters", JSON_OPTIONAL_FIELD, &hyper, problems)) {
        read_hyper(hyper, "#/hyperparameters", out, problems);
    }
    if (json_get_array(body, "#", "integrations", JSON_OPTIONAL_FIELD, 0, 0, &integrations,
                       problems)) {
        /* an empty list is what clients send for none */
    }
    read_suffix(body, out, problems);
    read_metadata(body, out, problems);
    read_openai_method(body, out, problems);
    read_mp2(body, out, problems);
}

bool job_request_hash(const json_t *body, char out[65])
{
    unsigned char hash[crypto_hash_sha256_BYTES];
    char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    if (text == NULL) {
        return false;
    }
    crypto_hash_sha256(hash, (const unsigned char *)text, strlen(text));
    sodium_bin2hex(out, 65, hash, sizeof hash);
    free(text);
    return true;
}
