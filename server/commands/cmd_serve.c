/* cmd_serve.c: `mp2 serve`: reads the settings, opens the log, runs the server. */
#include "server/commands/commands.h"
#include "server/config.h"
#include "server/log.h"
#include "server/reload.h"
#include "server/server.h"
#include "server/tls.h"

#include <stdio.h>
#include <string.h>

static int print_help(void)
{
    printf("usage: mp2 serve [--config FILE] [SETTINGS]\n\n"
           "Serves tasks over HTTP until SIGINT or SIGTERM. Every setting may also stand in the\n"
           "file (max_json = 1M) or the environment (MP2_MAX_JSON=1M); options win, then the\n"
           "environment, then the file. SIGHUP reads them again: settings marked (live) change in\n"
           "the running server, for others the log says that they need a restart.\n\n"
           "  --config FILE              read settings from FILE (conf/mp2.conf explains all)\n"
           "  --check-config             check file, environment and options, and exit (2: wrong)\n"
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

/* False: `why`. */
static bool read_options(struct config *config, int argc, char **argv, char *why)
{
    for (int i = 1; i < argc;) {
        if (strncmp(argv[i], "--config=", 9) == 0 || strcmp(argv[i], "--check-config") == 0) {
            i++;
        } else if (strcmp(argv[i], "--config") == 0) {
            if (i + 1 == argc) {
                snprintf(why, CONFIG_ERROR_SIZE, "--config wants a file");
                return false;
            }
            i += 2;
        } else if (!config_read_flag(config, argc, argv, &i, why)) {
            snprintf(why, CONFIG_ERROR_SIZE, "unknown option \"%.200s\"", argv[i]);
            return false;
        } else if (why[0] != '\0') {
            return false;
        }
    }
    return true;
}

struct arguments {
    int argc;
    char **argv;
};

/* Defaults, file, environment, options. NULL: `why`. */
static struct config *load_settings(void *arg, char *why)
{
    const struct arguments *given = arg;
    const char *file = find_config_file(given->argc, given->argv);
    struct config *config = config_new();
    if (config == NULL) {
        snprintf(why, CONFIG_ERROR_SIZE, "out of memory");
        return NULL;
    }
    if ((file != NULL && !config_read_file(config, file, why)) || !config_read_env(config, why) ||
        !read_options(config, given->argc, given->argv, why) || !config_check(config, why)) {
        config_free(config);
        return NULL;
    }
    return config;
}

/* --check-config: what can be known without starting. */
static int check_files(const struct config *config)
{
    char why[CONFIG_ERROR_SIZE] = "";
    if (config->tls_certificate[0] != '\0') {
        struct tls *tls = tls_new(config->tls_certificate, config->tls_key, why, sizeof why);
        if (tls == NULL) {
            return usage_error("%s", why);
        }
        tls_free(tls);
    }
    printf("the settings are fine\n");
    return EXIT_DONE;
}

static int serve(const struct config *config, const struct config_source *source)
{
    reload_log(config, true);
    int code = server_run(config, source);
    log_close();
    return code;
}

int cmd_serve(int argc, char **argv)
{
    bool check = false;
    for (int i = 1; i < argc; i++) {
        check = check || strcmp(argv[i], "--check-config") == 0;
        if (strcmp(argv[i], "--help") == 0) {
            return print_help();
        }
        if (strcmp(argv[i], "--print-config") == 0) {
            config_print(stdout);
            return EXIT_DONE;
        }
    }
    char why[CONFIG_ERROR_SIZE] = "";
    struct arguments given = {argc, argv};
    const struct config_source source = {load_settings, &given};
    struct config *config = load_settings(&given, why);
    if (config == NULL) {
        return usage_error("%s", why);
    }
    int code = EXIT_DONE;
    if (check) {
        code = check_files(config);
    } else {
        code = serve(config, &source);
    }
    config_free(config);
    return code;
}
