/* prompts.c: multi-task pre-training of a bank, METHOD 4.2.
 *
 * A step: one task, all alike; a batch of its rows, the options of each shuffled; for each of the task's
 * routes noise, weights w = sigmoid((r + log u − log(1−u)) / tau), a mix; loss and gradients of the
 * prompts (mrc_gradient.c); through the mix to route, z and A; AdamW. A route's optimiser moves only
 * in steps that drew the route: its moments are of its own gradients, not of the zeros between them.
 *
 * The look at dev uses the serving mix, without noise. Before the first step it uses no prompt at all:
 * that is what the frozen backbone can do by itself with the head it starts from.
 */
#include "engine/prompts.h"

#include "engine/bankfile.h"
#include "engine/encoder.h"
#include "engine/evaluate.h"
#include "engine/mrc.h"
#include "engine/status.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH ((size_t)4096)
#define END       ".bank.safetensors"

/* Saved with the tensors; drawn has one number a task. */
struct state {
    double best;
    uint64_t best_step;
    uint64_t drawn[];
};

struct prompts {
    const eng_prompts_config *config;
    eng_compute *compute;
    eng_model *model;
    struct pretrain_run run;
    struct train_bank train;
    struct prompt_tasks tasks;
    struct mrc_gradient gradient;
    struct batch_runner runner; /* of looks at dev */
    struct state *state;
    size_t first_route; /* run.tensors[first_route + row] is route `row` */
    /* of a step: */
    size_t *which;        /* (batch) rows of the set */
    struct mrc_row *rows; /* (batch) */
    int32_t *ids;         /* (batch, positions) sequences with their options reordered */
    float *mix;           /* (rows_per_task, Lp, K) */
    float *noise;         /* (rows_per_task, Lp, K) */
    float *dmerged;       /* (rows_per_task, Lp, P, H) */
    double *scores;       /* (tasks) of the last look */
    const char **names;   /* (tasks) */
    char checkpoint[PATH_MAX], last[PATH_MAX];
};

