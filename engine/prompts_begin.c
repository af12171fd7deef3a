/* prompts_begin.c: what a run over tasks is made of, before its first step: settings checked, the model
 * (as it is, or ours to write), the bank, the tasks, tapes and room, the tensors that learn.
 */
#include "engine/prompts.h"

#include "engine/bankfile.h"
#include "engine/status.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH ((size_t)4096)

void eng_prompts_defaults(eng_prompts_config *config)
{
    *config = (eng_prompts_config){
        .schedule = {.steps = 20000,
                     .warmup = 500,
                     .weight_decay = 0.01,
                     .clip = 1,
                     .dev_every = 1000,
                     .save_every = 1000,
                     .seed = 42},
        .modules = 8,
        .prompt_tokens = 50,
        .intrinsic = 300,
        .prompt_token_offset = -1,
        .token_type = -1,
        .lr_prompt = 1e-3,
        .lr_route = 1e-3,
        .lr_head = 1e-3,
        .tau = 1,
        .tau_end = 1,
        .batch = 32,
        .dev_rows = 256,
        .neutral_labels = ENG_MAX_LABELS,
        .rows_per_task = 1,
        .lr_backbone = 5e-4,
        .shape = {.layers = 4, .hidden = 256, .heads = 4, .ffn = 1024, .positions = 512},
        .mlm_tokens = 1024};
}

/* ---- settings ---- */

static eng_status check_numbers(const eng_prompts_config *c, eng_error *err)
{
    const struct {
        const char *name;
        double value, min, max;
    } limits[] = {{"lr_prompt", c->lr_prompt, 0, 10},
                  {"lr_route", c->lr_route, 0, 10},
                  {"lr_head", c->lr_head, 0, 10},
                  {"lr_backbone", c->lr_backbone, 0, 10},
                  {"tau", c->tau, 1e-3, 1e3},
                  {"tau_end", c->tau_end, 1e-3, 1e3},
                  {"dropout", c->dropout, 0, 0.9},
                  {"batch", (double)c->batch, 1, (double)MAX_BATCH},
                  {"dev_rows", (double)c->dev_rows, 1, 1e6},
                  {"neutral", (double)c->neutral, 0, 100},
                  {"rows_per_task", (double)c->rows_per_task, 1, 1000},
                  {"mlm_weight", c->mlm_weight, 0, 100},
                  {"mlm_tokens", (double)c->mlm_tokens, 64, 1 << 20}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (!(limits[i].value >= limits[i].min && limits[i].value <= limits[i].max)) {
            return fail(err, ENG_EINVAL, limits[i].name, "%g, wanted %g to %g", limits[i].value,
                        limits[i].min, limits[i].max);
        }
    }
    return ENG_OK;
}

static eng_status check_backbone(const eng_prompts_config *c, eng_error *err)
{
    if (!c->joint && (c->model == NULL || c->vocab != NULL)) {
        return fail(err, ENG_EINVAL, "model",
                    "modules are trained on a model; random weights only learn in joint training");
    }
    if (c->joint && (c->model == NULL) == (c->vocab == NULL)) {
        return fail(err, ENG_EINVAL, "model",
                    "joint training starts from a model, or from a vocabulary: one of them");
    }
    if (c->mlm_weight > 0 && (!c->joint || c->n_text == 0)) {
        return fail(err, ENG_EINVAL, "mlm_weight",
                    "masked language modelling beside the tasks wants joint training and text");
    }
    return ENG_OK;
}

static eng_status check_config(const eng_prompts_config *c, eng_error *err)
{
    if (c->n_tasks == 0 || c->to == NULL) {
        return fail(err, ENG_EINVAL, "tasks", "tasks and an output are needed");
    }
    if (c->tied && !c->deep) {
        return fail(err, ENG_EINVAL, "tied", "only a deep bank has layers to tie a route across");
    }
    if (c->n_first > 0 && c->first_steps == 0) {
        return fail(err, ENG_EINVAL, "first_steps", "tasks that come first, for 0 steps");
    }
    eng_status status = check_backbone(c, err);
    if (status == ENG_OK) {
        status = check_numbers(c, err);
    }
    return status == ENG_OK ? run_check_schedule(&c->schedule, err) : status;
}

