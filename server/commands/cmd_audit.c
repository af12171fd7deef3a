/* cmd_audit.c: `mp2 audit`: the log of administrative acts, also beside a running server. */
#include "server/audit.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char help[] =
    "usage: mp2 audit [--limit N] [--db FILE] [--json]\n\n"
    "The newest N acts of administration (20): when, who, what, on what. Acts over HTTP name the\n"
    "key, others the user of the command line. --json prints one object a line, as\n"
    "/v1/admin/audit does. Exit code 3: there is no such database.\n";

static void print_act(const store_audit *act, bool json)
{
    char stamp[32];
    time_t at = (time_t)(act->created / 1000);
    struct tm utc;
    if (json) {
        admin_print_json(audit_view(act));
        return;
    }
    gmtime_r(&at, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    printf("%s  %-16s %-40s by %s%s%s\n", stamp, act->action,
           act->object != NULL ? act->object : "-", act->tenant != NULL ? act->tenant : "",
           act->tenant != NULL ? "/" : "",
           act->key != NULL    ? act->key
           : act->user != NULL ? act->user
                               : "-");
}

static int list_acts(store *s, size_t limit, bool json)
{
    store_error err = {0};
    store_mem *mem = store_mem_new();
    char after[32] = "";
    bool has_more = mem != NULL;
    store_status status = mem != NULL ? STORE_OK : STORE_ENOMEM;
    while (has_more && limit > 0 && status == STORE_OK) {
        store_page page = {.after = after[0] != '\0' ? after : NULL,
                           .limit = limit < 100 ? limit : 100};
        store_audit *rows = NULL;
        size_t n = 0;
        status = store_audit_list(s, &page, mem, &rows, &n, &has_more, &err);
        for (size_t i = 0; status == STORE_OK && i < n; i++) {
            print_act(&rows[i], json);
            snprintf(after, sizeof after, "%" PRId64, rows[i].id);
        }
        limit -= n < limit ? n : limit;
        store_mem_reset(mem);
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : admin_failed(&err);
}

int cmd_audit(int argc, char **argv)
{
    struct admin_args args;
    size_t limit = 20;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, ADMIN_LIMIT, false, &args, &code)) {
        return code;
    }
    if (args.n_words > 0) {
        return usage_error("\"%s\" is one word too many", args.words[0]);
    }
    if (args.limit != NULL && !arg_size("--limit", args.limit, 1, 100000000, &limit)) {
        return EXIT_USAGE;
    }
    store *s = admin_open_reader(&args, &code);
    if (s == NULL) {
        return code;
    }
    code = list_acts(s, limit, args.json);
    store_close(s);
    return code;
}
