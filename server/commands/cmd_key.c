/* cmd_key.c: `mp2 key create|list|rotate|revoke`: the keys of a database. Listing works beside a running
 * server; the rest while none runs, and is the way back in when every admin key is lost.
 */
#include "server/auth.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/json.h"
#include "server/loop.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: mp2 key create --tenant NAME [--scopes predict,adapt,read,admin] [--label TEXT]\n"
    "                      [--expires-in SECONDS] [--db FILE] [--json]\n"
    "       mp2 key list --tenant NAME [--db FILE] [--json]\n"
    "       mp2 key rotate ID --tenant NAME [--grace SECONDS] [--db FILE] [--json]\n"
    "       mp2 key revoke ID --tenant NAME [--db FILE]\n\n"
    "create and rotate show the new key once, on standard output. rotate makes a key of the same\n"
    "scopes and label; the old one ends after the grace (0: at once). All but list need the\n"
    "database for themselves: a running server is asked under /v1/admin/tenants/NAME/keys, and\n"
    "the message then says how. Exit code 3: no such database, tenant or key.\n";

struct key_act {
    const store_tenant *tenant;
    const char *id; /* of the key acted on */
    store_key key;  /* the new one */
    store_mem *mem;
    int64_t grace_ms;
};

static int show_new(const struct key_act *act, const char *secret, bool json)
{
    char scopes[64];
    auth_scopes_text(act->key.scopes, scopes, sizeof scopes);
    if (json) {
        admin_print_json(json_pack("{s:s, s:s, s:s, s:s}", "id", act->key.id, "key", secret,
                                   "tenant", act->tenant->name, "scopes", scopes));
    } else {
        printf("id      %s\nkey     %s   (shown once, keep it)\nscopes  %s\n", act->key.id, secret,
               scopes);
    }
    return EXIT_DONE;
}

static store_status store_new(store *s, void *arg, store_error *err)
{
    const struct key_act *act = arg;
    return store_key_create(s, &act->key, err);
}

/* The old key's rights under a new secret; the old one ends. */
static store_status store_rotated(store *s, void *arg, store_error *err)
{
    struct key_act *act = arg;
    store_key old;
    store_status status = store_key_get(s, act->tenant->id, act->id, act->mem, &old, err);
    if (status != STORE_OK) {
        return status;
    }
    if (old.revoked != 0 || (old.expires != 0 && old.expires <= act->key.created)) {
        snprintf(err->text, sizeof err->text, "this key is revoked or has expired: make a new one");
        return STORE_ESTATE;
    }
    act->key.scopes = old.scopes;
    act->key.label = old.label;
    act->key.settings = old.settings;
    act->key.expires = old.expires != 0 ? act->key.created + (old.expires - old.created) : 0;
    status = store_key_create(s, &act->key, err);
    return status == STORE_OK ? store_key_expire(s, act->tenant->id, act->id,
                                                 act->key.created + act->grace_ms, err)
                              : status;
}

static store_status store_revoked(store *s, void *arg, store_error *err)
{
    const struct key_act *act = arg;
    return store_key_revoke(s, act->tenant->id, act->id, wall_ms(), err);
}

/* A new secret in act->key, stored by `run`, shown. `on`: the key that the audit log names. */
static int make_key(store *s, struct key_act *act, const char *on, const char *action,
                    store_status (*run)(store *s, void *arg, store_error *err), bool json)
{
    char secret[AUTH_KEY_CHARS + 1], id[AUTH_KEY_ID_CHARS + 1], object[256];
    auth_make_key(secret, id, act->key.hash);
    act->key.id = id;
    act->key.tenant = act->tenant->id;
    act->key.created = wall_ms();
    act->key.expires += act->key.expires != 0 ? act->key.created : 0;
    snprintf(object, sizeof object, "%.100s/%.100s", act->tenant->name, on != NULL ? on : id);
    int code = admin_act(s, run, act, action, object);
    if (code == EXIT_DONE) {
        code = show_new(act, secret, json);
    }
    sodium_memzero(secret, sizeof secret);
    return code;
}

