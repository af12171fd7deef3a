/* admin_db.c: see admin_db.h. The store holds a lock on its file, so a running server and these
 * commands cannot write at once.
 */
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/config.h"
#include "server/json.h"
#include "server/server.h"

#include <errno.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool admin_parse(int argc, char **argv, const char *help, struct admin_args *args, int *code)
{
    static const struct option options[] = {{"db", required_argument, NULL, 'd'},
                                            {"tenant", required_argument, NULL, 't'},
                                            {"scopes", required_argument, NULL, 's'},
                                            {"label", required_argument, NULL, 'l'},
                                            {"expires-in", required_argument, NULL, 'e'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    memset(args, 0, sizeof *args);
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'd':
            args->db = optarg;
            break;
        case 't':
            args->tenant = optarg;
            break;
        case 's':
            args->scopes = optarg;
            break;
        case 'l':
            args->label = optarg;
            break;
        case 'e':
            args->expires = optarg;
            break;
        case 'j':
            args->json = true;
            break;
        case 'h':
            fputs(help, stdout);
            *code = EXIT_DONE;
            return false;
        default:
            *code = EXIT_USAGE;
            return false;
        }
    }
    if (optind == argc) {
        *code = usage_error("say what to do: create, list, …");
        return false;
    }
    args->action = argv[optind++];
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

/* False: no database to open, said why; *code is what to return. */
static bool find_database(const struct admin_args *args, char *path, size_t size, int *code)
{
    *code = EXIT_FAILED;
    if (sodium_init() < 0 || !choose_path(args, path, size)) {
        fprintf(stderr, "mp2: out of memory, or a wrong MP2_ setting in the environment\n");
        return false;
    }
    bool creates = strcmp(args->action, "create") == 0;
    if (!creates && access(path, F_OK) != 0) {
        fprintf(stderr, "mp2: there is no database at %s: give --db FILE\n", path);
        *code = EXIT_NO_INPUT;
        return false;
    }
    return true;
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
        fprintf(stderr,
                "mp2: %s is in use, by a running `mp2 serve` it seems: stop it first, or use "
                "/v1/admin over HTTP\n",
                path);
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
