/* eval_report.c: what `mp2 eval` found, as text, JSON and Markdown. */
#include "server/commands/commands.h"
#include "server/commands/eval.h"
#include "server/commands/routefile.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers ---------------------------------------------------------------------------------------- */

double eval_score(const struct eval_task *task, const struct eval_run *run)
{
    return eng_score_of(task->type, run->test.accuracy, run->test.macro_f1);
}

struct eval_summary eval_summarise(const struct eval_results *r, size_t task, size_t shot,
                                   size_t method)
{
    struct eval_summary sum = {0};
    size_t n = r->settings->n_seeds;
    for (size_t s = 0; s < n; s++) {
        const struct eval_run *run = eval_run_at(r, task, shot, method, s);
        sum.mean += eval_score(&r->tasks[task], run) / (double)n;
        sum.macro_f1 += run->test.macro_f1 / (double)n;
        sum.seconds += run->seconds / (double)n;
        sum.forward_passes += (double)run->adapt.forward_passes / (double)n;
        sum.tokens += (double)(run->test.tokens + run->adapt.tokens) / (double)n;
    }
    for (size_t s = 0; s < n && n > 1; s++) {
        double off = eval_score(&r->tasks[task], eval_run_at(r, task, shot, method, s)) - sum.mean;
        sum.deviation += off * off / (double)(n - 1);
    }
    sum.deviation = sqrt(sum.deviation);
    return sum;
}

/* A method over all tasks: the mean of the tasks' means; the deviation over the seeds of the mean over
 * the tasks. */
static struct eval_summary over_tasks(const struct eval_results *r, size_t shot, size_t method)
{
    const struct eval_settings *s = r->settings;
    struct eval_summary sum = {0};
    double tasks = (double)s->n_tasks;
    for (size_t t = 0; t < s->n_tasks; t++) {
        struct eval_summary one = eval_summarise(r, t, shot, method);
        sum.mean += one.mean / tasks;
        sum.macro_f1 += one.macro_f1 / tasks;
        sum.seconds += one.seconds / tasks;
        sum.forward_passes += one.forward_passes / tasks;
        sum.tokens += one.tokens / tasks;
    }
    for (size_t i = 0; i < s->n_seeds && s->n_seeds > 1; i++) {
        double mean = 0;
        for (size_t t = 0; t < s->n_tasks; t++) {
            mean += eval_score(&r->tasks[t], eval_run_at(r, t, shot, method, i)) / tasks;
        }
        sum.deviation += (mean - sum.mean) * (mean - sum.mean) / (double)(s->n_seeds - 1);
    }
    sum.deviation = sqrt(sum.deviation);
    return sum;
}

static size_t tuned(const struct eval_results *r, size_t method)
{
    return eval_run_at(r, 0, 0, method, 0)->adapt.tuned;
}

/* ---- text ---------------------------------------------------------------------------------------------- */

void eval_print_head(const struct eval_results *r, size_t task, size_t shot)
{
    const struct eval_task *t = &r->tasks[task];
    printf("%s: %s, %zu labels, %zu rows a label train and %zu choose; model %s, bank %s (%zu "
           "layer%s, route of %zu)\n",
           t->name, eng_task_type_name(t->type), t->labels, t->k[shot], t->k[shot], r->model->name,
           r->bank->name, r->bank->layers, r->bank->layers == 1 ? "" : "s", r->bank->route_len);
    if (isfinite(t->majority)) {
        printf("%zu test rows; %s %.4f, %s %.4f\n", t->test_rows,
               t->type == ENG_CHOICE ? "chance" : "majority class", t->majority, t->bag_name,
               t->bag[shot]);
    }
    printf("%-14s %6s %9s %9s %8s %8s %5s %8s %10s  %s\n", "method", "seed",
           t->type == ENG_EXTRACTIVE ? "exact" : "accuracy",
           t->type == ENG_EXTRACTIVE ? "char F1" : "macro F1", "loss", "dev", "step", "seconds",
           "tokens", "start");
}