void eng_prompts_defaults(eng_prompts_config *config)
{
    *config = (eng_prompts_config){.schedule = {.steps = 20000,
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
                                   .rows_per_task = 1};
}

/* ---- beginning ---- */

static eng_status check_numbers(const eng_prompts_config *c, eng_error *err)
{
    const struct {
        const char *name;
        double value, min, max;
    } limits[] = {{"lr_prompt", c->lr_prompt, 0, 10},
                  {"lr_route", c->lr_route, 0, 10},
                  {"lr_head", c->lr_head, 0, 10},
                  {"tau", c->tau, 1e-3, 1e3},
                  {"tau_end", c->tau_end, 1e-3, 1e3},
                  {"dropout", c->dropout, 0, 0.9},
                  {"batch", (double)c->batch, 1, (double)MAX_BATCH},
                  {"dev_rows", (double)c->dev_rows, 1, 1e6},
                  {"neutral", (double)c->neutral, 0, 100},
                  {"rows_per_task", (double)c->rows_per_task, 1, 1000}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (!(limits[i].value >= limits[i].min && limits[i].value <= limits[i].max)) {
            return fail(err, ENG_EINVAL, limits[i].name, "%g, wanted %g to %g", limits[i].value,
                        limits[i].min, limits[i].max);
        }
    }
    return ENG_OK;
}

static eng_status check_config(const eng_prompts_config *c, eng_error *err)
{
    size_t len = c->to != NULL ? strlen(c->to) : 0, tail = strlen(END);
    if (c->model == NULL || c->n_tasks == 0) {
        return fail(err, ENG_EINVAL, "tasks", "a model and tasks are needed");
    }
    if (len <= tail || strcmp(c->to + len - tail, END) != 0) {
        return fail(err, ENG_EINVAL, "to", "a bank is a file NAME%s, got \"%s\"", END,
                    c->to != NULL ? c->to : "");
    }
    if (c->tied && !c->deep) {
        return fail(err, ENG_EINVAL, "tied", "only a deep bank has layers to tie a route across");
    }
    if (c->n_first > 0 && c->first_steps == 0) {
        return fail(err, ENG_EINVAL, "first_steps", "tasks that come first, for 0 steps");
    }
    eng_status status = check_numbers(c, err);
    return status == ENG_OK ? run_check_schedule(&c->schedule, err) : status;
}

/* "to" without its end, with another. */
static eng_status beside(const eng_prompts_config *c, const char *end, char path[PATH_MAX],
                         eng_error *err)
{
    int len = snprintf(path, PATH_MAX, "%.*s%s", (int)(strlen(c->to) - strlen(END)), c->to, end);
    return len < PATH_MAX ? ENG_OK
                          : fail(err, ENG_ELIMIT, "to", "longer than %d bytes", PATH_MAX - 1);
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
                                c->rows_per_task,
                                c->first_steps,
                                c->keep_order,
                                (uint64_t)c->prompt_token_offset,
                                (uint64_t)c->token_type};
    const double reals[] = {s->weight_decay, s->clip, c->lr_prompt, c->lr_route,
                            c->lr_head,      c->tau,  c->tau_end,   c->dropout};
    const char *backbone = p->model->info.fingerprint;
    crypto_generichash_state state;
    prompt_tasks_hash(&p->tasks, tasks);
    crypto_generichash_init(&state, NULL, 0, sizeof p->run.settings);
    crypto_generichash_update(&state, (const unsigned char *)numbers, sizeof numbers);
    crypto_generichash_update(&state, (const unsigned char *)reals, sizeof reals);
    crypto_generichash_update(&state, (const unsigned char *)backbone, strlen(backbone));
    crypto_generichash_update(&state, tasks, sizeof tasks);
    crypto_generichash_final(&state, p->run.settings, sizeof p->run.settings);
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

static eng_status make_bank(struct prompts *p, eng_error *err)
{
    struct rng rng;
    uint64_t seed = p->config->schedule.seed;
    rng_seed(&rng, splitmix64(&seed));
    eng_status status = train_bank_init(&p->train, p->compute, p->model, p->config, &rng, err);
    if (status == ENG_OK) {
        status = prompt_tasks_open(p->model, p->train.bank, p->config, &p->tasks, err);
    }
    return status == ENG_OK ? make_rows(p, &rng, err) : status;
}

static eng_status make_room(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    const eng_bank_info *info = &p->train.bank->info;
    size_t positions = p->model->params.positions,
           mixes = c->rows_per_task * info->layers * info->modules;
    size_t floats = info->layers * info->prompt_tokens * p->model->params.hidden;
    p->which = calloc(c->batch, sizeof *p->which);
    p->rows = calloc(c->batch, sizeof *p->rows);
    p->ids = calloc(c->batch * positions, sizeof *p->ids);
    p->mix = calloc(mixes, sizeof *p->mix);
    p->noise = calloc(mixes, sizeof *p->noise);
    p->dmerged = calloc(c->rows_per_task, floats * sizeof *p->dmerged);
    p->scores = calloc(p->tasks.n, sizeof *p->scores);
    p->names = calloc(p->tasks.n, sizeof *p->names);
    p->state = calloc(1, sizeof *p->state + p->tasks.n * sizeof *p->state->drawn);
    if (p->which == NULL || p->rows == NULL || p->ids == NULL || p->mix == NULL ||
        p->noise == NULL || p->dmerged == NULL || p->scores == NULL || p->names == NULL ||
        p->state == NULL) {
        return fail_nomem(err, "batch");
    }
    p->state->best = -1;
    for (size_t i = 0; i < p->tasks.n; i++) {
        p->names[i] = p->tasks.tasks[i].name;
    }
    eng_status status = mrc_gradient_init(&p->gradient, p->compute, p->model, positions, 0, floats,
                                          WANT_PROMPT | WANT_HEAD, err);
    return status == ENG_OK
               ? batch_runner_init(&p->runner, p->compute, ENG_TRAINING, p->model, positions, err)
               : status;
}

static eng_status add_tensors(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    struct train_bank *train = &p->train;
    const eng_bank_info *info = &train->bank->info;
    size_t n = info->prompt_tokens * p->model->params.hidden, len = info->route_len;
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
    eng_status status = run_init(&p->run, 3 + p->tasks.rows, err);
    for (size_t i = 0; status == ENG_OK && i < 3; i++) {
        status = run_add(&p->run, &tensors[i], err);
    }
    p->first_route = p->run.n;
    for (size_t row = 0; status == ENG_OK && row < p->tasks.rows; row++) {
        struct run_tensor route = {.dims = 1,
                                   .shape = {len},
                                   .lr = c->lr_route,
                                   .values = train->routes + row * len,
                                   .gradient = train->droutes + row * len};
        snprintf(route.name, sizeof route.name, "route %zu", row);
        status = run_add(&p->run, &route, err);
    }
    return status;
}

/* ---- one step ---- */

static float temperature(const eng_prompts_config *c, uint64_t step)
{
    double along = (double)step / (double)c->schedule.steps;
    return (float)(c->tau + along * (c->tau_end - c->tau));
}

/* Noise and mixes of the task's routes. A tied route has one noise for all layers, as it has one weight. */
static void make_mixes(struct prompts *p, const struct prompt_task *task, float tau,
                       struct rng *rng)
{
    const eng_bank *bank = p->train.bank;
    size_t K = bank->info.modules, all = bank->info.layers * K, len = bank->info.route_len;
    for (size_t r = 0; r < task->rows; r++) {
        float *u = p->noise + r * all;
        for (size_t i = 0; i < all; i++) {
            bool again = bank->info.tied && i >= K;
            u[i] =
                again ? u[i - K] : (float)((double)(rng_below(rng, 1 << 23) + 1) / ((1 << 23) + 2));
        }
        const struct bank_noise noise = {u, tau};
        bank_mix(bank, p->train.routes + (task->row + r) * len, &noise, p->mix + r * all, NULL);
    }
}

/* Row `at` of the batch from an item; its options in an order of its own. */
static void take_item(struct prompts *p, const struct prompt_task *task,
                      const struct batch_item *item, size_t at, struct rng *rng)
{
    const eng_bank_info *info = &p->train.bank->info;
    size_t route = prompt_task_route(task, &item->row);
    size_t floats = p->gradient.prompt_floats, options = eng_encoded_options(item->encoded);
    int32_t *ids = p->ids + at * p->model->params.positions;
    struct mrc_row *row = &p->rows[at];
    *row = (struct mrc_row){.start = item->start,
                            .end = item->end,
                            .dmerged = p->dmerged + route * floats,
                            .sequence = {.ids = ids,
                                         .len = item->len,
                                         .bank = p->train.bank,
                                         .mix = p->mix + route * info->layers * info->modules}};
    if (options == 0 || p->config->keep_order) {
        memcpy(ids, item->ids, item->len * sizeof *ids);
        return;
    }
    size_t order[ENG_MAX_LABELS];
    for (size_t i = 0; i < options; i++) {
        order[i] = i;
    }
    rng_shuffle(rng, order, options);
    mrc_reorder(item->encoded, order, item->row.label, ids, &row->start, &row->end);
}

/* Draws rows until the batch is full: those whose answer does not fit cannot train. */
static eng_status fill_batch(struct prompts *p, size_t index, struct rng *rng, size_t *n,
                             eng_error *err)
{
    struct prompt_task *task = &p->tasks.tasks[index];
    size_t tried = 0, batch = p->config->batch;
    *n = 0;
    while (*n < batch && tried < batch + task->n) {
        struct batch_rows rows;
        size_t want = batch - *n;
        prompt_task_rows(task, index, p->config->schedule.seed, &p->state->drawn[index], want,
                         p->which);
        eng_status status = batch_rows_make(task->task, task->train, p->which, want,
                                            p->config->text_limit, true, &rows, err);
        for (size_t i = 0; status == ENG_OK && i < rows.n; i++) {
            if (rows.items[i].has_target) {
                take_item(p, task, &rows.items[i], (*n)++, rng);
            }
        }
        batch_rows_fini(&rows);
        if (status != ENG_OK) {
            return status;
        }
        tried += want;
    }
    return *n > 0 ? ENG_OK
                  : fail(err, ENG_EINVAL, "tasks",
                         "task %s: none of its rows can train, their answers do not fit the model",
                         task->name);
}

static void bank_backward(struct prompts *p, const struct prompt_task *task, float tau)
{
    const eng_bank_info *info = &p->train.bank->info;
    size_t all = info->layers * info->modules, floats = p->gradient.prompt_floats;
    const float *bias = NULL;
    memset(p->train.dmodules, 0, info->modules * floats * sizeof(float));
    for (size_t row = 0; row < p->tasks.rows; row++) {
        p->run.tensors[p->first_route + row].idle =
            row < task->row || row >= task->row + task->rows;
    }
    for (size_t r = 0; r < task->rows; r++) {
        const struct bank_noise noise = {p->noise + r * all, tau};
        train_bank_route_gradient(&p->train, task->row + r, &noise, p->mix + r * all,
                                  p->dmerged + r * floats);
    }
    train_bank_factor_gradient(&p->train);
    memcpy(p->train.dhead, encoder_head_gradient(p->gradient.tape, &bias),
           2 * p->model->params.hidden * sizeof(float));
}

static eng_status step(void *self, uint64_t number, eng_pretrain_progress *progress,
                       uint64_t *tokens, eng_error *err)
{
    struct prompts *p = self;
    const eng_prompts_config *c = p->config;
    struct rng rng;
    uint64_t seed = c->schedule.seed ^ number << 20;
    size_t n = 0;
    rng_seed(&rng, splitmix64(&seed));
    size_t index = prompt_tasks_draw(&p->tasks, c, number, &rng);
    const struct prompt_task *task = &p->tasks.tasks[index];
    float tau = temperature(c, number);
    progress->task = task->name;
    train_bank_modules(&p->train);
    make_mixes(p, task, tau, &rng);
    memset(p->dmerged, 0, c->rows_per_task * p->gradient.prompt_floats * sizeof(float));
    eng_status status = fill_batch(p, index, &rng, &n, err);
    if (status != ENG_OK) {
        return status;
    }
    encoder_dropout(p->gradient.tape, (float)c->dropout, rng_next(&rng));
    encoder_tape_zero(p->gradient.tape);
    status = mrc_gradient_run(&p->gradient, p->rows, n, &progress->loss, err);
    if (status == ENG_OK) {
        bank_backward(p, task, tau);
    }
    for (size_t i = 0; i < n; i++) {
        *tokens += p->rows[i].sequence.len;
    }
    return status;
}

/* ---- looking at dev ---- */

static eng_status score_task(struct prompts *p, const struct prompt_task *task, bool prompted,
                             double *score, eng_error *err)
{
    const eng_bank *bank = p->train.bank;
    struct tally tally = {.task = task->task};
    eng_status status = ENG_OK;
    for (size_t r = 0; status == ENG_OK && r < task->rows; r++) {
        eng_route_mix(bank, p->train.routes + (task->row + r) * bank->info.route_len, p->mix);
        const struct carried carried = {.mix = prompted ? p->mix : NULL};
        status = tally_rows(&tally, &p->runner, bank, &task->dev[r], &carried, err);
    }
    *score = eng_task_get_type(task->task) == ENG_EXTRACTIVE ? tally_macro_f1(&tally)
                                                             : tally_accuracy(&tally);
    return status;
}

/* The training record of the bank's file. */
static eng_status write_bank(struct prompts *p, size_t step_number, double mean, const char *path,
                             eng_error *err)
{
    json_t *scores = json_object();
    for (size_t i = 0; i < p->tasks.n; i++) {
        (void)json_object_set_new(scores, p->tasks.tasks[i].name, json_real(p->scores[i]));
    }
    json_t *root = json_pack("{s:I, s:I, s:I, s:s, s:f, s:o}", "step", (json_int_t)step_number,
                             "steps", (json_int_t)p->config->schedule.steps, "seed",
                             (json_int_t)p->config->schedule.seed, "backbone",
                             p->model->info.fingerprint, "dev_score", mean, "dev_scores", scores);
    char *record = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    eng_status status = record != NULL ? train_bank_write(&p->train, &p->tasks, record, path, err)
                                       : fail_nomem(err, "to");
    json_decref(root);
    free(record);
    return status;
}

/* Scores every task, under its routes or (step 0) without a prompt. */
static eng_status score_all(struct prompts *p, bool prompted, double *mean, eng_error *err)
{
    train_bank_modules(&p->train);
    *mean = 0;
    for (size_t i = 0; i < p->tasks.n; i++) {
        eng_status status = score_task(p, &p->tasks.tasks[i], prompted, &p->scores[i], err);
        if (status != ENG_OK) {
            return status;
        }
        *mean += p->scores[i] / (double)p->tasks.n;
    }
    return ENG_OK;
}

static eng_status look(void *self, eng_pretrain_progress *progress, eng_error *err)
{
    struct prompts *p = self;
    eng_status status = score_all(p, progress->step > 0, &progress->dev_score, err);
    progress->task_names = p->names;
    progress->task_scores = p->scores;
    progress->n_tasks = p->tasks.n;
    if (status != ENG_OK || progress->step == 0 || progress->dev_score <= p->state->best) {
        return status;
    }
    progress->best = true;
    p->state->best = progress->dev_score;
    p->state->best_step = progress->step;
    return write_bank(p, progress->step, progress->dev_score, p->config->to, err);
}

/* The best is there since it was found; what is left is the last. It is scored again, for a run that
 * was killed right here and resumed has not looked at anything. */
static eng_status finish(void *self, eng_error *err)
{
    struct prompts *p = self;
    double mean = 0;
    eng_status status = score_all(p, true, &mean, err);
    return status == ENG_OK ? write_bank(p, p->config->schedule.steps, mean, p->last, err) : status;
}

static const struct run_kind kind = {
    .magic = "mp2 prompts 1\n", .step = step, .look = look, .look_first = true, .finish = finish};

/* ---- the whole ---- */

static eng_status make_run(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    eng_status status = add_tensors(p, err);
    hash_settings(p);
    p->run.compute = p->compute;
    p->run.kind = &kind;
    p->run.self = p;
    p->run.schedule = &c->schedule;
    p->run.lr = c->lr_prompt;
    p->run.state = p->state;
    p->run.state_bytes = sizeof *p->state + p->tasks.n * sizeof *p->state->drawn;
    p->run.checkpoint = p->checkpoint;
    return status;
}

static eng_status begin(struct prompts *p, eng_error *err)
{
    const eng_prompts_config *c = p->config;
    eng_status status = check_config(c, err);
    if (status == ENG_OK) {
        status = beside(c, ".checkpoint", p->checkpoint, err);
    }
    if (status == ENG_OK) {
        status = beside(c, ".last" END, p->last, err);
    }
    if (status == ENG_OK) {
        status = run_may_begin(p->checkpoint, c->to, c->schedule.resume, err);
    }
    if (status == ENG_OK) {
        status = eng_model_open(c->model, &p->model, err);
    }
    if (status == ENG_OK) {
        status = make_bank(p, err);
    }
    if (status == ENG_OK) {
        status = make_room(p, err);
    }
    return status == ENG_OK ? make_run(p, err) : status;
}

static void end(struct prompts *p)
{
    run_fini(&p->run);
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

eng_status eng_pretrain_prompts(eng_compute *compute, const eng_prompts_config *config,
                                eng_on_pretrain on_progress, void *arg, eng_error *err)
{
    struct prompts *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return fail_nomem(err, "settings");
    }
    p->config = config;
    p->compute = compute;
    eng_status status = begin(p, err);
    if (status == ENG_OK) {
        status = run_steps(&p->run, on_progress, arg, err);
    }
    end(p);
    return status;
}
