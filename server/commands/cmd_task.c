/* cmd_task.c: `mp2 task list|show`: the tasks of a database, also while a server runs on it. */
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/tasks.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 task list --tenant NAME [PREFIX] [--db FILE] [--json]\n"
    "       mp2 task show TASK --tenant NAME [--db FILE] [--json]\n\n"
    "Reads the database only; a running server may use it meanwhile. show prints the task and\n"
    "its current version, route and all. --json prints one object a line, as /v1/tasks does.\n";

static void print_task(const store_tenant *tenant, const store_task *task, bool json)
{
    if (json) {
        admin_print_json(task_json(tenant->name, task));
    } else {
        printf("%-40s %-14s version %lld\n", task->name, task->type, (long long)task->current);
    }
}

static int list_tasks(store *s, const store_tenant *tenant, const char *prefix, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[STORE_MAX_NAME + 1] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && status == STORE_OK) {
        const store_task_query query = {
            .page = {.after = after[0] != '\0' ? after : NULL, .limit = 1000, .oldest_first = true},
            .by_name = true,
            .prefix = prefix};
        store_task *tasks = NULL;
        size_t n = 0;
        status = store_task_list(s, tenant->id, &query, mem, &tasks, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            print_task(tenant, &tasks[i], json);
            snprintf(after, sizeof after, "%s", tasks[i].name);
        }
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

static void print_route(const store_version *version)
{
    for (size_t i = 0; i < version->route.len / sizeof(float); i++) {
        float number = 0;
        memcpy(&number, (const char *)version->route.data + i * sizeof number, sizeof number);
        printf("%s%.6g", i > 0 ? " " : "", (double)number);
    }
    printf("\n");
}

static void print_whole(const store_tenant *tenant, const store_task *task,
                        const store_version *version, bool json)
{
    if (json) {
        json_t *view = task_json(tenant->name, task);
        if (version->number > 0) {
            json_put(view, "version", version_json(tenant->name, NULL, task, version));
        }
        admin_print_json(view);
        return;
    }
    printf("task      %s/%s\ntype      %s\n", tenant->name, task->name, task->type);
    printf("labels    %s\n", task->labels != NULL ? task->labels : "-");
    printf("template  %s\n", task->text_template != NULL ? task->text_template : "(of the type)");
    if (version->number > 0) {
        printf("version   %lld, by %s\nbank      %s %.12s\nroute     ", (long long)version->number,
               version->method, version->bank, version->bank_fingerprint);
        print_route(version);
    }
}

static int show_task(store *s, const store_tenant *tenant, const char *name, bool json)
{
    store_error err = {0};
    store_task task;
    store_version version = {0};
    store_mem *mem = store_mem_new();
    store_status status = STORE_ENOMEM;
    if (mem != NULL) {
        status = store_task_find(s, tenant->id, name, mem, &task, &err);
    }
    if (status == STORE_OK && task.current > 0) {
        status = store_version_get(s, tenant->id, task.id, task.current, mem, &version, &err);
    }
    if (status == STORE_OK) {
        print_whole(tenant, &task, &version, json);
    }
    store_mem_free(mem);
    if (status == STORE_ENOTFOUND) {
        fprintf(stderr, "mp2: tenant \"%s\" has no task \"%s\": see `mp2 task list`\n",
                tenant->name, name);
        return EXIT_NO_INPUT;
    }
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

int cmd_task(int argc, char **argv)
{
    struct admin_args args;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, ADMIN_TENANT, true, &args, &code)) {
        return code;
    }
    bool list = strcmp(args.action, "list") == 0;
    if (!list && strcmp(args.action, "show") != 0) {
        return usage_error("unknown action \"%s\": list or show", args.action);
    }
    if (args.tenant == NULL) {
        return usage_error("say whose tasks: --tenant NAME");
    }
    if (list ? args.n_words > 1 : args.n_words != 1) {
        return usage_error(list ? "list wants at most one prefix" : "show wants one task");
    }
    store *s = admin_open_reader(&args, &code);
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    if (s != NULL && mem != NULL) {
        code = EXIT_NO_INPUT;
        if (admin_tenant(s, args.tenant, mem, &tenant)) {
            code = list ? list_tasks(s, &tenant, args.words[0], args.json)
                        : show_task(s, &tenant, args.words[0], args.json);
        }
    }
    store_mem_free(mem);
    store_close(s);
    return code;
}
