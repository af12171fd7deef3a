/* cmd_job.c: `mp2 job list|show|events|cancel`: the jobs of a database. */
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/jobview.h"
#include "server/loop.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 job list --tenant NAME [--limit N] [--db FILE] [--json]\n"
    "       mp2 job show ID --tenant NAME [--db FILE] [--json]\n"
    "       mp2 job events ID --tenant NAME [--db FILE] [--json]\n"
    "       mp2 job cancel ID --tenant NAME [--db FILE]\n\n"
    "All but cancel work beside a running server; cancel needs the database for itself, and says\n"
    "how a running server is asked. Exit code 3: no such database, tenant or job.\n";

static void print_job(const store_job *job, const char *tenant, bool json)
{
    if (json) {
        admin_print_json(job_json(job, tenant, job->model, 0, false));
    } else {
        printf("%-32s %-10s %s\n", job->id, store_job_status_text(job->status),
               job->task_name != NULL ? job->task_name : "-");
    }
}

static int list_jobs(store *s, const store_tenant *tenant, size_t limit, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[STORE_MAX_NAME + 1] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && limit > 0 && status == STORE_OK) {
        store_page page = {.after = after[0] != '\0' ? after : NULL,
                           .limit = limit < 100 ? limit : 100};
        store_job *jobs = NULL;
        size_t n = 0;
        status = store_job_list(s, tenant->id, NULL, &page, mem, &jobs, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            print_job(&jobs[i], tenant->name, json);
            snprintf(after, sizeof after, "%s", jobs[i].id);
        }
        limit -= n < limit ? n : limit;
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

static int show_job(store *s, const store_tenant *tenant, const char *id, store_mem *mem, bool json)
{
    store_error err = {0};
    store_job job;
    store_status status = store_job_get(s, tenant->id, id, mem, &job, &err);
    if (status != STORE_OK) {
        (void)admin_failed(&err);
        return status == STORE_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
    }
    print_job(&job, tenant->name, json);
    if (!json) {
        printf("training file  %s\nspec           %s\nresult         %s\nerror          %s\n",
               job.training_file, job.spec, job.result != NULL ? job.result : "-",
               job.error != NULL ? job.error : "-");
    }
    return EXIT_DONE;
}

static int list_events(store *s, const store_tenant *tenant, const char *id, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[32] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && status == STORE_OK) {
        store_page page = {
            .after = after[0] != '\0' ? after : NULL, .limit = 1000, .oldest_first = true};
        store_event *events = NULL;
        size_t n = 0;
        status = store_event_list(s, tenant->id, id, &page, mem, &events, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            if (json) {
                admin_print_json(job_event_json(&events[i]));
            } else {
                printf("%-6s %s\n", events[i].level, events[i].message);
            }
            snprintf(after, sizeof after, "%" PRId64, events[i].seq);
        }
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    if (status == STORE_ENOTFOUND) {
        (void)admin_failed(&err);
        return EXIT_NO_INPUT;
    }
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

struct job_act {
    const store_tenant *tenant;
    const char *id;
    store_mem *mem;
};

static store_status store_cancelled(store *s, void *arg, store_error *err)
{
    const struct job_act *act = arg;
    store_job job;
    return store_job_cancel(s, act->tenant->id, act->id, wall_ms(), act->mem, &job, err);
}

static int cancel_job(store *s, const store_tenant *tenant, const char *id, store_mem *mem)
{
    struct job_act act = {tenant, id, mem};
    char object[256];
    snprintf(object, sizeof object, "%.100s/%.100s", tenant->name, id);
    int code = admin_act(s, store_cancelled, &act, "job.cancel", object);
    if (code == EXIT_DONE) {
        printf("job %s cancelled\n", id);
    }
    return code;
}

static int run_action(store *s, const struct admin_args *args, size_t limit)
{
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    const char *id = args->words[0];
    int code = EXIT_NO_INPUT;
    if (mem != NULL && admin_tenant(s, args->tenant, mem, &tenant)) {
        code = strcmp(args->action, "list") == 0     ? list_jobs(s, &tenant, limit, args->json)
               : strcmp(args->action, "show") == 0   ? show_job(s, &tenant, id, mem, args->json)
               : strcmp(args->action, "events") == 0 ? list_events(s, &tenant, id, args->json)
                                                     : cancel_job(s, &tenant, id, mem);
    }
    store_mem_free(mem);
    return code;
}

int cmd_job(int argc, char **argv)
{
    struct admin_args args;
    size_t limit = 20;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, ADMIN_TENANT | ADMIN_LIMIT, true, &args, &code)) {
        return code;
    }
    bool list = strcmp(args.action, "list") == 0, cancel = strcmp(args.action, "cancel") == 0;
    if (!list && !cancel && strcmp(args.action, "show") != 0 &&
        strcmp(args.action, "events") != 0) {
        return usage_error("unknown action \"%s\": list, show, events or cancel", args.action);
    }
    if (args.tenant == NULL || args.n_words != (list ? 0 : 1)) {
        return usage_error(list ? "give --tenant NAME" : "give the job's id and --tenant NAME");
    }
    if (args.limit != NULL && !arg_size("--limit", args.limit, 1, 100000000, &limit)) {
        return EXIT_USAGE;
    }
    if (cancel) {
        snprintf(args.advice, sizeof args.advice,
                 "POST http://HOST:PORT/v1/fine_tuning/jobs/%.100s/cancel", args.words[0]);
    }
    store *s = cancel ? admin_open(&args, &code) : admin_open_reader(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = run_action(s, &args, limit);
    store_close(s);
    return code;
}
