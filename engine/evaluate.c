/* evaluate.c: how good a route is on labelled rows.
 *
 * A row is right when its best option is the true one; of an extractive row the best span is scored
 * against the answer (metrics.h). Rows are encoded a few hundred at a time, so a long file needs no
 * more memory than a short one. Rows that do not fit the model count as wrong and have no loss.
 */
#include "engine/evaluate.h"

#include "engine/codepoints.h"
#include "engine/encoder.h"
#include "engine/label_scaling.h"
#include "engine/metrics.h"
#include "engine/mrc.h"
#include "engine/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHUNK_ROWS 256

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

struct walk {
    struct tally *tally;
    const struct batch_rows *rows;
    const size_t *items; /* item of each sequence */
};

static void tally_option(struct tally *tally, const struct batch_item *item, size_t index,
                         const float *start, const float *end)
{
    float scores[ENG_MAX_LABELS];
    size_t options = eng_encoded_options(item->encoded), best = 0;
    eng_decode_options(item->encoded, start, end, &tally->reading.label_scaling, scores);
    for (size_t i = 1; i < options; i++) {
        best = scores[i] > scores[best] ? i : best;
    }
    tally->right += best == item->row.label;
    if (tally->confusion != NULL) {
        tally->confusion[item->row.label * eng_task_label_count(tally->task) + best]++;
    }
    if (tally->predicted != NULL) {
        tally->predicted[index] = best;
    }
    if (tally->scored != NULL) {
        mrc_option_scores(item->encoded, start, end,
                          tally->scored->scores + tally->scored->n * options);
        tally->scored->truth[tally->scored->n++] = item->row.label;
    }
}

static eng_text context_of(const eng_input *input)
{
    for (size_t i = 0; i < input->n_fields; i++) {
        eng_text name = input->fields[i].name;
        if (name.len == 7 && memcmp(name.data, "context", 7) == 0) {
            return input->fields[i].value;
        }
    }
    return (eng_text){"", 0};
}

static eng_status tally_span(struct tally *tally, const struct batch_item *item, const float *start,
                             const float *end, eng_error *err)
{
    eng_span span = {0};
    struct answer_score score;
    eng_text guess = {"", 0}, context = context_of(&item->row.input);
    if (eng_decode_spans(item->encoded, start, end, &tally->reading.answer_length, 0, &span, 1) >
            0 &&
        !span.no_answer) {
        size_t from = cp_offset(context, span.start);
        guess = (eng_text){context.data + from, cp_offset(context, span.end) - from};
    }
    eng_status status = metrics_answer(item->row.answer, guess, &score, err);
    tally->right += score.exact;
    tally->f1 += score.f1;
    return status;
}

double item_label_loss(const struct batch_item *item, const eng_label_scaling *scaling,
                       const float *start, const float *end, double *by_scores)
{
    mrc_option_scores(item->encoded, start, end, by_scores);
    return label_scaling_loss(scaling, item->row.label, by_scores,
                              eng_encoded_options(item->encoded));
}

static eng_status tally_item(void *arg, size_t i, const eng_sequence *sequence, const float *start,
                             const float *end, eng_error *err)
{
    struct walk *walk = arg;
    struct tally *tally = walk->tally;
    size_t index = walk->items[i];
    const struct batch_item *item = &walk->rows->items[index];
    const eng_label_scaling *scaling = &tally->reading.label_scaling;
    double by_scores[ENG_MAX_LABELS];
    if (item->has_target) {
        tally->loss += scaling->len > 0 ? item_label_loss(item, scaling, start, end, by_scores)
                                        : encoder_mrc_loss(sequence, 1, start, end, &item->start,
                                                           &item->end, NULL, NULL);
        tally->losses++;
    }
    if (eng_encoded_options(item->encoded) > 0) {
        tally_option(tally, item, index, start, end);
        return ENG_OK;
    }
    return tally_span(tally, item, start, end, err);
}

eng_status tally_rows(struct tally *tally, struct batch_runner *runner, const eng_bank *bank,
                      const struct batch_rows *rows, const struct carried *carried, eng_error *err)
{
    eng_status status = ENG_OK;
    size_t n = 0;
    eng_sequence *sequences = calloc(rows->n + 1, sizeof *sequences);
    size_t *items = calloc(rows->n + 1, sizeof *items);
    if (sequences == NULL || items == NULL) {
        status = fail_nomem(err, "rows");
        goto out;
    }
    for (size_t i = 0; i < rows->n; i++) {
        const struct batch_item *item = &rows->items[i];
        if (item->encoded != NULL) {
            items[n] = i;
            sequences[n] = batch_sequence(item, bank, carried);
            if (!item->has_target ||
                tally->reading.label_scaling.len > 0) { /* a loss of pointers reads all */
                sequences[n].read = eng_encoded_read(item->encoded, &sequences[n].n_read);
            }
            n++;
        } else if (tally->predicted != NULL) {
            tally->predicted[i] = SIZE_MAX;
        }
    }
    tally->rows += rows->n;
    struct walk walk = {tally, rows, items};
    status = batch_run(runner, sequences, n, tally_item, &walk, err);
out:
    free(sequences);
    free(items);
    return status;
}