static int create_key(store *s, struct key_act *act, const struct admin_args *args)
{
    size_t seconds = 0;
    const char *scopes = args->scopes != NULL ? args->scopes : "predict,adapt,read";
    if (!auth_scopes_parse(scopes, &act->key.scopes)) {
        return usage_error("--scopes wants some of predict,adapt,read,admin, got \"%s\"", scopes);
    }
    if (args->expires != NULL && !arg_size("--expires-in", args->expires, 1, 315360000, &seconds)) {
        return EXIT_USAGE;
    }
    act->key.label = args->label;
    act->key.expires = (int64_t)seconds * 1000;
    return make_key(s, act, NULL, "key.create", store_new, args->json);
}

static int rotate_key(store *s, struct key_act *act, const struct admin_args *args)
{
    size_t seconds = 0;
    if (args->grace != NULL && !arg_size("--grace", args->grace, 0, 31536000, &seconds)) {
        return EXIT_USAGE;
    }
    act->grace_ms = (int64_t)seconds * 1000;
    return make_key(s, act, act->id, "key.rotate", store_rotated, args->json);
}

static int revoke_key(store *s, struct key_act *act)
{
    char object[256];
    snprintf(object, sizeof object, "%.100s/%.100s", act->tenant->name, act->id);
    int code = admin_act(s, store_revoked, act, "key.revoke", object);
    if (code == EXIT_DONE) {
        printf("key %s revoked\n", act->id);
    }
    return code;
}

static void print_key(const store_key *key, bool json)
{
    char scopes[64];
    auth_scopes_text(key->scopes, scopes, sizeof scopes);
    const char *state = key->revoked != 0                                ? "revoked"
                        : key->expires != 0 && key->expires <= wall_ms() ? "expired"
                                                                         : "in force";
    if (json) {
        admin_print_json(json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I}", "id", key->id, "scopes",
                                   scopes, "state", state, "label", key->label, "created_at",
                                   (json_int_t)(key->created / 1000), "expires_at",
                                   (json_int_t)(key->expires / 1000)));
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

static int run_action(store *s, const struct admin_args *args)
{
    store_tenant tenant;
    store_mem *mem = store_mem_new();
    int code = EXIT_NO_INPUT;
    if (mem != NULL && admin_tenant(s, args->tenant, mem, &tenant)) {
        struct key_act act = {.tenant = &tenant, .id = args->words[0], .mem = mem};
        code = strcmp(args->action, "list") == 0     ? list_keys(s, &tenant, args->json)
               : strcmp(args->action, "create") == 0 ? create_key(s, &act, args)
               : strcmp(args->action, "rotate") == 0 ? rotate_key(s, &act, args)
                                                     : revoke_key(s, &act);
    }
    store_mem_free(mem);
    return code;
}

/* How a running server is asked for the same. */
static void advise(struct admin_args *args)
{
    const char *id = args->n_words > 0 ? args->words[0] : "";
    bool revoke = strcmp(args->action, "revoke") == 0;
    snprintf(args->advice, sizeof args->advice,
             "%s http://HOST:PORT/v1/admin/tenants/%.64s/keys%s%.64s%s", revoke ? "DELETE" : "POST",
             args->tenant, id[0] != '\0' ? "/" : "", id,
             strcmp(args->action, "rotate") == 0   ? "/rotate"
             : strcmp(args->action, "create") == 0 ? " -H 'Content-Type: application/json' -d '{}'"
                                                   : "");
}

int cmd_key(int argc, char **argv)
{
    struct admin_args args;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help,
                     ADMIN_TENANT | ADMIN_SCOPES | ADMIN_LABEL | ADMIN_EXPIRES | ADMIN_GRACE, true,
                     &args, &code)) {
        return code;
    }
    bool list = strcmp(args.action, "list") == 0;
    bool of_one = strcmp(args.action, "revoke") == 0 || strcmp(args.action, "rotate") == 0;
    if (!of_one && !list && strcmp(args.action, "create") != 0) {
        return usage_error("unknown action \"%s\": create, list, rotate or revoke", args.action);
    }
    if (args.tenant == NULL || args.n_words != (of_one ? 1 : 0)) {
        return usage_error(of_one ? "give the key's id and --tenant NAME" : "give --tenant NAME");
    }
    advise(&args);
    store *s = list ? admin_open_reader(&args, &code) : admin_open(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = run_action(s, &args);
    store_close(s);
    return code;
}
