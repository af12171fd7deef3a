/* reload.h: SIGHUP: new settings and certificate in a running server, all of them or none.
 *
 * Threads.   Loop thread. Other threads read server->config, an atomic pointer, at any time.
 * Lifetime.  Somebody may still hold the settings that were replaced, so they live until reload_fini.
 */
#ifndef SERVER_RELOAD_H
#define SERVER_RELOAD_H

#include "server/config.h"
#include "server/server.h"

/* Reads file, environment and options again. False: wrong, `why` says what and where. */
bool reload_settings(struct server *server);
void reload_fini(struct server *server);

/* Level and form of log lines as the settings say. */
void reload_log(const struct config *config, bool open);

#endif
