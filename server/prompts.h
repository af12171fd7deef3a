/* prompts.h: tuned prompts and heads in memory, as many as a number of bytes allows.
 *
 * A route is eight numbers and stays with its task; a tuned prompt is kilobytes to megabytes and is
 * read from the database when a prediction needs it. What nothing computes with may be evicted, the
 * longest unused first; what is being read counts already. A version never changes, so neither does
 * what is kept under (task, number).
 *
 * Threads.   The loop. What a prompt shows may be read by any thread while it is held.
 * Lifetime.  Free after the loop has run what was posted.
 */
#ifndef SERVER_PROMPTS_H
#define SERVER_PROMPTS_H

#include "server/http.h"
#include "server/registry.h"

struct prompts;

struct prompts_stats {
    size_t bytes, limit, entries;
    uint64_t hits, misses, evictions;
};

/* The limit is raised to what one version of the largest bank takes. NULL: out of memory. */
struct prompts *prompts_new(size_t limit, size_t largest);
void prompts_free(struct prompts *prompts);
void prompts_get_stats(const struct prompts *prompts, struct prompts_stats *stats);

/* A held entry, or NULL when it is not in memory. Counts a hit or a miss. */
struct prompt *prompts_find(struct prompts *prompts, int64_t task, int64_t number);
/* Makes the tuned parts of `version` ready: `then` is called with it, now or after a read (the request
 * is parked meanwhile, others go on). On failure the version is released and an error replied. */
void prompts_ready(struct request *req, struct version *version,
                   void (*then)(struct request *req, struct version *version, void *arg),
                   void *arg);

#endif
