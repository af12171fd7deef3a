/* cmd_tenant.c: `mp2 tenant create|list|delete`: tenants of a server that does not run. */
#include "server/auth.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/json.h"
#include "server/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: mp2 tenant create NAME [--db FILE]\n"
    "       mp2 tenant list [--db FILE] [--json]\n"
    "       mp2 tenant delete NAME [--db FILE]\n\n"
    "Works on the database directly, while no server runs on it; a running server has\n"
    "/v1/admin/tenants. A deleted tenant is disabled: its keys stop, its data stays.\n";

static int create_tenant(store *s, const char *name)
{
    store_error err = {0};
    int64_t id = 0;
    if (store_tenant_create(s, name, NULL, wall_ms(), &id, &err) != STORE_OK) {
        return admin_failed(&err);
    }
    printf("tenant %s made\n", name);
    return EXIT_DONE;
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

static int delete_tenant(store *s, const char *name)
{
    store_error err = {0};
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    int code = EXIT_FAILED;
    if (mem != NULL && admin_tenant(s, name, mem, &tenant)) {
        store_status status = store_tenant_update(s, tenant.id, tenant.settings, wall_ms(), &err);
        code = status == STORE_OK ? EXIT_DONE : admin_failed(&err);
    }
    if (code == EXIT_DONE) {
        printf("tenant %s disabled\n", name);
    }
    store_mem_free(mem);
    return code;
}

int cmd_tenant(int argc, char **argv)
{
    struct admin_args args;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, &args, &code)) {
        return code;
    }
    bool list = strcmp(args.action, "list") == 0;
    bool create = strcmp(args.action, "create") == 0;
    if (!list && !create && strcmp(args.action, "delete") != 0) {
        return usage_error("unknown action \"%s\": create, list or delete", args.action);
    }
    if (args.n_words != (list ? 0 : 1)) {
        return usage_error(list ? "list wants nothing else" : "give one name");
    }
    if (create && !auth_tenant_name_ok(args.words[0])) {
        return usage_error("a tenant's name must be %s", AUTH_TENANT_NAME_RULE);
    }
    store *s = admin_open(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = list     ? list_tenants(s, args.json)
           : create ? create_tenant(s, args.words[0])
                    : delete_tenant(s, args.words[0]);
    store_close(s);
    return code;
}
