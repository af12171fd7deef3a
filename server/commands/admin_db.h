/* admin_db.h: what the commands on a database share: options, opening, the audit log.
 *
 * Reading works beside a running server. Writing does not: the server holds the database's lock, and
 * keys and tasks in memory; these commands then say how to ask it instead.
 */
#ifndef SERVER_COMMANDS_ADMIN_DB_H
#define SERVER_COMMANDS_ADMIN_DB_H

#include "store/store.h"

#include <jansson.h>
#include <stdbool.h>

/* Options that a command may take beside --db, --json and --help. */
enum {
    ADMIN_TENANT = 1,
    ADMIN_SCOPES = 2,
    ADMIN_LABEL = 4,
    ADMIN_EXPIRES = 8,
    ADMIN_OUT = 16,
    ADMIN_GRACE = 32,
    ADMIN_LIMIT = 64,
    ADMIN_REPLACE = 128,
    ADMIN_MODEL = 256
};

struct admin_args {
    const char *action; /* "create", …; NULL for a command without */
    const char *db, *tenant, *scopes, *label, *expires, *out, *grace, *limit, *model;
    const char *words[2]; /* what else stands there */
    int n_words;
    bool json, replace;
    unsigned given;   /* ADMIN_… */
    char advice[400]; /* "DELETE /v1/admin/…": how to ask a running server for the same */
};

/* Parses; false: *code is what to return (help or usage error, both printed). */
bool admin_parse(int argc, char **argv, const char *help, unsigned allowed, bool has_action,
                 struct admin_args *args, int *code);
/* Opens the writer; NULL: said why on stderr, *code is what to return. */
store *admin_open(const struct admin_args *args, int *code);
/* One act and its row in the audit log, together. Closes nothing. */
int admin_act(store *s, store_status (*act)(store *s, void *arg, store_error *err), void *arg,
              const char *action, const char *object);
/* The same read-only, also while a server runs. */
store *admin_open_reader(const struct admin_args *args, int *code);
/* Prints a failed call; returns EXIT_FAILED. */
int admin_failed(const store_error *err);
/* The database named by --db, environment or default. False: said why, *code is what to return. */
bool admin_path(const struct admin_args *args, char *path, size_t size, int *code);
/* Finds a tenant by name; false: said why. */
bool admin_tenant(store *s, const char *name, store_mem *mem, store_tenant *out);
/* Prints `view` as one line of JSON; takes it. */
void admin_print_json(json_t *view);

#endif
