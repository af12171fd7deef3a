/* openapi.h: the document of GET /openapi.json, a part of the server. */
#ifndef SERVER_OPENAPI_H
#define SERVER_OPENAPI_H

#include <stdbool.h>
#include <stddef.h>

struct server;

bool openapi_part_start(struct server *server, char *why, size_t size);
void openapi_part_stop(struct server *server); /* after the last answer */

/* openapi.json as it lies in the sources. */
extern const unsigned char openapi_json[];
extern const size_t openapi_json_len;

#endif
