/* upkeep.h: what has to be done now and then (a row of server_parts): usage is written, expired
 * Idempotency-Keys and tasks deleted long ago are removed. */
#ifndef SERVER_UPKEEP_H
#define SERVER_UPKEEP_H

#include "server/server.h"

bool upkeep_part_start(struct server *server, char *why, size_t size);
void upkeep_part_stop(struct server *server);

#endif