static void hash_vocabulary(const struct tokenizer *tokenizer, crypto_generichash_state *state)
{
    for (size_t id = 0; id < tokenizer_size(tokenizer); id++) {
        const char *token = tokenizer_string(tokenizer, (int32_t)id);
        crypto_generichash_update(state, (const unsigned char *)token, strlen(token) + 1);
    }
}

/* What a bank that the run started from says: its values, before the first step. */
static void hash_start(const struct prompts *p, crypto_generichash_state *state)
{
    const eng_bank *bank = p->train.bank;
    const eng_bank_info *info = &bank->info;
    const struct {
        const float *values;
        size_t n;
    } all[] = {{bank->z, info->layers * info->modules * info->intrinsic},
               {bank->modules,
                info->layers * info->modules * info->prompt_tokens * p->model->params.hidden},
               {bank->head_w, 2 * p->model->params.hidden},
               {p->train.routes, info->rows * info->route_len}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        crypto_generichash_update(state, (const unsigned char *)all[i].values,
                                  all[i].n * sizeof(float));
    }
}

/* Whatever changes the result, hashed; field by field, for padding is not defined. */
static void hash_settings(struct prompts *p)
{
    const eng_prompts_config *c = p->config;
    const eng_schedule *s = &c->schedule;
    unsigned char tasks[RUN_SETTINGS];
    const uint64_t numbers[] = {s->steps,
                                s->warmup,
                                s->dev_every,
                                s->seed,
                                c->deep,
                                c->tied,
                                c->modules,
                                c->prompt_tokens,
                                c->intrinsic,
                                c->batch,
                                c->text_limit,
                                c->dev_rows,
                                c->neutral,
                                c->neutral_labels,
                                c->rows_per_task,
                                c->first_steps,
                                c->keep_order,
                                c->joint,
                                c->encoder,
                                c->mlm_tokens,
                                (uint64_t)c->prompt_token_offset,
                                (uint64_t)c->token_type};
    const double reals[] = {s->weight_decay, s->clip, c->lr_prompt, c->lr_route, c->lr_head,
                            c->lr_backbone,  c->tau,  c->tau_end,   c->dropout,  c->mlm_weight};
    const char *backbone = p->model->info.fingerprint; /* of what it starts from */
    crypto_generichash_state state;
    prompt_tasks_hash(&p->tasks, tasks);
    crypto_generichash_init(&state, NULL, 0, sizeof p->run.settings);
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof numbers);
    crypto_generichash_update(&state, (const unsigned char *)reals, sizeof reals);
    crypto_generichash_update(&state, (const unsigned char *)backbone, strlen(backbone));
    hash_vocabulary(p->model->tokenizer, &state);
    crypto_generichash_update(&state, tasks, sizeof tasks);
    if (c->bank != NULL) {
        hash_start(p, &state);
    }
    if (c->mlm_weight > 0) {
        crypto_generichash_update(&state, (const unsigned char *)p->text.text.starts,
                                  (p->text.text.files + 1) * sizeof *p->text.text.starts);
    }
    crypto_generichash_final(&state, p->run.settings, sizeof p->run.settings);
}

/* ---- model, bank, tasks ---- */

static eng_status open_model(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    eng_status status = ENG_OK;
    if (!c->joint) {
        status = eng_model_open(c->model, &p->model, err);
    } else if (c->model != NULL) {
        status = pretrain_model_own(c->model, &p->model, err);
    } else {
        status = pretrain_model_random(c->vocab, &c->shape, c->plain_start, c->schedule.seed,
                                       &p->model, err);
    }
    if (status == ENG_OK && p->model->tokenizer == NULL) {
        status = fail(err, ENG_EINVAL, "model", "%s has no vocabulary: it takes ids, not text",
                      c->model);
    }
    return status;
}

static eng_status make_rows(struct prompts *p, struct rng *rng, eng_error *err)
{
    size_t n = p->tasks.rows;
    char(*names)[160] = calloc(n + 1, sizeof *names);
    const char **list = calloc(n + 1, sizeof *list);
    eng_status status = names != NULL && list != NULL ? ENG_OK : fail_nomem(err, "tasks");
    for (size_t i = 0; status == ENG_OK && i < n; i++) {
        prompt_tasks_row_name(&p->tasks, i, names[i]);
        list[i] = names[i];
    }
    if (status == ENG_OK) {
        status = train_bank_rows(&p->train, list, n, rng, err);
    }
    free(names);
    free(list);
    return status;
}

