/* admin_db.c: see admin_db.h. The store holds a lock on its file, so a running server and these
 * commands cannot write at once.
 */
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/config.h"
#include "server/json.h"
#include "server/loop.h"
#include "server/server.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct admin_option {
    const char *name;
    unsigned bit;  /* 0: every command has it */
    size_t offset; /* of its text in struct admin_args */
} admin_options[] = {{"db", 0, offsetof(struct admin_args, db)},
                     {"tenant", ADMIN_TENANT, offsetof(struct admin_args, tenant)},
                     {"scopes", ADMIN_SCOPES, offsetof(struct admin_args, scopes)},
                     {"label", ADMIN_LABEL, offsetof(struct admin_args, label)},
                     {"expires-in", ADMIN_EXPIRES, offsetof(struct admin_args, expires)},
                     {"out", ADMIN_OUT, offsetof(struct admin_args, out)},
                     {"grace", ADMIN_GRACE, offsetof(struct admin_args, grace)},
                     {"limit", ADMIN_LIMIT, offsetof(struct admin_args, limit)},
                     {"model", ADMIN_MODEL, offsetof(struct admin_args, model)}};
#define ADMIN_OPTIONS (sizeof admin_options / sizeof admin_options[0])

/* False: *code is what to return. */
static bool parse_options(int argc, char **argv, const char *help, struct admin_args *args,
                          int *code)
{
    struct option options[ADMIN_OPTIONS + 4] = {{"json", no_argument, NULL, 'j'},
                                                {"replace", no_argument, NULL, 'r'},
                                                {"help", no_argument, NULL, 'h'}};
    for (size_t i = 0; i < ADMIN_OPTIONS; i++) {
        options[3 + i] =
            (struct option){admin_options[i].name, required_argument, NULL, 256 + (int)i};
    }
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option >= 256) {
            const struct admin_option *found = &admin_options[option - 256];
            *(const char **)((char *)args + found->offset) = optarg;
            args->given |= found->bit;
        } else if (option == 'j') {
            args->json = true;
        } else if (option == 'r') {
            args->replace = true;
            args->given |= ADMIN_REPLACE;
        } else {
            *code = option == 'h' ? EXIT_DONE : EXIT_USAGE;
            if (option == 'h') {
                fputs(help, stdout);
            }
            return false;
        }
    }
    return true;
}

static const char *option_name(unsigned bit)
{
    for (size_t i = 0; i < ADMIN_OPTIONS; i++) {
        if (admin_options[i].bit == bit) {
            return admin_options[i].name;
        }
    }
    return "replace";
}

bool admin_parse(int argc, char **argv, const char *help, unsigned allowed, bool has_action,
                 struct admin_args *args, int *code)
{
    memset(args, 0, sizeof *args);
    if (!parse_options(argc, argv, help, args, code)) {
        return false;
    }
    unsigned wrong = args->given & ~allowed;
    if (wrong != 0) {
        *code =
            usage_error("--%s is not an option of mp2 %s", option_name(wrong & -wrong), argv[0]);
        return false;
    }
    if (has_action && optind == argc) {
        *code = usage_error("say what to do: create, list, …");
        return false;
    }
    args->action = has_action ? argv[optind++] : NULL;
    while (optind < argc && args->n_words < 2) {
        args->words[args->n_words++] = argv[optind++];
    }
    if (optind < argc) {
        *code = usage_error("\"%s\" is one word too many", argv[optind]);
        return false;
    }
    return true;
}

/* The default and the environment's, as `mp2 serve` would take them. */
static bool choose_path(const struct admin_args *args, char *path, size_t size)
{
    const char *chosen = args->db;
    struct config *config = config_new();
    char why[CONFIG_ERROR_SIZE];
    bool ok = config != NULL && config_read_env(config, why);
    if (ok) {
        int n = snprintf(path, size, "%s", chosen != NULL ? chosen : config->db);
        ok = n > 0 && (size_t)n < size;
    }
    config_free(config);
    return ok;
}