/* Of the rows that choose, by what they choose. */
static double choosing_score(const struct eval_task *task, const struct eval_run *run)
{
    return eng_score_of(task->type, run->adapt.dev_accuracy, run->adapt.dev_macro_f1);
}

void eval_print_method(const struct eval_results *r, size_t task, size_t shot, size_t method)
{
    const struct eval_task *t = &r->tasks[task];
    struct eval_summary sum = eval_summarise(r, task, shot, method);
    const char *name = r->settings->methods[method];
    size_t n = r->settings->n_seeds;
    for (size_t s = 0; s < n; s++) {
        const struct eval_run *run = eval_run_at(r, task, shot, method, s);
        printf("%-14s %6llu %9.4f %9.4f %8.4f %8.4f %5zu %8.2f %10zu  %s%s\n", name,
               (unsigned long long)run->seed, run->test.accuracy, run->test.macro_f1,
               run->test.loss, choosing_score(t, run), run->adapt.best_step, run->seconds,
               run->test.tokens + run->adapt.tokens, run->adapt.started_from,
               run->diverged ? " (diverged: the best before)" : "");
    }
    printf("%-14s %6s %9.4f %9.4f %8s %8s %5s %8.2f %10.0f  ± %.4f over %zu seed%s\n", name, "mean",
           sum.mean, sum.macro_f1, "", "", "", sum.seconds, sum.tokens, sum.deviation, n,
           n == 1 ? "" : "s");
    fflush(stdout); /* long work: what is known is shown, also into a pipe */
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static json_t *run_json(const struct eval_task *task, const struct eval_run *run)
{
    json_t *one = json_pack(
        "{s:I,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:s,s:b}", "seed",
        (json_int_t)run->seed, "accuracy", json_number_or_null(run->test.accuracy), "macro_f1",
        json_number_or_null(run->test.macro_f1), "loss", json_number_or_null(run->test.loss),
        "dev_accuracy", json_number_or_null(run->adapt.dev_accuracy), "dev_macro_f1",
        json_number_or_null(run->adapt.dev_macro_f1), "best_step", (json_int_t)run->adapt.best_step,
        "steps", (json_int_t)run->adapt.steps, "tuned_parameters", (json_int_t)run->adapt.tuned,
        "test_rows", (json_int_t)run->test.rows, "truncated", (json_int_t)run->test.truncated,
        "forward_passes", (json_int_t)run->adapt.forward_passes, "tokens",
        (json_int_t)(run->test.tokens + run->adapt.tokens), "seconds",
        json_number_or_null(run->seconds), "started_from", run->adapt.started_from, "diverged",
        run->diverged);
    if (task->type == ENG_EXTRACTIVE) {
        json_object_set_new(one, "exact_match", json_number_or_null(run->test.accuracy));
        json_object_set_new(one, "f1", json_number_or_null(run->test.macro_f1));
    }
    if (run->confusion != NULL) {
        json_object_set(one, "confusion", run->confusion);
    }
    return one;
}

static json_t *method_json(const struct eval_results *r, size_t t, size_t shot, size_t m)
{
    const struct eval_task *task = &r->tasks[t];
    struct eval_summary sum = eval_summarise(r, t, shot, m);
    double accuracy = 0;
    json_t *all = json_array();
    for (size_t s = 0; s < r->settings->n_seeds; s++) {
        const struct eval_run *run = eval_run_at(r, t, shot, m, s);
        accuracy += run->test.accuracy / (double)r->settings->n_seeds;
        json_array_append_new(all, run_json(task, run));
    }
    return json_pack(
        "{s:s,s:s,s:s,s:I,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "task", task->name, "type",
        eng_task_type_name(task->type), "method", r->settings->methods[m], "shots",
        (json_int_t)task->k[shot], "bag_of_words", task->bag_name, "majority",
        json_number_or_null(task->majority), "bag", json_number_or_null(task->bag[shot]),
        "score_mean", json_number_or_null(sum.mean), "score_deviation",
        json_number_or_null(sum.deviation), "accuracy_mean", json_number_or_null(accuracy),
        "macro_f1_mean", json_number_or_null(sum.macro_f1), "seconds",
        json_number_or_null(sum.seconds), "forward_passes", json_number_or_null(sum.forward_passes),
        "tokens", json_number_or_null(sum.tokens), "runs", all);
}

json_t *eval_json(const struct eval_results *r)
{
    json_t *results = json_array();
    for (size_t t = 0; t < r->settings->n_tasks; t++) {
        for (size_t k = 0; k < r->settings->n_shots; k++) {
            for (size_t m = 0; m < r->settings->n_methods; m++) {
                json_array_append_new(results, method_json(r, t, k, m));
            }
        }
    }
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:o}", "command", r->settings->command_line,
                     "model", r->model->name, "model_fingerprint", r->model->fingerprint, "bank",
                     r->bank->name, "bank_fingerprint", r->bank->fingerprint, "route_len",
                     (json_int_t)r->bank->route_len, "threads", (json_int_t)r->threads, "results",
                     results);
}