static eng_status make_bank(struct prompts *p, struct rng *rng, eng_error *err)
{
    eng_status status = train_bank_init(&p->train, p->compute, p->model, p->config, rng, err);
    if (status == ENG_OK) {
        status = prompt_tasks_open(p->model, p->train.bank, p->config, &p->tasks, err);
    }
    if (status == ENG_OK) {
        status = make_rows(p, rng, err);
    }
    if (status == ENG_OK && p->config->bank != NULL) {
        status = train_bank_take(&p->train, p->config->bank, err);
    }
    return status;
}

/* ---- room ---- */

static eng_status make_arrays(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    const eng_bank_info *info = &p->train.bank->info;
    size_t positions = p->model->params.positions, tasks = p->tasks.n;
    size_t mixes = c->rows_per_task * info->layers * info->modules;
    size_t floats = info->layers * info->prompt_tokens * p->model->params.hidden;
    p->which = calloc(c->batch, sizeof *p->which);
    p->rows = calloc(c->batch, sizeof *p->rows);
    p->ids = calloc(c->batch * positions, sizeof *p->ids);
    p->mix = calloc(mixes, sizeof *p->mix);
    p->noise = calloc(mixes, sizeof *p->noise);
    p->dmerged = calloc(c->rows_per_task, floats * sizeof *p->dmerged);
    p->scores = calloc(tasks, sizeof *p->scores);
    p->names = calloc(tasks, sizeof *p->names);
    p->state = calloc(1, sizeof *p->state + tasks * sizeof *p->state->drawn);
    if (p->which == NULL || p->rows == NULL || p->ids == NULL || p->mix == NULL ||
        p->noise == NULL || p->dmerged == NULL || p->scores == NULL || p->names == NULL ||
        p->state == NULL) {
        return fail_nomem(err, "batch");
    }
    p->state->best = -1;
    for (size_t i = 0; i < tasks; i++) {
        p->names[i] = p->tasks.tasks[i].name;
    }
    return ENG_OK;
}

static eng_status make_tapes(struct prompts *p, eng_error *err)
{
    const eng_bank_info *info = &p->train.bank->info;
    size_t positions = p->model->params.positions;
    size_t floats = info->layers * info->prompt_tokens * p->model->params.hidden;
    unsigned want = WANT_PROMPT | WANT_HEAD | (p->config->joint ? WANT_WEIGHTS : 0);
    eng_status status =
        mrc_gradient_init(&p->gradient, p->compute, p->model, positions, 0, floats, want, err);
    return status == ENG_OK
               ? batch_runner_init(&p->runner, p->compute, ENG_TRAINING, p->model, positions, err)
               : status;
}

static eng_status make_text(struct prompts *p, struct rng *rng, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    struct prompts_text *text = &p->text;
    size_t len = p->model->params.positions < 128 ? p->model->params.positions : 128;
    text->limits = (struct mlm_limits){c->mlm_tokens > len ? c->mlm_tokens : len, len, 0.15};
    eng_status status = textstream_init(&text->text, c->text, c->n_text, TEXT_MAX_LANES, err);
    if (status == ENG_OK) {
        memcpy(p->state->at, text->text.at, sizeof p->state->at);
        status = mlm_words_init(p->model->tokenizer, &text->words, err);
    }
    if (status == ENG_OK) {
        status = mlm_batch_init(&text->limits, &text->batch, err);
    }
    if (status == ENG_OK) {
        text->dword = (float *)(uintptr_t)encoder_gradient(
            p->gradient.tape, "embeddings.word_embeddings.weight", NULL);
        status = mlm_learner_init(&text->learner, p->compute, p->model, p->gradient.max_tokens,
                                  BATCH_MAX_SEQUENCES, rng, err);
        text->learner.tape = p->gradient.tape;
    }
    return status;
}

/* ---- tensors ---- */

