/* serving.h: the parts of the server that predict: registry and batcher (rows of server_parts). */
#ifndef SERVER_SERVING_H
#define SERVER_SERVING_H

#include "server/server.h"

bool registry_part_start(struct server *server, char *why, size_t size);
bool batcher_part_start(struct server *server, char *why, size_t size);
bool batcher_part_idle(struct server *server);
void batcher_part_stop(struct server *server);

#endif
