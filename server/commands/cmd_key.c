/* cmd_key.c: `mp2 key create|list|revoke`: keys of a server that does not run. The way back in when every
 * admin key is lost.
 */
#include "server/auth.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/json.h"
#include "server/loop.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 key create --tenant NAME [--scopes predict,adapt,read,admin] [--label TEXT]\n"
    "                      [--expires-in SECONDS] [--db FILE] [--json]\n"
    "       mp2 key list --tenant NAME [--db FILE] [--json]\n"
    "       mp2 key revoke ID --tenant NAME [--db FILE]\n\n"
    "Works on the database directly, while no server runs on it; a running server has\n"
    "/v1/admin/tenants/NAME/keys. A key is shown once, when it is made.\n";

static int create_key(store *s, const store_tenant *tenant, const struct admin_args *args)
{
    store_error err = {0};
    char secret[AUTH_KEY_CHARS + 1], id[AUTH_KEY_ID_CHARS + 1], scopes[64];
    store_key key = {.id = id, .tenant = tenant->id, .label = args->label, .created = wall_ms()};
    if (!auth_scopes_parse(args->scopes != NULL ? args->scopes : "predict,adapt,read",
                           &key.scopes)) {
        return usage_error("--scopes wants some of predict,adapt,read,admin, got \"%s\"",
                           args->scopes);
    }
    if (args->expires != NULL) {
        size_t seconds = 0;
        if (!arg_size("--expires-in", args->expires, 1, 315360000, &seconds)) {
            return EXIT_USAGE;
        }
        key.expires = key.created + (int64_t)seconds * 1000;
    }
    auth_make_key(secret, id, key.hash);
    if (store_key_create(s, &key, &err) != STORE_OK) {
        return admin_failed(&err);
    }
    auth_scopes_text(key.scopes, scopes, sizeof scopes);
    if (args->json) {
        admin_print_json(json_pack("{s:s, s:s, s:s, s:s}", "id", id, "key", secret, "tenant",
                                   tenant->name, "scopes", scopes));
    } else {
        printf("id      %s\nkey     %s   (shown once, keep it)\nscopes  %s\n", id, secret, scopes);
    }
    return EXIT_DONE;
}

static void print_key(const store_key *key, bool json)
{
    char scopes[64];
    auth_scopes_text(key->scopes, scopes, sizeof scopes);
    const char *state = key->revoked != 0                                ? "revoked"
                        : key->expires != 0 && key->expires <= wall_ms() ? "expired"
                                                                         : "in force";
    if (json) {
        admin_print_json(json_pack("{s:s, s:s, s:s, s:s?}", "id", key->id, "scopes", scopes,
                                   "state", state, "label", key->label));
    } else {
        printf("%-22s %-26s %-9s %s\n", key->id, scopes, state,
               key->label != NULL ? key->label : "");
    }
}

static int list_keys(store *s, const store_tenant *tenant, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[STORE_MAX_NAME + 1] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && status == STORE_OK) {
        store_page page = {.after = after[0] != '\0' ? after : NULL, .limit = 100};
        store_key *keys = NULL;
        size_t n = 0;
        status = store_key_list(s, tenant->id, &page, mem, &keys, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            print_key(&keys[i], json);
            snprintf(after, sizeof after, "%s", keys[i].id);
        }
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

static int revoke_key(store *s, const store_tenant *tenant, const char *id)
{
    store_error err = {0};
    if (store_key_revoke(s, tenant->id, id, wall_ms(), &err) != STORE_OK) {
        fprintf(stderr, "mp2: tenant %s has no key %s: see `mp2 key list`\n", tenant->name, id);
        return EXIT_FAILED;
    }
    printf("key %s revoked\n", id);
    return EXIT_DONE;
}

static int act(store *s, const struct admin_args *args)
{
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    int code = EXIT_FAILED;
    if (mem != NULL && admin_tenant(s, args->tenant, mem, &tenant)) {
        code = strcmp(args->action, "list") == 0     ? list_keys(s, &tenant, args->json)
               : strcmp(args->action, "create") == 0 ? create_key(s, &tenant, args)
                                                     : revoke_key(s, &tenant, args->words[0]);
    }
    store_mem_free(mem);
    return code;
}

int cmd_key(int argc, char **argv)
{
    struct admin_args args;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, &args, &code)) {
        return code;
    }
    bool revoke = strcmp(args.action, "revoke") == 0;
    if (!revoke && strcmp(args.action, "create") != 0 && strcmp(args.action, "list") != 0) {
        return usage_error("unknown action \"%s\": create, list or revoke", args.action);
    }
    if (args.tenant == NULL || args.n_words != (revoke ? 1 : 0)) {
        return usage_error(revoke ? "give the key's id and --tenant NAME" : "give --tenant NAME");
    }
    store *s = admin_open(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = act(s, &args);
    store_close(s);
    return code;
}
