/* cmd_backup.c: `mp2 backup` and `mp2 restore`. A backup reads, and may be taken beside a running
 * server; a restore needs the database for itself.
 */
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"
#include "server/loop.h"
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char backup_help[] =
    "usage: mp2 backup --out FILE [--db FILE] [--json]\n\n"
    "A consistent copy of the database, also while a server runs on it (it holds up neither\n"
    "predictions nor writes). FILE must not exist; it appears when the copy is whole and on disk.\n"
    "Exit code 1: it could not be made; 3: there is no such database.\n";

static const char restore_help[] =
    "usage: mp2 restore BACKUP [--db FILE] [--replace] [--json]\n\n"
    "Puts a backup in the place of the database, after checking it in full: whose it is, schema,\n"
    "integrity, references. No server may run. An existing database is refused unless --replace;\n"
    "it is then kept as FILE.before-TIME. Exit code 1: refused or failed; 3: there is no such\n"
    "backup.\n";

/* A line now and then on a terminal. */
static bool show_progress(void *arg, int64_t done, int64_t total)
{
    int64_t *shown = arg;
    int64_t now = clock_ms();
    if (now - *shown > 500 && isatty(STDERR_FILENO)) {
        *shown = now;
        fprintf(stderr, "\r%" PRId64 " of %" PRId64 " pages", done, total);
    }
    return true;
}

int cmd_backup(int argc, char **argv)
{
    struct admin_args args;
    struct stat info = {0};
    store_error err = {0};
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, backup_help, ADMIN_OUT, false, &args, &code)) {
        return code;
    }
    if (args.out == NULL || args.n_words > 0) {
        return usage_error("say where to: --out FILE");
    }
    store *s = admin_open_reader(&args, &code);
    if (s == NULL) {
        return code;
    }
    int64_t began = clock_ms(), shown = began;
    store_status status = store_backup(s, args.out, show_progress, &shown, &err);
    store_close(s);
    if (status != STORE_OK) {
        return admin_failed(&err);
    }
    double seconds = (double)(clock_ms() - began) / 1000;
    stat(args.out, &info);
    if (args.json) {
        admin_print_json(json_pack("{s:s, s:s, s:I, s:f}", "object", "backup", "path", args.out,
                                   "bytes", (json_int_t)info.st_size, "seconds", seconds));
    } else {
        printf("%s: %" PRId64 " bytes in %.2f s\n", args.out, (int64_t)info.st_size, seconds);
    }
    return EXIT_DONE;
}

static int say_restore_failed(store_status status, const store_error *err)
{
    if (status == STORE_EEXISTS) {
        fprintf(stderr, "mp2: %s: --replace puts the backup in its place and keeps it aside\n",
                err->text);
        return EXIT_FAILED;
    }
    (void)admin_failed(err);
    return status == STORE_ENOTFOUND ? EXIT_NO_INPUT : EXIT_FAILED;
}

int cmd_restore(int argc, char **argv)
{
    struct admin_args args;
    char path[1024];
    const char *kept = NULL;
    store_error err = {0};
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, restore_help, ADMIN_REPLACE, false, &args, &code)) {
        return code;
    }
    if (args.n_words != 1) {
        return usage_error("name one backup");
    }
    if (!admin_path(&args, path, sizeof path, &code)) {
        return code;
    }
    if (!server_make_directories(path)) {
        fprintf(stderr, "mp2: %s: cannot make its directory: %s\n", path, strerror(errno));
        return EXIT_FAILED;
    }
    store_mem *mem = store_mem_new();
    store_status status = STORE_ENOMEM;
    if (mem != NULL) {
        status = store_restore(args.words[0], path, args.replace, mem, &kept, &err);
    }
    if (status != STORE_OK) {
        code = say_restore_failed(status, &err);
    } else if (args.json) {
        admin_print_json(
            json_pack("{s:s, s:s, s:s?}", "object", "restore", "path", path, "kept", kept));
    } else {
        printf("%s restored from %s\n", path, args.words[0]);
        printf(kept != NULL ? "what was there is kept as %s\n" : "%s", kept != NULL ? kept : "");
    }
    store_mem_free(mem);
    return status == STORE_OK ? EXIT_DONE : code;
}