double tally_accuracy(const struct tally *tally)
{
    return tally->rows > 0 ? tally->right / (double)tally->rows : 0.0;
}

double tally_macro_f1(const struct tally *tally)
{
    if (tally->confusion != NULL) {
        return metrics_macro_f1(tally->confusion, eng_task_label_count(tally->task));
    }
    if (eng_task_get_type(tally->task) == ENG_EXTRACTIVE) {
        return tally->rows > 0 ? tally->f1 / (double)tally->rows : 0.0;
    }
    return tally_accuracy(tally);
}

double tally_loss(const struct tally *tally)
{
    return tally->losses > 0 ? tally->loss / (double)tally->losses : (double)NAN;
}

double eng_score_of(eng_task_type type, double accuracy, double macro_f1)
{
    return type == ENG_EXTRACTIVE ? macro_f1 : accuracy;
}

/* ---- the public face ----------------------------------------------------------------------------------- */

struct evaluation {
    struct tally tally;
    struct batch_runner runner;
    size_t longest; /* tokens the runner was made for; 0: none yet */
    size_t truncated, tokens;
};

/* A chunk with a longer row than any before needs a larger workspace. */
static eng_status fit_runner(struct evaluation *run, const struct batch_runner *like,
                             size_t longest, eng_error *err)
{
    if (run->longest > 0 && longest <= run->runner.max_tokens) {
        return ENG_OK;
    }
    run->tokens += run->runner.tokens;
    batch_runner_fini(&run->runner);
    run->longest = longest > 0 ? longest : 1;
    eng_status status =
        batch_runner_init(&run->runner, like->compute, like->who, like->model, longest, err);
    run->runner.cancelled = like->cancelled;
    run->runner.cancelled_arg = like->cancelled_arg;
    return status;
}

/* Places for the labels' confusion: the caller's, or our own. */
static eng_status set_confusion(struct evaluation *run, const eng_task *task, size_t *confusion,
                                size_t **own, eng_error *err)
{
    size_t labels = eng_task_label_count(task);
    if (labels == 0) {
        return ENG_OK;
    }
    if (confusion == NULL) {
        confusion = *own = calloc(labels * labels, sizeof *confusion);
    } else {
        memset(confusion, 0, labels * labels * sizeof *confusion);
    }
    run->tally.confusion = confusion;
    return confusion != NULL ? ENG_OK : fail_nomem(err, "confusion");
}

eng_status eng_evaluate(eng_compute *compute, eng_class who, const eng_model *model,
                        const eng_bank *bank, const eng_task *task, const eng_dataset *set,
                        const size_t *which, size_t n, const float *mix, const float *prompt,
                        const float *head, const eng_reading *reading, size_t text_limit,
                        eng_cancelled cancelled, void *arg, size_t *predicted, size_t *confusion,
                        eng_scores *scores, eng_error *err)
{
    const struct batch_runner like = {.compute = compute,
                                      .model = model,
                                      .who = who,
                                      .cancelled = cancelled,
                                      .cancelled_arg = arg};
    const struct carried carried = {mix, prompt, head};
    struct evaluation run = {.tally = {.task = task}};
    struct batch_rows rows = {0};
    size_t *own = NULL, *order = NULL;
    double began = seconds_now();
    memset(scores, 0, sizeof *scores);
    if (reading != NULL) {
        run.tally.reading = *reading;
    }
    if (which == NULL) {
        n = eng_dataset_get_info(set)->rows;
    }
    eng_status status = set_confusion(&run, task, confusion, &own, err);
    if (status == ENG_OK && (order = calloc(CHUNK_ROWS, sizeof *order)) == NULL) {
        status = fail_nomem(err, "rows");
    }
    for (size_t done = 0; done < n && status == ENG_OK;) {
        size_t count = n - done < CHUNK_ROWS ? n - done : CHUNK_ROWS;
        for (size_t i = 0; i < count; i++) {
            order[i] = which != NULL ? which[done + i] : done + i;
        }
        run.tally.predicted = predicted != NULL ? predicted + done : NULL;
        status = batch_rows_make(task, set, order, count, text_limit, false, &rows, err);
        if (status == ENG_OK) {
            status = fit_runner(&run, &like, rows.longest, err);
        }
        if (status == ENG_OK) {
            status = tally_rows(&run.tally, &run.runner, bank, &rows, &carried, err);
        }
        run.truncated += rows.truncated;
        batch_rows_fini(&rows);
        done += count;
    }
    if (status == ENG_OK) {
        *scores = (eng_scores){.rows = run.tally.rows,
                               .accuracy = tally_accuracy(&run.tally),
                               .macro_f1 = tally_macro_f1(&run.tally),
                               .loss = tally_loss(&run.tally),
                               .tokens = run.tokens + run.runner.tokens,
                               .seconds = seconds_now() - began,
                               .truncated = run.truncated};
    }
    batch_runner_fini(&run.runner);
    free(own);
    free(order);
    return status;
}
