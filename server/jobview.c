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
    static const char *const names[] = {"type", "labels",     "template",   "method",
                                        "init", "k_shot",     "lr",         "weight_decay",
                                        "bank", "eval_every", "text_limit", NULL};
    for (size_t i = 0; names[i] != NULL; i++) {
        json_t *value = json_object_get(spec, names[i]);
        if (value != NULL && json_object_set(out, names[i], value) != 0) {
            return false;
        }
    }
    return true;
}

static json_t *mp2_part(const store_job *job, const json_t *spec)
{
    json_t *out = json_object();
    bool ok =
        json_put(out, "task", json_string(job->task_name)) &&
        json_put(out, "version", job->version > 0 ? json_integer(job->version) : json_null()) &&
        copy_members(out, spec) && json_put(out, "budget", budget(spec)) &&
        json_put(out, "attempts", json_integer(job->attempts)) &&
        json_put(out, "cancel_requested", json_boolean(job->cancel_requested)) &&
        json_put(out, "result", parsed_or_null(job->result));
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
json_t *job_json(const store_job *job, const char *tenant, const char *base, int64_t estimate)
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
        json_put(view, "method", method_part(spec)) && json_put(view, "mp2", mp2_part(job, spec));
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
