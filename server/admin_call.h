/* admin_call.h: what the endpoints of tenants and of keys share: a call's inputs and results, its views, and
 * settings that are merged into stored ones.
 *
 * Threads. Loop thread, but for admin_read_tenant (workers) and admin_merge_settings (store thread).
 */
#ifndef SERVER_ADMIN_CALL_H
#define SERVER_ADMIN_CALL_H

#include "server/auth.h"
#include "server/endpoints.h"
#include "server/quota.h"

/* One call's inputs and results. In the request's arena, so zeroed by admin_call_new. */
struct admin_call {
    store_mem *mem;
    store_status status;
    store_error err;
    const char *tenant_name;
    store_page page;
    store_tenant tenant;
    store_tenant *tenants;
    store_key key;
    store_key *keys;
    size_t n;
    bool has_more;
    char secret[AUTH_KEY_CHARS + 1], key_id[AUTH_KEY_ID_CHARS + 1];
    bool set_disabled;
    double weight; /* < 0: not given */
    uint64_t quotas[QUOTA_KINDS];
    bool set_quota[QUOTA_KINDS];
    int64_t counts[QUOTA_KINDS]; /* /v1/me: what the database counts */
    int64_t now;
};

struct admin_change {
    struct admin_call *call;
    struct request *req;
};

struct admin_call *admin_call_new(struct request *req); /* NULL: replied */
/* limit and after of the query. False: replied. */
bool admin_read_page(struct request *req, struct admin_call *call);
/* call->tenant by its name. */
void admin_read_tenant(void *arg, store *reader);
/* The stored settings with what the body changes, as JSON text in the request's arena. NULL: out of memory. */
const char *admin_merge_settings(struct request *req, const char *old,
                                 const struct admin_call *call);
void admin_log_change(const struct request *req, const char *event, const char *tenant,
                      const char *key);

/* {"quotas": …} of stored settings; empty when there are none. */
json_t *admin_quotas(const char *settings);
json_t *admin_scopes(uint32_t scopes);

#endif
