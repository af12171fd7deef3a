/* cmd_tenant.c: `mp2 tenant create|list|show|enable|disable`: the tenants of a database. */
#include "server/auth.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/json.h"
#include "server/loop.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 tenant create NAME [--db FILE]\n"
    "       mp2 tenant list [--db FILE] [--json]\n"
    "       mp2 tenant show NAME [--db FILE] [--json]\n"
    "       mp2 tenant disable NAME [--db FILE]      (delete is the same)\n"
    "       mp2 tenant enable NAME [--db FILE]\n\n"
    "A disabled tenant's keys stop, its data stays. list and show work beside a running server;\n"
    "the rest needs the database for itself: a running server is asked under /v1/admin/tenants,\n"
    "and the message then says how. Exit code 3: no such database or tenant.\n";

struct tenant_act {
    const char *name;
    bool disable;
};

static store_status store_new(store *s, void *arg, store_error *err)
{
    const struct tenant_act *act = arg;
    int64_t id = 0;
    return store_tenant_create(s, act->name, NULL, wall_ms(), &id, err);
}

static int create_tenant(store *s, const char *name)
{
    struct tenant_act act = {name, false};
    int code = admin_act(s, store_new, &act, "tenant.create", name);
    if (code == EXIT_DONE) {
        printf("tenant %s made\n", name);
    }
    return code;
}

static void print_tenant(const store_tenant *tenant, bool json)
{
    if (!json) {
        printf("%-32s %s\n", tenant->name, tenant->disabled != 0 ? "disabled" : "");
        return;
    }
    admin_print_json(json_pack("{s:s, s:I, s:b}", "name", tenant->name, "created_at",
                               (json_int_t)(tenant->created / 1000), "disabled",
                               tenant->disabled != 0));
}

static int list_tenants(store *s, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[STORE_MAX_NAME + 1] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && status == STORE_OK) {
        store_page page = {.after = after[0] != '\0' ? after : NULL, .limit = 100};
        store_tenant *tenants = NULL;
        size_t n = 0;
        status = store_tenant_list(s, &page, mem, &tenants, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            print_tenant(&tenants[i], json);
            snprintf(after, sizeof after, "%s", tenants[i].name);
        }
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

static store_status store_switched(store *s, void *arg, store_error *err)
{
    const struct tenant_act *act = arg;
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    store_status status = STORE_ENOMEM;
    if (mem != NULL) {
        status = store_tenant_find(s, act->name, mem, &tenant, err);
    }
    if (status == STORE_OK) {
        status =
            store_tenant_update(s, tenant.id, tenant.settings, act->disable ? wall_ms() : 0, err);
    }
    store_mem_free(mem);
    return status;
}

static int switch_tenant(store *s, const char *name, bool disable)
{
    struct tenant_act act = {name, disable};
    int code =
        admin_act(s, store_switched, &act, disable ? "tenant.disable" : "tenant.enable", name);
    if (code == EXIT_DONE) {
        printf("tenant %s %s\n", name, disable ? "disabled" : "enabled");
    }
    return code;
}

static int show_tenant(store *s, const char *name, bool json)
{
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    int code = EXIT_NO_INPUT;
    if (mem != NULL && admin_tenant(s, name, mem, &tenant)) {
        code = EXIT_DONE;
        print_tenant(&tenant, json);
        if (!json) {
            printf("settings  %s\n", tenant.settings != NULL ? tenant.settings : "{}");
        }
    }
    store_mem_free(mem);
    return code;
}

static int run_action(store *s, const struct admin_args *args)
{
    const char *action = args->action, *name = args->words[0];
    if (strcmp(action, "list") == 0) {
        return list_tenants(s, args->json);
    }
    if (strcmp(action, "show") == 0) {
        return show_tenant(s, name, args->json);
    }
    if (strcmp(action, "create") == 0) {
        return create_tenant(s, name);
    }
    return switch_tenant(s, name, strcmp(action, "enable") != 0);
}

static void advise(struct admin_args *args)
{
    bool create = strcmp(args->action, "create") == 0;
    const char *name = args->words[0];
    snprintf(args->advice, sizeof args->advice,
             "%s http://HOST:PORT/v1/admin/tenants%s%.64s -H 'Content-Type: application/json' -d "
             "'{\"%s\":%s%.64s%s}'",
             create ? "POST" : "PATCH", create ? "" : "/", create ? "" : name,
             create ? "name" : "disabled", create ? "\"" : "",
             create                                ? name
             : strcmp(args->action, "enable") == 0 ? "false"
                                                   : "true",
             create ? "\"" : "");
}

int cmd_tenant(int argc, char **argv)
{
    static const char *const actions[] = {"create", "list", "show", "enable", "disable", "delete"};
    struct admin_args args;
    int code = EXIT_DONE;
    bool known = false;
    if (!admin_parse(argc, argv, help, 0, true, &args, &code)) {
        return code;
    }
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        known = known || strcmp(args.action, actions[i]) == 0;
    }
    bool list = strcmp(args.action, "list") == 0, show = strcmp(args.action, "show") == 0;
    if (!known) {
        return usage_error("unknown action \"%s\": create, list, show, enable or disable",
                           args.action);
    }
    if (args.n_words != (list ? 0 : 1)) {
        return usage_error(list ? "list wants nothing else" : "give one name");
    }
    if (strcmp(args.action, "create") == 0 && !auth_tenant_name_ok(args.words[0])) {
        return usage_error("a tenant's name must be %s", AUTH_TENANT_NAME_RULE);
    }
    if (!list) {
        advise(&args);
    }
    store *s = list || show ? admin_open_reader(&args, &code) : admin_open(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = run_action(s, &args);
    store_close(s);
    return code;
}