/* ---- Markdown -------------------------------------------------------------------------------------------- */

static void write_percent(FILE *file, double value)
{
    if (isfinite(value)) {
        fprintf(file, " %.1f |", 100 * value);
    } else {
        fputs(" n/a |", file);
    }
}

static void write_top(FILE *file, const struct eval_results *r)
{
    const struct eval_settings *s = r->settings;
    fprintf(file, "# Methods compared\n\n    %s\n\n", s->command_line);
    fprintf(file, "Model `%s` (%.12s…), bank `%s` (%.12s…, route of %zu), %zu thread%s. Seeds",
            s->n_tasks > 0 ? r->model->name : "", r->model->fingerprint, r->bank->name,
            r->bank->fingerprint, r->bank->route_len, r->threads, r->threads == 1 ? "" : "s");
    for (size_t i = 0; i < s->n_seeds; i++) {
        fprintf(file, "%s %llu", i > 0 ? "," : "", (unsigned long long)s->seeds[i]);
    }
    fputs(". Scores in %: accuracy; of extractive tasks the F1 of characters. ± is the standard\n"
          "deviation over the seeds. Forward passes are sequences run through the model while "
          "learning; seconds are of one run, learning and test rows.\n",
          file);
}

static void write_methods(FILE *file, const struct eval_results *r, size_t shot)
{
    const struct eval_settings *s = r->settings;
    fputs("\n| method | tuned parameters | mean score | ± | forward passes | seconds |\n"
          "|---|---:|---:|---:|---:|---:|\n",
          file);
    for (size_t m = 0; m < s->n_methods; m++) {
        struct eval_summary sum = over_tasks(r, shot, m);
        fprintf(file, "| %s | %zu | %.1f | %.1f | %.0f | %.1f |\n", s->methods[m], tuned(r, m),
                100 * sum.mean, 100 * sum.deviation, sum.forward_passes, sum.seconds);
    }
}

static void write_task(FILE *file, const struct eval_results *r, size_t t, size_t shot)
{
    const struct eval_task *task = &r->tasks[t];
    fprintf(file, "| %s | %s | %zu |", task->name, eng_task_type_name(task->type), task->k[shot]);
    write_percent(file, task->majority);
    write_percent(file, task->bag[shot]);
    for (size_t m = 0; m < r->settings->n_methods; m++) {
        struct eval_summary sum = eval_summarise(r, t, shot, m);
        fprintf(file, " %.1f ± %.1f |", 100 * sum.mean, 100 * sum.deviation);
    }
    fputc('\n', file);
}