bool admin_path(const struct admin_args *args, char *path, size_t size, int *code)
{
    *code = EXIT_FAILED;
    if (sodium_init() < 0 || !choose_path(args, path, size)) {
        fprintf(stderr, "mp2: out of memory, or a wrong MP2_ setting in the environment\n");
        return false;
    }
    return true;
}

/* False: no database to open, said why; *code is what to return. */
static bool find_database(const struct admin_args *args, char *path, size_t size, int *code)
{
    if (!admin_path(args, path, size, code)) {
        return false;
    }
    bool creates = args->action != NULL && strcmp(args->action, "create") == 0;
    if (!creates && access(path, F_OK) != 0) {
        fprintf(stderr, "mp2: there is no database at %s: give --db FILE\n", path);
        *code = EXIT_NO_INPUT;
        return false;
    }
    return true;
}

/* The key stays out of the list of processes: curl reads the header from a file. */
static void say_busy(const struct admin_args *args, const char *path)
{
    fprintf(stderr, "mp2: %s is in use by a running `mp2 serve`, which holds keys in memory.\n",
            path);
    if (args->advice[0] != '\0') {
        fprintf(stderr,
                "Ask it, with \"Authorization: Bearer mp2_…\" in a file that only you can read:\n"
                "  curl -H @FILE -X %s\n"
                "or stop it first.\n",
                args->advice);
    } else {
        fprintf(stderr, "Ask it under /v1/admin, or stop it first.\n");
    }
}

store *admin_open(const struct admin_args *args, int *code)
{
    char path[1024];
    store *s = NULL;
    store_error err = {0};
    if (!find_database(args, path, sizeof path, code)) {
        return NULL;
    }
    if (strcmp(args->action, "create") == 0 && !server_make_directories(path)) {
        fprintf(stderr, "mp2: %s: cannot make its directory: %s\n", path, strerror(errno));
        return NULL;
    }
    store_status status = store_open(path, NULL, &s, &err);
    if (status == STORE_EBUSY) {
        say_busy(args, path);
    } else if (status != STORE_OK) {
        fprintf(stderr, "mp2: %s\n", err.text);
    }
    return s;
}

store *admin_open_reader(const struct admin_args *args, int *code)
{
    char path[1024];
    store *s = NULL;
    store_error err = {0};
    if (find_database(args, path, sizeof path, code) &&
        store_open_reader(path, &s, &err) != STORE_OK) {
        (void)admin_failed(&err);
    }
    return s;
}

static void user_name(char *text, size_t size)
{
    const struct passwd *user = getpwuid(getuid());
    snprintf(text, size, "%s (uid %lld)", user != NULL ? user->pw_name : "?", (long long)getuid());
}

int admin_act(store *s, store_status (*act)(store *s, void *arg, store_error *err), void *arg,
              const char *action, const char *object)
{
    char user[128];
    store_error err = {0};
    user_name(user, sizeof user);
    const store_audit row = {
        .created = wall_ms(), .user = user, .action = action, .object = object};
    store_status status = store_begin(s, &err);
    if (status == STORE_OK) {
        status = act(s, arg, &err);
    }
    if (status == STORE_OK) {
        status = store_audit_add(s, &row, &err);
    }
    if (status == STORE_OK) {
        status = store_commit(s, &err);
    }
    if (status == STORE_OK) {
        return EXIT_DONE;
    }
    store_rollback(s);
    (void)admin_failed(&err);
    return status == STORE_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

int admin_failed(const store_error *err)
{
    fprintf(stderr, "mp2: %s\n", err->text[0] != '\0' ? err->text : store_status_text(err->status));
    return EXIT_FAILED;
}

bool admin_tenant(store *s, const char *name, store_mem *mem, store_tenant *out)
{
    store_error err = {0};
    if (store_tenant_find(s, name, mem, out, &err) != STORE_OK) {
        fprintf(stderr, "mp2: there is no tenant \"%s\": see `mp2 tenant list`\n", name);
        return false;
    }
    return true;
}

void admin_print_json(json_t *view)
{
    size_t len = 0;
    char *text = json_text(view, &len);
    printf("%s\n", text != NULL ? text : "");
    free(text);
    json_decref(view);
}
