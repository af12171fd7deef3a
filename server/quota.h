/* quota.h: what a tenant, and a key of it, may use: how much is set, and how much is used now.
 *
 * Requests and tokens are rates: what was used drains at the limit's own pace, so that a minute's worth
 * may be used at once and is back a minute later (a leaky bucket; a changed limit applies at once and
 * forgets nothing). Requests at work are counted. Stored examples and jobs are counted in the database
 * where they are written; here are only their limits.
 *
 * A limit of 0 is none. A tenant without a limit of its own has the server's (settings tenant_…); a key
 * without one has its tenant's alone. Keys have the first three kinds: files and jobs outlive keys.
 *
 * Threads.   Loop thread. quota_limit of a tenant's account may be read there only.
 * Lifetime.  Accounts are the table of keys' (auth.h).
 */
#ifndef SERVER_QUOTA_H
#define SERVER_QUOTA_H

#include "server/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;

/* identifier, member of "quotas", name in headers, seconds of its window (0: not a rate), largest limit */
#define QUOTA_LIST(X)                                                                              \
    X(QUOTA_REQUESTS, "requests_per_minute", "requests", 60, 1000000000)                           \
    X(QUOTA_TOKENS, "tokens_per_minute", "tokens", 60, 1000000000000)                              \
    X(QUOTA_CONCURRENT, "concurrent", "concurrent", 0, 1000000)                                    \
    X(QUOTA_EXAMPLES, "stored_examples", "examples", 0, 1000000000000)                             \
    X(QUOTA_RUNNING, "running_jobs", "running-jobs", 0, 1000000)                                   \
    X(QUOTA_QUEUED, "queued_jobs", "jobs", 0, 1000000)

enum quota_kind {
#define QUOTA_ENUM(id, member, name, window, most) id,
    QUOTA_LIST(QUOTA_ENUM)
#undef QUOTA_ENUM
        QUOTA_KINDS
};
#define QUOTA_KEY_KINDS 3 /* the first ones, which a key can have too */
#define QUOTA_RATES     2 /* of these, the first ones have a window */

#define QUOTA_UNSET     UINT64_MAX

struct quota_account {
    uint64_t own[QUOTA_KINDS]; /* QUOTA_UNSET: not set */
    double used[QUOTA_RATES];  /* at at_us */
    int64_t at_us[QUOTA_RATES];
    uint64_t inflight;
};

/* Whose limits hold for a request; key may be NULL. */
struct quota_party {
    const struct config *config; /* the server's defaults */
    struct quota_account *tenant, *key;
};

/* Why a request must wait. */
struct quota_excess {
    enum quota_kind kind;
    bool of_key;
    uint64_t limit, used, asked;
    int64_t wait_ms; /* until there is room; 0: nobody knows */
};

void quota_account_init(struct quota_account *account);
/* 0: no limit. `key`: of the key alone. */
uint64_t quota_limit(const struct quota_party *party, enum quota_kind kind, bool key);

/* A request begins: counts it and its place, or nothing (then *excess says why). */
bool quota_enter(const struct quota_party *party, int64_t now_us, struct quota_excess *excess);
void quota_leave(const struct quota_party *party);
/* Takes tokens before they are computed. One larger than the whole limit passes when none are used. */
bool quota_take_tokens(const struct quota_party *party, uint64_t tokens, int64_t now_us,
                       struct quota_excess *excess);
/* What was taken was an estimate: more or fewer were used. */
void quota_settle_tokens(const struct quota_party *party, uint64_t taken, uint64_t used,
                         int64_t now_us);
/* An excess of something counted elsewhere. */
struct quota_excess quota_counted(enum quota_kind kind, uint64_t limit, uint64_t used,
                                  uint64_t asked);

/* ---- words ------------------------------------------------------------------------------------ */

const char *quota_member(enum quota_kind kind); /* "requests_per_minute" */
/* A sentence of at most `size` bytes: which quota, its limit, what is used, when it frees. */
void quota_explain(const struct quota_excess *excess, char *text, size_t size);
json_t *quota_excess_json(const struct quota_excess *excess);
/* Values of the headers RateLimit-Policy and RateLimit, the binding one first. False: no limits. */
#define QUOTA_HEADER_SIZE 320
/* counted: one that is counted in the database, as just seen there, or NULL. */
bool quota_headers(const struct quota_party *party, const struct quota_excess *counted,
                   int64_t now_us, char policy[QUOTA_HEADER_SIZE], char state[QUOTA_HEADER_SIZE]);

/* "quotas" of a body into `given`: a number sets, null clears (QUOTA_UNSET), others are left alone and
 * have *set[kind] false. `kinds`: QUOTA_KINDS, or QUOTA_KEY_KINDS for a key. */
void quota_read(const json_t *body, size_t kinds, uint64_t given[QUOTA_KINDS],
                bool set[QUOTA_KINDS], struct problems *problems);
/* Puts what was given into the object `settings` under "quotas". False: out of memory. */
bool quota_merge(json_t *settings, const uint64_t given[QUOTA_KINDS], const bool set[QUOTA_KINDS]);
/* The limits of stored settings ("quotas" in it, or nothing) into an account. */
void quota_load(struct quota_account *account, const json_t *settings);
/* Each kind with limit, window and, for rates and concurrency, remaining; of the tenant or the key.
 * `counts`: what is used of the counted kinds, or NULL. */
json_t *quota_json(const struct quota_party *party, bool key, const int64_t counts[QUOTA_KINDS],
                   int64_t now_us);

#endif