static void write_tasks(FILE *file, const struct eval_results *r, size_t shot)
{
    const struct eval_settings *s = r->settings;
    fputs("\n| task | type | shots | majority | bag |", file);
    for (size_t m = 0; m < s->n_methods; m++) {
        fprintf(file, " %s |", s->methods[m]);
    }
    fputs("\n|---|---|---:|---:|---:|", file);
    for (size_t m = 0; m < s->n_methods; m++) {
        fputs("---:|", file);
    }
    fputc('\n', file);
    for (size_t t = 0; t < s->n_tasks; t++) {
        write_task(file, r, t, shot);
    }
    fputs("\n*shots*: rows a label that train (as many again choose the step; of choice and "
          "extractive tasks\nrows in all). *majority*: the test rows' most frequent label, of a "
          "choice the chance of a guess.\n*bag*: multinomial naive Bayes over characters, trained "
          "on the same rows; of a choice the option that\nshares most pairs of characters with the "
          "text.\n",
          file);
}

/* What was chosen by, beside what came of it: a method that gains on the rows that choose and not on the
 * test rows has fitted chance. Runs that kept a step found nothing better than where they started. */
static void write_choosing(FILE *file, const struct eval_results *r, size_t shot)
{
    const struct eval_settings *s = r->settings;
    size_t runs = s->n_tasks * s->n_seeds;
    fputs("\n| method | score on the rows that choose | on the test rows | runs that ended where "
          "they started |\n|---|---:|---:|---:|\n",
          file);
    for (size_t m = 0; m < s->n_methods; m++) {
        double dev = 0, test = 0;
        size_t kept = 0;
        for (size_t t = 0; t < s->n_tasks; t++) {
            for (size_t i = 0; i < s->n_seeds; i++) {
                const struct eval_run *run = eval_run_at(r, t, shot, m, i);
                const struct eval_task *task = &r->tasks[t];
                dev += choosing_score(task, run) / (double)runs;
                test += eval_score(task, run) / (double)runs;
                kept += run->adapt.best_step == 0;
            }
        }
        fprintf(file, "| %s |", s->methods[m]);
        write_percent(file, dev);
        write_percent(file, test);
        fprintf(file, " %zu of %zu |\n", kept, runs);
    }
}

/* Means over the tasks by shots. */
static void write_curve(FILE *file, const struct eval_results *r)
{
    const struct eval_settings *s = r->settings;
    fputs("\n## Learning curves\n\n| method |", file);
    for (size_t k = 0; k < s->n_shots; k++) {
        fprintf(file, " %llu shots |", (unsigned long long)s->shots[k]);
    }
    fputs("\n|---|", file);
    for (size_t k = 0; k < s->n_shots; k++) {
        fputs("---:|", file);
    }
    for (size_t m = 0; m < s->n_methods; m++) {
        fprintf(file, "\n| %s |", s->methods[m]);
        for (size_t k = 0; k < s->n_shots; k++) {
            struct eval_summary sum = over_tasks(r, k, m);
            fprintf(file, " %.1f ± %.1f |", 100 * sum.mean, 100 * sum.deviation);
        }
    }
    fputc('\n', file);
}

static bool write_markdown(const struct eval_results *r, FILE *file)
{
    const struct eval_settings *s = r->settings;
    write_top(file, r);
    for (size_t k = 0; k < s->n_shots; k++) {
        if (s->n_shots > 1) {
            fprintf(file, "\n## %llu shots\n", (unsigned long long)s->shots[k]);
        }
        write_methods(file, r, k);
        write_tasks(file, r, k);
        write_choosing(file, r, k);
    }
    if (s->n_shots > 1) {
        write_curve(file, r);
    }
    return ferror(file) == 0;
}

static bool write_json(const struct eval_results *r, FILE *file)
{
    json_t *all = eval_json(r);
    bool ok = all != NULL && json_dumpf(all, file, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0 &&
              fputc('\n', file) != EOF;
    json_decref(all);
    return ok;
}

int eval_write_report(const struct eval_results *r, const char *path)
{
    size_t len = strlen(path);
    bool json = len > 5 && strcmp(path + len - 5, ".json") == 0;
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL && (json ? write_json(r, file) : write_markdown(r, file));
    ok = file != NULL && fclose(file) == 0 && ok;
    if (!ok) {
        fprintf(stderr, "mp2 eval: %s: %s\n", path, strerror(errno));
    }
    return ok ? EXIT_DONE : EXIT_FAILED;
}
