/* jobview.c: the shapes of the OpenAI API, and what is ours under "mp2". */
#include "server/jobview.h"

#include "server/json.h"
#include "server/registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static json_t *parsed_or_null(const char *text)
{
    json_t *value = json_stored(text);
    return value != NULL ? value : json_null();
}

static json_t *number_or_auto(const json_t *spec, const char *key)
{
    json_t *value = json_object_get(spec, key);
    return value != NULL ? json_incref(value) : json_string("auto");
}

static json_t *hyperparameters(const json_t *spec)
{
    return json_pack("{s:o, s:o, s:o}", "n_epochs", number_or_auto(spec, "epochs"), "batch_size",
                     number_or_auto(spec, "batch"), "learning_rate_multiplier",
                     number_or_auto(spec, "lr_multiplier"));
}

/* The model's name under which the result can be asked, once there is one. */
static json_t *fine_tuned_model(const store_job *job, const char *tenant, const char *base,
                                const json_t *spec)
{
    char name[512];
    if (job->status != STORE_JOB_SUCCEEDED || job->task == 0) {
        return json_null();
    }
    ft_format(name, sizeof name, base, tenant, json_string_value(json_object_get(spec, "suffix")),
              job->task, job->version);
    return json_string(name);
}

static json_t *budget(const json_t *spec)
{
    json_t *out = json_object();
    json_t *steps = json_object_get(spec, "steps"), *seconds = json_object_get(spec, "seconds");
    json_t *evaluations = json_object_get(spec, "evaluations");
    bool ok = out != NULL && (steps == NULL || json_object_set(out, "steps", steps) == 0) &&
              (evaluations == NULL || json_object_set(out, "evaluations", evaluations) == 0) &&
              (seconds == NULL || json_object_set(out, "seconds", seconds) == 0);
    if (!ok) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static bool copy_members(json_t *out, const json_t *spec)
{
    static const char *const names[] = {
        "type",         "labels", "template",   "method",     "init",    "k_shot",        "lr",
        "weight_decay", "bank",   "eval_every", "text_limit", "publish", "label_scaling", NULL};
    for (size_t i = 0; names[i] != NULL; i++) {
        json_t *value = json_object_get(spec, names[i]);
        if (value != NULL && json_object_set(out, names[i], value) != 0) {
            return false;
        }
    }
    return true;
}

static json_t *mp2_part(const store_job *job, const json_t *spec, bool whole)
{
    json_t *out = json_object();
    json_t *result = parsed_or_null(job->result);
    if (!whole) {
        json_object_del(result, "errors");
    }
    bool ok =
        json_put(out, "task", json_string(job->task_name)) &&
        json_put(out, "version", job->version > 0 ? json_integer(job->version) : json_null()) &&
        copy_members(out, spec) && json_put(out, "budget", budget(spec)) &&
        json_put(out, "attempts", json_integer(job->attempts)) &&
        json_put(out, "cancel_requested", json_boolean(job->cancel_requested)) &&
        json_put(out, "pause_requested", json_boolean(job->pause_requested)) &&
        json_put(out, "estimate", parsed_or_null(job->estimate)) &&
        json_put(out, "result", json_incref(result));
    json_decref(result);
    if (!ok) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static json_t *method_part(const json_t *spec)
{
    json_t *inside = json_pack("{s:o}", "hyperparameters", hyperparameters(spec));
    return json_pack("{s:s, s:o}", "type", "supervised", "supervised", inside);
}

/* Started or not, what OpenAI's clients expect of a job. */
json_t *job_json(const store_job *job, const char *tenant, const char *base, int64_t estimate,
                 bool whole)
{
    json_t *spec = json_stored(job->spec);
    json_t *metadata = parsed_or_null(job->metadata);
    json_t *view = json_object();
    bool ended = store_job_finished(job->status);
    bool ok =
        json_put(view, "object", json_string("fine_tuning.job")) &&
        json_put(view, "id", json_string(job->id)) &&
        json_put(view, "model", json_string(job->model)) &&
        json_put(view, "created_at", json_seconds(job->created)) &&
        json_put(view, "finished_at", json_seconds(job->finished)) &&
        json_put(view, "fine_tuned_model", fine_tuned_model(job, tenant, base, spec)) &&
        json_put(view, "organization_id", json_string(tenant)) &&
        json_put(view, "result_files", json_array()) &&
        json_put(view, "status", json_string(store_job_status_text(job->status))) &&
        json_put(view, "training_file", json_string(job->training_file)) &&
        json_put(view, "validation_file", json_text_or_null(job->validation_file)) &&
        json_put(view, "trained_tokens", ended ? json_integer(job->trained_tokens) : json_null()) &&
        json_put(view, "seed", json_integer((json_int_t)job->seed)) &&
        json_put(view, "estimated_finish", json_seconds(ended ? 0 : estimate)) &&
        json_put(view, "error", parsed_or_null(job->error)) &&
        json_put(view, "integrations", json_array()) &&
        json_put(view, "metadata",
                 json_is_null(metadata) ? json_object() : json_incref(metadata)) &&
        json_put(view, "hyperparameters", hyperparameters(spec)) &&
        json_put(view, "method", method_part(spec)) &&
        json_put(view, "mp2", mp2_part(job, spec, whole));
    json_decref(spec);
    json_decref(metadata);
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

json_t *job_event_json(const store_event *event)
{
    char id[48];
    snprintf(id, sizeof id, "ftevent-%" PRId64, event->seq);
    json_t *view = json_object();
    bool ok = json_put(view, "object", json_string("fine_tuning.job.event")) &&
              json_put(view, "id", json_string(id)) &&
              json_put(view, "created_at", json_seconds(event->created)) &&
              json_put(view, "level", json_string(event->level)) &&
              json_put(view, "message", json_string(event->message)) &&
              json_put(view, "type", json_string(event->type)) &&
              json_put(view, "data", parsed_or_null(event->data));
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}

/* What a finished job published, as the one checkpoint it has. */
static json_t *published_json(const store_job *job, const char *tenant, const char *base,
                              const json_t *spec, const json_t *result)
{
    json_t *metrics = json_object();
    static const char *const names[][2] = {{"accuracy", "valid_mean_token_accuracy"},
                                           {"loss", "valid_loss"},
                                           {"train_loss", "train_loss"}};
    json_t *step = json_object_get(result, "best_step");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(result, names[i][0]);
        json_put(metrics, names[i][1], value != NULL ? json_incref(value) : json_null());
    }
    json_put(metrics, "step", step != NULL ? json_incref(step) : json_null());
    json_t *view = json_object();
    json_put(view, "fine_tuned_model_checkpoint", fine_tuned_model(job, tenant, base, spec));
    json_put(view, "step_number", step != NULL ? json_incref(step) : json_integer(0));
    json_put(view, "created_at", json_seconds(job->finished));
    json_put(view, "metrics", metrics);
    json_put(view, "mp2", json_pack("{s:b}", "resumable", 0));
    return view;
}

static json_t *state_json(const struct job_state *state)
{
    json_t *view = json_object();
    json_put(view, "fine_tuned_model_checkpoint", json_null());
    json_put(view, "step_number", json_integer((json_int_t)state->step));
    json_put(view, "created_at", json_seconds(state->created));
    json_put(view, "metrics", json_pack("{s:I}", "step", (json_int_t)state->step));
    json_put(view, "mp2",
             json_pack("{s:b, s:I}", "resumable", 1, "bytes", (json_int_t)state->bytes));
    return view;
}

json_t *job_checkpoint_json(const store_job *job, const struct job_state *state, const char *tenant,
                            const char *base)
{
    bool published = job->status == STORE_JOB_SUCCEEDED && job->task != 0;
    if (!published && state == NULL) {
        return NULL;
    }
    json_t *spec = json_loads(job->spec, 0, NULL);
    json_t *result = parsed_or_null(job->result);
    json_t *view = published ? published_json(job, tenant, base, spec, result) : state_json(state);
    char id[160];
    snprintf(id, sizeof id, "ftckpt-%.96s-%lld", job->id + strcspn(job->id, "-") + 1,
             (long long)json_integer_value(json_object_get(view, "step_number")));
    bool ok = json_put(view, "object", json_string("fine_tuning.job.checkpoint")) &&
              json_put(view, "id", json_string(id)) &&
              json_put(view, "fine_tuning_job_id", json_string(job->id));
    json_decref(spec);
    json_decref(result);
    if (!ok) {
        json_decref(view);
        return NULL;
    }
    return view;
}
