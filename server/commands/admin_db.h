/* admin_db.h: what `mp2 tenant`, `mp2 key` and `mp2 task` share: options, and the database of a server that does not
 * run.
 */
#ifndef SERVER_COMMANDS_ADMIN_DB_H
#define SERVER_COMMANDS_ADMIN_DB_H

#include "store/store.h"

#include <jansson.h>
#include <stdbool.h>

struct admin_args {
    const char *action; /* "create", … */
    const char *db, *tenant, *scopes, *label, *expires;
    const char *words[2]; /* what else stands there */
    int n_words;
    bool json;
};

/* Parses; false: *code is what to return (help or usage error, both printed). */
bool admin_parse(int argc, char **argv, const char *help, struct admin_args *args, int *code);
/* Opens the writer; NULL: said why on stderr, *code is what to return. */
store *admin_open(const struct admin_args *args, int *code);
/* The same read-only, also while a server runs. */
store *admin_open_reader(const struct admin_args *args, int *code);
/* Prints a failed call; returns EXIT_FAILED. */
int admin_failed(const store_error *err);
/* Finds a tenant by name; false: said why. */
bool admin_tenant(store *s, const char *name, store_mem *mem, store_tenant *out);
/* Prints `view` as one line of JSON; takes it. */
void admin_print_json(json_t *view);

#endif
