/* errmap.h: how an error looks: statuses of engine and store as HTTP, and the body of an answer.
 *
 * Threads. Pure functions.
 */
#ifndef SERVER_ERRMAP_H
#define SERVER_ERRMAP_H

#include "engine/engine.h"
#include "server/endpoints.h"
#include "server/json.h"
#include "server/quota.h"
#include "store/store.h"

struct error_view {
    int status;
    const char *code;
    const char *detail;
    const char *request_id;
    const char *pointer;              /* or NULL */
    const struct problems *problems;  /* or NULL */
    const struct quota_excess *quota; /* or NULL: of a 429 */
    int64_t retry_ms;                 /* of a 429 or 503 without quota; 0: not known */
};

/* application/problem+json (RFC 9457), or the shape of OpenAI or the Open Inference Protocol. NULL: out of memory. */
json_t *error_body(enum api api, const struct error_view *view);
const char *error_content_type(enum api api);

/* Why a request with binary tensors is refused, and what to do. */
#define OIP_NOT_BINARY                                                                             \
    "the binary extension is not spoken here, only JSON: in tritonclient give binary_data=False "  \
    "to set_data_from_numpy and to each InferRequestedOutput, and name the outputs"

struct error_class {
    int status;
    const char *code;
};
struct error_class error_of_engine(eng_status status);
struct error_class error_of_store(store_status status);

const char *status_title(int status); /* "Not Found" */
/* Worth trying again unchanged? */
bool status_is_passing(int status);
/* How errors of this path look when no endpoint has it. */
enum api api_of_path(const char *path);

#endif
