/* reload.c: what SIGHUP does. */
#include "server/reload.h"

#include "server/http.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/notify.h"
#include "server/storeq.h"

#include <jansson.h>
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

/* ---- the audit log ----------------------------------------------------------------------------------- */

struct recorded {
    struct storeq_op op;
    store_audit row;
    char detail[2 * CONFIG_ERROR_SIZE + 64];
};

static store_status write_row(store *s, void *arg, store_error *err)
{
    const struct recorded *recorded = arg;
    return store_audit_add(s, &recorded->row, err);
}

static void row_written(struct storeq_op *op)
{
    if (op->status != STORE_OK) {
        log_event(LOG_WARN, "audit_lost", "settings.reload: %s", op->err.text);
    }
    free(op->arg);
}

/* Who may send the process a signal is the system's business: the row says that one came. */
static void record(struct server *server, const char *changed, const char *kept)
{
    struct recorded *recorded = calloc(1, sizeof *recorded);
    json_t *detail = json_pack("{s:s, s:s?}", "changed", changed, "needs_restart",
                               kept[0] != '\0' ? kept : NULL);
    size_t len = detail != NULL ? json_dumpb(detail, NULL, 0, JSON_COMPACT) : 0;
    if (recorded != NULL && len > 0 && len < sizeof recorded->detail) {
        (void)json_dumpb(detail, recorded->detail, len, JSON_COMPACT);
        recorded->row = (store_audit){.created = wall_ms(),
                                      .user = "signal HUP",
                                      .action = "settings.reload",
                                      .detail = recorded->detail};
        recorded->op = (struct storeq_op){
            .run = write_row, .done = row_written, .arg = recorded, .must = true};
        if (storeq_submit(server->storeq, &recorded->op)) {
            recorded = NULL; /* row_written frees it */
        }
    }
    json_decref(detail);
    free(recorded);
}

/* ---- the settings --------------------------------------------------------------------------------------- */

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
    record(server, changed, kept);
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
