/* reload.c: what SIGHUP does. */
#include "server/reload.h"

#include "server/http.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct old_config {
    struct config *config;
    struct old_config *next;
};

void reload_log(const struct config *config, bool open)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    enum log_level level = LOG_INFO;
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(config->log_level, names[i]) == 0) {
            level = (enum log_level)i;
        }
    }
    bool json = strcmp(config->log_format, "json") == 0;
    if (open) {
        log_open(level, json);
    } else {
        log_set(level, json);
    }
}

static bool apply(struct server *server, struct config *fresh, char why[CONFIG_ERROR_SIZE])
{
    char changed[CONFIG_ERROR_SIZE], kept[CONFIG_ERROR_SIZE];
    struct old_config *old = malloc(sizeof *old);
    if (old == NULL || !config_merge(fresh, server->config, changed, kept)) {
        snprintf(why, CONFIG_ERROR_SIZE, "out of memory");
        free(old);
        return false;
    }
    if (!http_reload(server, fresh, why, CONFIG_ERROR_SIZE)) {
        free(old);
        return false;
    }
    *old = (struct old_config){fresh, server->old_configs};
    server->old_configs = old;
    server->config = fresh;
    reload_log(fresh, false);
    struct log_line line;
    log_begin(&line, LOG_INFO, "reloaded");
    log_text(&line, "changed", changed);
    log_text(&line, "needs_restart", kept[0] != '\0' ? kept : NULL);
    log_end(&line);
    return true;
}

bool reload_settings(struct server *server)
{
    char why[CONFIG_ERROR_SIZE] = "", lines[96];
    snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_us());
    notify_send(lines);
    struct config *fresh = server->source->load(server->source->arg, why);
    bool ok = fresh != NULL && apply(server, fresh, why);
    if (!ok) {
        log_event(LOG_ERROR, "reload_failed", "%s; the settings in use stay", why);
        config_free(fresh);
    }
    notify_send("READY=1");
    return ok;
}

void reload_fini(struct server *server)
{
    while (server->old_configs != NULL) {
        struct old_config *next = server->old_configs->next;
        config_free(server->old_configs->config);
        free(server->old_configs);
        server->old_configs = next;
    }
}
