/* prompts_write.c: where the results of a run over tasks lie, and writing them.
 *
 *   a bank          NAME.bank.safetensors (best), NAME.last.bank.safetensors, NAME.checkpoint
 *   joint, DIR      model directory with shallow.bank.safetensors or deep.bank.safetensors (best),
 *                   DIR/last the same (last), DIR/checkpoint.bin
 */
#include "engine/modeldir.h"
#include "engine/prompts.h"
#include "engine/status.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define END ".bank.safetensors"

/* ---- places ---- */

/* "to" without its end, with another. */
static eng_status beside(const eng_prompts_config *c, const char *end, char path[PATH_MAX],
                         eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%.*s%s", (int)(strlen(c->to) - strlen(END)), c->to, end);
    return len < PATH_MAX ? ENG_OK
                          : fail(err, ENG_ELIMIT, "to", "longer than %d bytes", PATH_MAX - 1);
}

static eng_status place_bank(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    size_t len = strlen(c->to), tail = strlen(END);
    if (len <= tail || strcmp(c->to + len - tail, END) != 0) {
        return fail(err, ENG_EINVAL, "to", "a bank is a file NAME%s, got \"%s\"", END, c->to);
    }
    eng_status status = beside(c, ".checkpoint", p->checkpoint, err);
    if (status == ENG_OK) {
        status = beside(c, END, p->bank, err);
    }
    if (status == ENG_OK) {
        status = beside(c, ".last" END, p->last, err);
    }
    return status == ENG_OK ? run_may_begin(p->checkpoint, p->bank, c->schedule.resume, err)
                            : status;
}

static eng_status place_model(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    const char *name = c->deep ? "deep" END : "shallow" END;
    char model[PATH_MAX];
    eng_status status = modeldir_path(c->to, "checkpoint.bin", p->checkpoint, err);
    if (status == ENG_OK) {
        status = modeldir_path(c->to, "model.safetensors", model, err);
    }
    if (status == ENG_OK) {
        status = modeldir_path(c->to, name, p->bank, err);
    }
    if (status == ENG_OK) {
        status = modeldir_path(c->to, "last", p->last_dir, err);
    }
    if (status == ENG_OK) {
        status = modeldir_path(p->last_dir, name, p->last, err);
    }
    if (status == ENG_OK) {
        status = modeldir_make(c->to, err);
    }
    return status == ENG_OK ? run_may_begin(p->checkpoint, model, c->schedule.resume, err) : status;
}

eng_status prompts_place(struct prompts *p, eng_error *err)
{
    return p->config->joint ? place_model(p, err) : place_bank(p, err);
}

/* ---- writing ---- */

/* The vocabulary as it was given: a file, or what the model's directory has. */
static eng_status copy_vocabulary(const struct prompts *p, const char *dir, eng_error *err)
{
    static const char *const files[] = {"vocab.txt", "tokenizer_config.json", "tokenizer.json"};
    const eng_prompts_config *c = p->config;
    char from[PATH_MAX];
    if (c->vocab != NULL) {
        return modeldir_copy(c->vocab, dir, "vocab.txt", err);
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        eng_status status = modeldir_path(c->model, files[i], from, err);
        if (status == ENG_OK) {
            status = modeldir_copy(from, dir, files[i], err);
        }
        if (status != ENG_OK && status != ENG_ENOTFOUND) {
            return status;
        }
    }
    return ENG_OK;
}

static eng_status write_model(struct prompts *p, const char *dir, eng_error *err)
{
    bool masked = p->config->mlm_weight > 0;
    eng_status status = modeldir_make(dir, err);
    if (status == ENG_OK) {
        status = copy_vocabulary(p, dir, err);
    }
    return status == ENG_OK
               ? modeldir_write(dir, p->model, masked ? "BertForMaskedLM" : "BertModel",
                                p->run.tensors + p->first_head, masked ? MLM_PARAMS : 0, err)
               : status;
}

/* The training record of the bank's file, JSON; malloc'ed. */
static char *make_record(const struct prompts *p, size_t step, double mean)
{
    const eng_schedule *schedule = &p->config->schedule;
    json_t *scores = json_object();
    for (size_t i = 0; i < p->tasks.n; i++) {
        (void)json_object_set_new(scores, p->tasks.tasks[i].name, json_real(p->scores[i]));
    }
    json_t *root =
        json_pack("{s:I, s:I, s:I, s:s, s:f, s:o}", "step", (json_int_t)step, "steps",
                  (json_int_t)schedule->steps, "seed", (json_int_t)schedule->seed, "backbone",
                  p->model->info.fingerprint, "dev_score", mean, "dev_scores", scores);
    char *record = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    return record;
}

eng_status prompts_write(struct prompts *p, size_t step, double mean, bool last, eng_error *err)
{
    eng_status status = ENG_OK;
    if (p->config->joint) {
        model_describe(p->model); /* the fingerprint of the weights as they are now */
        status = write_model(p, last ? p->last_dir : p->config->to, err);
    }
    char *record = make_record(p, step, mean);
    if (status == ENG_OK) {
        status = record != NULL
                     ? train_bank_write(&p->train, &p->tasks, record, last ? p->last : p->bank, err)
                     : fail_nomem(err, "to");
    }
    free(record);
    return status;
}
