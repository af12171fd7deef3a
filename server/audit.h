/* audit.h: administrative acts over HTTP leave a row in the audit log, in the same step as the act:
 * both are stored or neither.
 *
 * Threads. Loop thread.
 */
#ifndef SERVER_AUDIT_H
#define SERVER_AUDIT_H

#include "server/http.h"

/* As request_store (never alone). Who asks is the request's tenant and key. object: what it is done to;
 * the request's JSON body, which must hold no secret, becomes the detail. `run` may be NULL: the row
 * alone is written. */
bool audit_store(struct request *req, storeq_fn run, request_stored done, void *arg,
                 const char *action, const char *object);

/* A row as it is shown. NULL: out of memory. */
json_t *audit_view(const store_audit *row);

#endif
