/* auth.h: who asks. Keys and tenants of the database in memory, looked up by the SHA-256 of the key.
 *
 * A key is "mp2_" and 43 characters of base64url (32 random bytes): nothing to guess, so a fast hash
 * is enough and a slow one would only be a way to exhaust the server. The table is indexed by the
 * hash, so the time of a look-up says nothing useful about a key. Only hashes are kept.
 *
 * Threads.   The table belongs to the loop thread: it is read for every request and changed there
 *            when a write has been committed, so that a revoked key is refused from the next request
 *            on. auth_make_key and auth_hash are pure.
 * Lifetime.  A tenant's struct stays until auth_free; its name never changes.
 */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include "server/quota.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_KEY_CHARS    47 /* "mp2_" + 43 */
#define AUTH_KEY_ID_CHARS 20 /* "key_" + 16 */

struct auth_tenant {
    int64_t id;
    char *name;
    bool disabled;
    double weight; /* share of service; setting "weight" of the tenant, 1 */
    struct quota_account quota;
    store_usage usage; /* counted and not written yet (usage.h) */
    bool has_usage;
    struct auth_tenant *next_used;
};

/* What a key with limits of its own has used. Counted: a request that is at work keeps it. */
struct auth_key_quota {
    struct quota_account account;
    size_t refs;
};

struct auth_identity {
    struct auth_tenant *tenant;
    char key_id[AUTH_KEY_ID_CHARS + 1];
    uint32_t scopes;
    struct auth_key_quota *key_quota; /* NULL: the key has no limits of its own. Counted */
};

struct auth;

/* Reads every key. NULL: `err` says why. */
struct auth *auth_load(store *s, store_error *err);
void auth_free(struct auth *auth);
size_t auth_key_count(const struct auth *auth);
size_t auth_tenant_count(const struct auth *auth);

/* `header`: the value of Authorization, or NULL. NULL: let in, *who is filled: end it with auth_leave.
 * Otherwise a sentence for the 401, a static string. now: wall_ms. */
const char *auth_check(struct auth *auth, const char *header, int64_t now,
                       struct auth_identity *who);
void auth_leave(struct auth_identity *who);

/* After the write was committed. False: out of memory. */
bool auth_put_tenant(struct auth *auth, const store_tenant *tenant);
bool auth_put_key(struct auth *auth, const store_key *key);
/* The limits of a key that is in force; `settings`: JSON text or NULL. */
bool auth_set_key(struct auth *auth, const char *id, const char *settings);
void auth_expire_key(struct auth *auth, const char *id, int64_t expires);
void auth_drop_key(struct auth *auth, const char *id);
struct auth_tenant *auth_tenant(struct auth *auth, int64_t id); /* NULL: none */

/* A new key, its public id and its hash. */
void auth_make_key(char key[AUTH_KEY_CHARS + 1], char id[AUTH_KEY_ID_CHARS + 1],
                   unsigned char hash[STORE_KEY_HASH_BYTES]);
/* False: not the shape of a key. */
bool auth_hash(const char *key, unsigned char hash[STORE_KEY_HASH_BYTES]);

/* "predict", … with the bit of each; ends with NULL. */
struct auth_scope {
    const char *name;
    uint32_t bit;
};
extern const struct auth_scope auth_scopes[];
#define AUTH_ALL_SCOPES                                                                            \
    (STORE_SCOPE_PREDICT | STORE_SCOPE_ADAPT | STORE_SCOPE_READ | STORE_SCOPE_ADMIN)
/* "predict,adapt" into bits; false: a word is not a scope. */
bool auth_scopes_parse(const char *text, uint32_t *scopes);
/* The opposite. */
void auth_scopes_text(uint32_t scopes, char *text, size_t size);

/* A tenant's name: 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit. */
bool auth_tenant_name_ok(const char *name);
#define AUTH_TENANT_NAME_RULE                                                                      \
    "1 to 64 of a-z, 0-9, \"-\" and \"_\", beginning with a letter or a digit"

#endif
