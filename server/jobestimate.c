/* jobestimate.c: counts the sequences a method runs, and knows how fast this machine is.
 *
 *     a gradient step   batch rows forward and back: three times the work of forward
 *     a look            the validation rows, every eval_every steps, and once at the start; where labels'
 *                       scaling is fitted, up to ENG_MAX_SCALING_ROWS training rows, too
 *     retrieval         every training row under every router row and the average
 *     an evaluation     every training row
 *
 * Cross-validation runs all of it once a fold on the rows outside it, looks at those inside, and once
 * more on all rows, which looks at them.
 *
 * Lengths come from a sample of the rows, encoded as they will be. The rate is the one measured when
 * the server started until jobs have run; then it is theirs, the newest counting most.
 */
#include "server/jobestimate.h"

#include "server/jobs.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE     64  /* rows encoded to learn their length */
#define BACKWARD   3.0 /* forward and back, in forwards */
#define NEW_WEIGHT 0.3 /* of the newest job in the pace */
#define LEAST_WORK 2e4 /* tokens below which a job says little about the pace */

struct job_pace {
    pthread_mutex_t lock;
    double seconds_per_token;
};

struct job_pace *job_pace_new(double tokens_per_second)
{
    struct job_pace *pace = calloc(1, sizeof *pace);
    if (pace != NULL) {
        pthread_mutex_init(&pace->lock, NULL);
        pace->seconds_per_token = tokens_per_second > 0 ? 1 / tokens_per_second : 1e-4;
    }
    return pace;
}

void job_pace_free(struct job_pace *pace)
{
    if (pace != NULL) {
        pthread_mutex_destroy(&pace->lock);
        free(pace);
    }
}

void job_pace_learn(struct job_pace *pace, double work, double seconds)
{
    if (work < LEAST_WORK || !(seconds > 0)) {
        return;
    }
    pthread_mutex_lock(&pace->lock);
    pace->seconds_per_token += NEW_WEIGHT * (seconds / work - pace->seconds_per_token);
    pthread_mutex_unlock(&pace->lock);
}

static double seconds_per_token(struct job_pace *pace)
{
    pthread_mutex_lock(&pace->lock);
    double seconds = pace->seconds_per_token;
    pthread_mutex_unlock(&pace->lock);
    return seconds;
}

/* Tokens of a training row, in the mean. */
static bool mean_length(const struct server *server, const struct job_plan *plan,
                        const struct job_rows *rows, double *out, eng_error *err)
{
    eng_task *task = NULL;
    size_t step = rows->n_train / SAMPLE + 1, n = 0, tokens = 0;
    eng_status status = eng_task_new(server->model, server->bank, &plan->task, &task, err);
    for (size_t i = 0; status == ENG_OK && i < rows->n_train; i += step) {
        eng_example example;
        eng_encoded *encoded = NULL;
        size_t len = 0;
        eng_dataset_row(rows->train_set, rows->train[i], &example, NULL);
        status = eng_encode(task, &example.input, plan->config.text_limit, &encoded, err);
        if (status == ENG_OK) {
            (void)eng_encoded_ids(encoded, &len);
            tokens += len;
            n++;
        } else if (status == ENG_ELIMIT) {
            status = ENG_OK; /* the job leaves it out, too */
        }
        eng_encoded_free(encoded);
    }
    eng_task_free(task);
    *out = n > 0 ? (double)tokens / (double)n : 0;
    return status == ENG_OK;
}

/* Training rows that a look reads. */
static double fitted_rows(const struct job_plan *plan, double train)
{
    bool fits = plan->task.n_labels > 0 && !plan->config.no_label_scaling;
    return !fits ? 0 : train < ENG_MAX_SCALING_ROWS ? train : ENG_MAX_SCALING_ROWS;
}

bool job_estimate(const struct server *server, const struct job_plan *plan,
                  const struct job_rows *rows, struct job_estimate *out, eng_error *err)
{
    const eng_adapt_config *config = &plan->config;
    const eng_bank_info *bank = eng_bank_get_info(server->bank);
    double len = 0, descents = 0, forwards = 0;
    struct eng_adapt_count count;
    if (!mean_length(server, plan, rows, &len, err) ||
        eng_adapt_count_steps(server->bank, config, &count, err) != ENG_OK) {
        return false;
    }
    size_t steps = count.steps + count.evaluations, runs = rows->folds + 1;
    for (size_t run = 0; run < runs; run++) {
        bool fold = run < rows->folds;
        double all = (double)rows->n_train, part = all / (double)(fold ? rows->folds : 1);
        double train = fold ? all - part : all, dev = fold ? part : (double)rows->n_dev;
        double batch = (double)config->batch < train ? (double)config->batch : train;
        descents += (double)count.steps * batch * len;
        forwards += (double)count.evaluations * train * len;
        forwards += (1 + (double)steps / (double)config->eval_every) *
                    (dev + fitted_rows(plan, train)) * len;
        if (count.retrieves) {
            forwards += (double)(bank->rows + 1) * train * len; /* and the average */
        }
    }
    *out = (struct job_estimate){.train_rows = rows->n_train,
                                 .validation_rows = rows->n_dev,
                                 .steps = steps * runs,
                                 .tokens = (uint64_t)(descents + forwards),
                                 .work = BACKWARD * descents + forwards};
    out->seconds = out->work * seconds_per_token(jobs_pace(server->jobs));
    if (config->seconds > 0 && out->seconds > config->seconds) {
        double share = config->seconds / out->seconds;
        out->seconds = config->seconds;
        out->tokens = (uint64_t)((double)out->tokens * share);
    }
    return true;
}

json_t *job_estimate_json(const struct job_plan *plan, const struct job_estimate *estimate)
{
    json_t *labels = json_object_get(plan->spec, "labels");
    json_t *out = json_object();
    if (json_put(out, "object", json_string("fine_tuning.job.estimate")) &&
        json_put(out, "method", json_string(plan->config.method)) &&
        json_put(out, "type", json_string(eng_task_type_name(plan->type))) &&
        json_put(out, "labels", labels != NULL ? json_incref(labels) : json_null()) &&
        json_put(out, "train_rows", json_integer((json_int_t)estimate->train_rows)) &&
        json_put(out, "validation_rows", json_integer((json_int_t)estimate->validation_rows)) &&
        json_put(out, "steps", json_integer((json_int_t)estimate->steps)) &&
        json_put(out, "tokens", json_integer((json_int_t)estimate->tokens)) &&
        json_put(out, "seconds", json_real(round(estimate->seconds * 100) / 100))) {
        return out;
    }
    json_decref(out);
    return NULL;
}
