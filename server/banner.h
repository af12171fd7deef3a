/* banner.h: what a server says of itself when it starts: model, threads, memory, limits, libraries.
 *
 * Threads. Before the loop runs.
 */
#ifndef SERVER_BANNER_H
#define SERVER_BANNER_H

#include "server/cgroup.h"
#include "server/server.h"

/* On stdout. first_key: "" or the key to show; key_file: where it was written instead, or "". */
void banner_print(const struct server *server, const struct cgroup_limits *limits,
                  const char *first_key, const char *key_file);

#endif
