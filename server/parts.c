/* parts.c: THE table of the server's parts, in the order they start (server.h). */
#include "server/server.h"

const struct server_part server_parts[] = {
    {"none", NULL, NULL, NULL, NULL},
};
const size_t server_parts_count = sizeof server_parts / sizeof server_parts[0];
