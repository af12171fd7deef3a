/* commands.h: the subcommands of the mp2 executable, one file each, listed in ONE table (commands.c).
 *
 * A subcommand gets its own argc and argv (argv[0] is its name), prints results to stdout, progress
 * and errors to stderr, and returns an exit code below. It parses with getopt_long and answers --help.
 */
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,  /* the work failed: message on stderr */
    EXIT_USAGE = 2,   /* the arguments are wrong */
    EXIT_NO_INPUT = 3 /* a file, model, bank or task named is missing or unreadable */
};

struct command {
    const char *name;
    const char *summary; /* one line for `mp2 --help` */
    int (*run)(int argc, char **argv);
};
extern const struct command commands[];
extern const size_t commands_count;

int cmd_bench(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_adapt(int argc, char **argv);
int cmd_predict(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_pretrain(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_tenant(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_task(int argc, char **argv);
int cmd_job(int argc, char **argv);
int cmd_audit(int argc, char **argv);
int cmd_backup(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_check(int argc, char **argv);

/* ---- argument helpers (args.c): each prints "mp2 NAME: …" and returns false when the text is wrong */
bool arg_size(const char *option, const char *text, size_t min, size_t max, size_t *out);
bool arg_double(const char *option, const char *text, double min, double max, double *out);
bool arg_u64(const char *option, const char *text, uint64_t *out);
/* "8,13,21" into at most `max` numbers; *n receives how many. */
bool arg_u64_list(const char *option, const char *text, uint64_t *out, size_t max, size_t *n);
/* Prints "mp2: <text>" for a usage error and returns EXIT_USAGE. */
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The model directory to use: `given` when not NULL; else $MP2_MODEL; else the embedded default,
 * found beside the executable's installation or in the source tree it was built from.
 * Returns NULL (message printed) when there is none. Static buffer. */
const char *default_model_dir(const char *given);

#endif
