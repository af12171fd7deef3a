/* cmd_serve.c: `mp2 serve`: reads the settings, opens the log, runs the server. */
#include "server/commands/commands.h"
#include "server/config.h"
#include "server/log.h"
#include "server/server.h"

#include <stdio.h>
#include <string.h>

static int print_help(void)
{
    printf("usage: mp2 serve [--config FILE] [SETTINGS]\n\n"
           "Serves tasks over HTTP until SIGINT or SIGTERM. Every setting may also stand in the\n"
           "file (max_json = 1M) or the environment (MP2_MAX_JSON=1M); options win, then the\n"
           "environment, then the file.\n\n"
           "  --config FILE              read settings from FILE (conf/mp2.conf explains all)\n"
           "  --print-config             print that file with every default, and exit\n"
           "  --help                     this\n\n"
           "settings:\n");
    config_help(stdout);
    return EXIT_DONE;
}

/* The file comes first whatever its place among the options. */
static const char *find_config_file(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            return argv[i + 1];
        }
        if (strncmp(argv[i], "--config=", 9) == 0) {
            return argv[i] + 9;
        }
    }
    return NULL;
}

static int read_settings(struct config *config, int argc, char **argv)
{
    char why[CONFIG_ERROR_SIZE] = "";
    const char *file = find_config_file(argc, argv);
    if (file != NULL && !config_read_file(config, file, why)) {
        return usage_error("%s", why);
    }
    if (!config_read_env(config, why)) {
        return usage_error("%s", why);
    }
    for (int i = 1; i < argc;) {
        if (strncmp(argv[i], "--config=", 9) == 0) {
            i++;
        } else if (strcmp(argv[i], "--config") == 0) {
            if (i + 1 == argc) {
                return usage_error("--config wants a file");
            }
            i += 2;
        } else if (!config_read_flag(config, argc, argv, &i, why)) {
            return usage_error("unknown option \"%s\"", argv[i]);
        } else if (why[0] != '\0') {
            return usage_error("%s", why);
        }
    }
    return EXIT_DONE;
}

static void open_log(const struct config *config)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_INFO;
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(config->log_level, names[i]) == 0) {
            level = (enum log_level)i;
        }
    }
    log_open(level, strcmp(config->log_format, "json") == 0);
}

int cmd_serve(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return print_help();
        }
        if (strcmp(argv[i], "--print-config") == 0) {
            config_print(stdout);
            return EXIT_DONE;
        }
    }
    struct config *config = config_new();
    if (config == NULL) {
        fprintf(stderr, "mp2: out of memory\n");
        return EXIT_FAILED;
    }
    int code = read_settings(config, argc, argv);
    if (code == EXIT_DONE) {
        open_log(config);
        code = server_run(config);
        log_close();
    }
    config_free(config);
    return code;
}