static eng_status add_bank(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    const struct train_bank *train = &p->train;
    const eng_bank_info *info = &train->bank->info;
    size_t n = info->prompt_tokens * p->model->params.hidden;
    const struct run_tensor tensors[] = {{.name = "A",
                                          .dims = 3,
                                          .shape = {info->layers, info->intrinsic, n},
                                          .values = train->bank->A,
                                          .gradient = train->dA,
                                          .lr = c->lr_prompt,
                                          .decayed = true},
                                         {.name = "z",
                                          .dims = 3,
                                          .shape = {info->layers, info->modules, info->intrinsic},
                                          .values = train->bank->z,
                                          .gradient = train->dz,
                                          .lr = c->lr_prompt,
                                          .decayed = true},
                                         {.name = "lmhead",
                                          .dims = 2,
                                          .shape = {2, p->model->params.hidden},
                                          .values = train->bank->head_w,
                                          .gradient = train->dhead,
                                          .lr = c->lr_head,
                                          .decayed = true}};
    eng_status status = ENG_OK;
    for (size_t i = 0; status == ENG_OK && i < 3; i++) {
        status = run_add(&p->run, &tensors[i], err);
    }
    if (status == ENG_OK && train->encoder != NULL) {
        status = prompt_encoder_add(train->encoder, c->lr_prompt, &p->run, err);
    }
    return status;
}

static eng_status add_routes(struct prompts *p, eng_error *err)
{
    size_t len = p->train.bank->info.route_len;
    eng_status status = ENG_OK;
    p->first_route = p->run.n;
    for (size_t row = 0; status == ENG_OK && row < p->tasks.rows; row++) {
        struct run_tensor route = {.dims = 1,
                                   .shape = {len},
                                   .values = p->train.routes + row * len,
                                   .gradient = p->train.droutes + row * len,
                                   .lr = p->config->lr_route};
        snprintf(route.name, sizeof route.name, "route %zu", row);
        status = run_add(&p->run, &route, err);
    }
    p->first_head = p->run.n;
    return status;
}

static eng_status make_run(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    eng_status status = run_init(&p->run, 16 + p->tasks.rows + PRETRAIN_TENSORS, err);
    if (status == ENG_OK) {
        status = add_bank(p, err);
    }
    if (status == ENG_OK) {
        status = add_routes(p, err);
    }
    if (status == ENG_OK && c->mlm_weight > 0) {
        status = mlm_learner_add(&p->text.learner, &p->run, c->lr_backbone, err);
    }
    if (status == ENG_OK && c->joint) {
        status = backbone_add(p->model, p->gradient.tape, c->lr_backbone, &p->run, err);
    }
    hash_settings(p);
    p->run.compute = p->compute;
    p->run.self = p;
    p->run.schedule = &c->schedule;
    p->run.lr = c->joint ? c->lr_backbone : c->lr_prompt;
    p->run.state = p->state;
    p->run.state_bytes = sizeof *p->state + p->tasks.n * sizeof *p->state->drawn;
    p->run.checkpoint = p->checkpoint;
    return status;
}

eng_status prompts_begin(struct prompts *p, eng_error *err)
{
    struct rng rng;
    uint64_t seed = p->config->schedule.seed;
    rng_seed(&rng, splitmix64(&seed));
    eng_status status = check_config(p->config, err);
    if (status == ENG_OK) {
        status = prompts_place(p, err);
    }
    if (status == ENG_OK) {
        status = open_model(p, err);
    }
    if (status == ENG_OK) {
        status = make_bank(p, &rng, err);
    }
    if (status == ENG_OK) {
        status = make_arrays(p, err);
    }
    if (status == ENG_OK) {
        status = make_tapes(p, err);
    }
    if (status == ENG_OK && p->config->mlm_weight > 0) {
        status = make_text(p, &rng, err);
    }
    return status == ENG_OK ? make_run(p, err) : status;
}

void prompts_end(struct prompts *p)
{
    run_fini(&p->run);
    mlm_learner_fini(&p->text.learner);
    mlm_batch_fini(&p->text.batch);
    textstream_fini(&p->text.text);
    free(p->text.words.ids);
    batch_runner_fini(&p->runner);
    mrc_gradient_fini(&p->gradient);
    prompt_tasks_fini(&p->tasks);
    train_bank_fini(&p->train);
    eng_model_free(p->model);
    free(p->which);
    free(p->rows);
    free(p->ids);
    free(p->mix);
    free(p->noise);
    free(p->dmerged);
    free(p->scores);
    free(p->names);
    free(p->state);
    free(p);
}
