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

#include "engine/encoder.h"
#include "engine/evaluate.h"
#include "engine/mrc.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

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

/* Masked text of its own beside the tasks: its gradients are in the tape before the tasks' are added. */
static eng_status text_step(struct prompts *p, struct rng *rng, eng_pretrain_progress *progress,
                            uint64_t *tokens, eng_error *err)
{
    struct prompts_text *text = &p->text;
    memcpy(text->text.at, p->state->at, sizeof text->text.at);
    eng_status status = mlm_batch_fill(&text->batch, &text->limits, p->model->tokenizer,
                                       &text->words, &text->text, false, rng, err);
    memcpy(p->state->at, text->text.at, sizeof p->state->at);
    if (status != ENG_OK) {
        return status;
    }
    mlm_tape_zero(text->learner.mlm);
    *tokens += text->batch.tokens;
    return mlm_learner_run(&text->learner, &text->batch, p->config->mlm_weight, text->dword,
                           &progress->mlm_loss, err);
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
    status = p->config->mlm_weight > 0 ? text_step(p, &rng, progress, tokens, err) : ENG_OK;
    if (status != ENG_OK) {
        return status;
    }
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
    *score =
        eng_score_of(eng_task_get_type(task->task), tally_accuracy(&tally), tally_macro_f1(&tally));
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
        *mean += p->tasks.tasks[i].share * p->scores[i];
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
    return prompts_write(p, progress->step, progress->dev_score, false, err);
}

/* The best is there since it was found; what is left is the last. It is scored again, for a run that
 * was killed right here and resumed has not looked at anything. */
static eng_status finish(void *self, eng_error *err)
{
    struct prompts *p = self;
    double mean = 0;
    eng_status status = score_all(p, true, &mean, err);
    return status == ENG_OK ? prompts_write(p, p->config->schedule.steps, mean, true, err) : status;
}

static eng_status check(const void *self, const char *path, eng_error *err)
{
    const struct prompts *p = self;
    for (size_t lane = 0; lane < p->text.text.lanes; lane++) {
        if (p->state->at[lane] > textstream_bytes(&p->text.text)) {
            return fail(err, ENG_EFORMAT, "to", "%s points behind the end of the text", path);
        }
    }
    return ENG_OK;
}

static const struct run_kind kind = {.magic = "mp2 prompts 2\n",
                                     .step = step,
                                     .look = look,
                                     .look_first = true,
                                     .finish = finish,
                                     .check = check};

eng_status eng_pretrain_prompts(eng_compute *compute, const eng_prompts_config *config,
                                eng_on_pretrain on_progress, void *arg, eng_error *err)
{
    struct prompts *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return fail_nomem(err, "settings");
    }
    p->config = config;
    p->compute = compute;
    eng_status status = prompts_begin(p, err);
    p->run.kind = &kind;
    if (status == ENG_OK) {
        status = run_steps(&p->run, on_progress, arg, err);
    }
    prompts_end(p);
    return status;
}
