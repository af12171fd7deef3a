/* quota.c: arithmetic of limits, and how they are read, told and shown. */
#include "server/quota.h"

#include "server/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct kind {
    const char *member, *name;
    unsigned window;
    uint64_t most;
};

static const struct kind kinds[QUOTA_KINDS] = {
#define QUOTA_ROW(id, member, name, window, most) [id] = {member, name, window, most},
    QUOTA_LIST(QUOTA_ROW)
#undef QUOTA_ROW
};

/* ---- limits ------------------------------------------------------------------------------------- */

void quota_account_init(struct quota_account *account)
{
    memset(account, 0, sizeof *account);
    for (size_t i = 0; i < QUOTA_KINDS; i++) {
        account->own[i] = QUOTA_UNSET;
    }
}

static uint64_t server_limit(const struct config *config, enum quota_kind kind)
{
    switch (kind) {
    case QUOTA_REQUESTS:
        return config->tenant_requests_per_minute;
    case QUOTA_TOKENS:
        return config->tenant_tokens_per_minute;
    case QUOTA_CONCURRENT:
        return config->tenant_concurrent;
    case QUOTA_EXAMPLES:
        return config->tenant_stored_examples;
    case QUOTA_RUNNING:
        return config->tenant_running_jobs;
    case QUOTA_QUEUED:
        return config->max_queued_jobs;
    case QUOTA_KINDS:
        break;
    }
    return 0;
}

uint64_t quota_limit(const struct quota_party *party, enum quota_kind kind, bool key)
{
    const struct quota_account *account = key ? party->key : party->tenant;
    if (account != NULL && account->own[kind] != QUOTA_UNSET) {
        return account->own[kind];
    }
    return key || account == NULL ? 0 : server_limit(party->config, kind);
}

/* ---- use ------------------------------------------------------------------------------------------ */

/* What is still held against the limit: use drains at limit/window a second. */
static double used_now(struct quota_account *account, enum quota_kind kind, uint64_t limit,
                       int64_t now_us)
{
    int64_t passed = now_us - account->at_us[kind];
    double drained = (double)limit / kinds[kind].window * (double)passed * 1e-6;
    account->at_us[kind] = now_us;
    account->used[kind] = passed > 0 ? fmax(account->used[kind] - drained, 0) : account->used[kind];
    return account->used[kind];
}

static bool fits_rate(const struct quota_party *party, bool key, enum quota_kind kind,
                      uint64_t cost, int64_t now_us, struct quota_excess *excess)
{
    uint64_t limit = quota_limit(party, kind, key);
    if (limit == 0) {
        return true;
    }
    double used = used_now(key ? party->key : party->tenant, kind, limit, now_us);
    double over = used + fmin((double)cost, (double)limit) - (double)limit;
    if (over <= 1e-6) {
        return true;
    }
    double rate = (double)limit / kinds[kind].window;
    *excess = (struct quota_excess){
        kind, key, limit, (uint64_t)ceil(used), cost, (int64_t)ceil(over / rate * 1e3)};
    return false;
}

static bool fits_concurrent(const struct quota_party *party, bool key, struct quota_excess *excess)
{
    const struct quota_account *account = key ? party->key : party->tenant;
    uint64_t limit = quota_limit(party, QUOTA_CONCURRENT, key);
    if (limit == 0 || account->inflight < limit) {
        return true;
    }
    *excess = (struct quota_excess){QUOTA_CONCURRENT, key, limit, account->inflight, 1, 0};
    return false;
}

/* Only where there is a limit: use without one has no pace to drain at. */
static void add_use(const struct quota_party *party, enum quota_kind kind, double amount,
                    int64_t now_us)
{
    struct quota_account *const accounts[] = {party->tenant, party->key};
    for (size_t i = 0; i < 2; i++) {
        uint64_t limit = accounts[i] != NULL ? quota_limit(party, kind, i == 1) : 0;
        if (limit > 0) {
            double used = used_now(accounts[i], kind, limit, now_us) + amount;
            accounts[i]->used[kind] = fmax(used, 0);
        }
    }
}

bool quota_enter(const struct quota_party *party, int64_t now_us, struct quota_excess *excess)
{
    if (!fits_concurrent(party, false, excess) || !fits_concurrent(party, true, excess) ||
        !fits_rate(party, false, QUOTA_REQUESTS, 1, now_us, excess) ||
        !fits_rate(party, true, QUOTA_REQUESTS, 1, now_us, excess)) {
        return false;
    }
    add_use(party, QUOTA_REQUESTS, 1, now_us);
    party->tenant->inflight++;
    if (party->key != NULL) {
        party->key->inflight++;
    }
    return true;
}

void quota_leave(const struct quota_party *party)
{
    party->tenant->inflight--;
    if (party->key != NULL) {
        party->key->inflight--;
    }
}

bool quota_take_tokens(const struct quota_party *party, uint64_t tokens, int64_t now_us,
                       struct quota_excess *excess)
{
    if (!fits_rate(party, false, QUOTA_TOKENS, tokens, now_us, excess) ||
        !fits_rate(party, true, QUOTA_TOKENS, tokens, now_us, excess)) {
        return false;
    }
    add_use(party, QUOTA_TOKENS, (double)tokens, now_us);
    return true;
}

void quota_settle_tokens(const struct quota_party *party, uint64_t taken, uint64_t used,
                         int64_t now_us)
{
    add_use(party, QUOTA_TOKENS, (double)used - (double)taken, now_us);
}

struct quota_excess quota_counted(enum quota_kind kind, uint64_t limit, uint64_t used,
                                  uint64_t asked)
{
    return (struct quota_excess){.kind = kind, .limit = limit, .used = used, .asked = asked};
}

/* ---- words ------------------------------------------------------------------------------------------ */

const char *quota_member(enum quota_kind kind)
{
    return kinds[kind].member;
}

void quota_explain(const struct quota_excess *excess, char *text, size_t size)
{
    static const char *const frees[QUOTA_KINDS] = {
        [QUOTA_CONCURRENT] = "; it frees when one of them is answered",
        [QUOTA_EXAMPLES] = "; it frees when files are deleted",
        [QUOTA_RUNNING] = "; it frees when one of them ends",
        [QUOTA_QUEUED] = "; it frees when one of them ends or is cancelled"};
    char when[64] = "";
    if (excess->wait_ms > 0) {
        snprintf(when, sizeof when, "; there is room in %.1f s", (double)excess->wait_ms / 1e3);
    }
    snprintf(text, size,
             "quota %s of this %s: limit %" PRIu64 ", used %" PRIu64 ", asked for %" PRIu64
             " more%s",
             kinds[excess->kind].member, excess->of_key ? "key" : "tenant", excess->limit,
             excess->used, excess->asked,
             excess->wait_ms > 0 || frees[excess->kind] == NULL ? when : frees[excess->kind]);
}

/* Out of memory leaves members out: json_pack gives NULL then. */
json_t *quota_excess_json(const struct quota_excess *excess)
{
    json_t *wait = excess->wait_ms > 0 ? json_integer(excess->wait_ms) : json_null();
    json_t *window =
        kinds[excess->kind].window > 0 ? json_integer(kinds[excess->kind].window) : json_null();
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "name", kinds[excess->kind].member,
                     "of", excess->of_key ? "key" : "tenant", "limit", (json_int_t)excess->limit,
                     "used", (json_int_t)excess->used, "asked", (json_int_t)excess->asked, "window",
                     window, "retry_after_ms", wait);
}

struct shown {
    enum quota_kind kind;
    bool key;
    uint64_t limit, left;
    unsigned reset; /* seconds until all of it is there again */
};

static uint64_t left_of(uint64_t limit, double used)
{
    return used >= (double)limit ? 0 : limit - (uint64_t)ceil(used);
}

static bool show(const struct quota_party *party, enum quota_kind kind, bool key, int64_t now_us,
                 struct shown *out)
{
    struct quota_account *account = key ? party->key : party->tenant;
    uint64_t limit = account != NULL ? quota_limit(party, kind, key) : 0;
    if (limit == 0) {
        return false;
    }
    double used = kind == QUOTA_CONCURRENT ? (double)account->inflight
                                           : used_now(account, kind, limit, now_us);
    *out = (struct shown){kind, key, limit, left_of(limit, used), 0};
    if (kinds[kind].window > 0) {
        out->reset = (unsigned)ceil(used / ((double)limit / kinds[kind].window));
    }
    return true;
}

/* Less of its limit left: nearer to binding. */
static bool binds_before(const struct shown *a, const struct shown *b)
{
    return (double)a->left / (double)a->limit < (double)b->left / (double)b->limit;
}

#define MOST_SHOWN (2 * QUOTA_KEY_KINDS + 1)

static void insert(struct shown shown[MOST_SHOWN], size_t *n, const struct shown *one)
{
    size_t at = (*n)++;
    for (; at > 0 && binds_before(one, &shown[at - 1]); at--) {
        shown[at] = shown[at - 1];
    }
    shown[at] = *one;
}

static size_t gather(const struct quota_party *party, const struct quota_excess *counted,
                     int64_t now_us, struct shown shown[MOST_SHOWN])
{
    size_t n = 0;
    struct shown one;
    for (size_t i = 0; i < 2 * QUOTA_KEY_KINDS; i++) {
        if (show(party, (enum quota_kind)(i % QUOTA_KEY_KINDS), i >= QUOTA_KEY_KINDS, now_us,
                 &one)) {
            insert(shown, &n, &one);
        }
    }
    if (counted != NULL && counted->limit > 0) {
        one = (struct shown){counted->kind, false, counted->limit,
                             left_of(counted->limit, (double)counted->used), 0};
        insert(shown, &n, &one);
    }
    return n;
}

static void append(char text[QUOTA_HEADER_SIZE], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void append(char text[QUOTA_HEADER_SIZE], const char *format, ...)
{
    size_t at = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + at, QUOTA_HEADER_SIZE - at, format, args);
    va_end(args);
}

bool quota_headers(const struct quota_party *party, const struct quota_excess *counted,
                   int64_t now_us, char policy[QUOTA_HEADER_SIZE], char state[QUOTA_HEADER_SIZE])
{
    struct shown shown[MOST_SHOWN];
    size_t n = gather(party, counted, now_us, shown);
    policy[0] = state[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const struct shown *one = &shown[i];
        const char *comma = i > 0 ? ", " : "", *of = one->key ? "key-" : "";
        append(policy, "%s\"%s%s\";q=%" PRIu64, comma, of, kinds[one->kind].name, one->limit);
        append(state, "%s\"%s%s\";r=%" PRIu64, comma, of, kinds[one->kind].name, one->left);
        if (kinds[one->kind].window > 0) {
            append(policy, ";w=%u", kinds[one->kind].window);
            append(state, ";t=%u", one->reset);
        }
    }
    return n > 0;
}

/* ---- JSON -------------------------------------------------------------------------------------------- */

static void read_one(const json_t *quotas, enum quota_kind kind, uint64_t *given, bool *set,
                     struct problems *problems)
{
    const json_t *value = json_object_get(quotas, kinds[kind].member);
    if (json_is_null(value)) {
        *given = QUOTA_UNSET;
        *set = true;
    } else if (value != NULL) {
        *set = json_get_u64(quotas, "#/quotas", kinds[kind].member, JSON_OPTIONAL_FIELD, 0,
                            kinds[kind].most, given, problems);
    }
}

void quota_read(const json_t *body, size_t n, uint64_t given[QUOTA_KINDS], bool set[QUOTA_KINDS],
                struct problems *problems)
{
    const char *known[QUOTA_KINDS + 1] = {NULL};
    json_t *quotas = NULL;
    memset(set, 0, QUOTA_KINDS * sizeof set[0]);
    if (!json_get_object(body, "#", "quotas", JSON_OPTIONAL_FIELD, &quotas, problems)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        known[i] = kinds[i].member;
        read_one(quotas, (enum quota_kind)i, &given[i], &set[i], problems);
    }
    json_only(quotas, "#/quotas", known, problems);
}

bool quota_merge(json_t *settings, const uint64_t given[QUOTA_KINDS], const bool set[QUOTA_KINDS])
{
    for (size_t i = 0; i < QUOTA_KINDS; i++) {
        if (!set[i]) {
            continue;
        }
        if (json_object_get(settings, "quotas") == NULL &&
            !json_put(settings, "quotas", json_object())) {
            return false;
        }
        json_t *quotas = json_object_get(settings, "quotas");
        if (given[i] == QUOTA_UNSET) {
            json_object_del(quotas, kinds[i].member);
        } else if (!json_put(quotas, kinds[i].member, json_integer((json_int_t)given[i]))) {
            return false;
        }
    }
    return true;
}

void quota_load(struct quota_account *account, const json_t *settings)
{
    const json_t *quotas = json_object_get(settings, "quotas");
    for (size_t i = 0; i < QUOTA_KINDS; i++) {
        const json_t *value = json_object_get(quotas, kinds[i].member);
        bool is_set = json_is_integer(value) && json_integer_value(value) >= 0;
        account->own[i] = is_set ? (uint64_t)json_integer_value(value) : QUOTA_UNSET;
    }
}

static json_t *kind_json(const struct quota_party *party, enum quota_kind kind, bool key,
                         const int64_t counts[QUOTA_KINDS], int64_t now_us)
{
    uint64_t limit = quota_limit(party, kind, key);
    struct shown shown;
    json_t *left = NULL;
    if (limit > 0 && kind < QUOTA_KEY_KINDS && show(party, kind, key, now_us, &shown)) {
        left = json_integer((json_int_t)shown.left);
    } else if (limit > 0 && kind >= QUOTA_KEY_KINDS && counts != NULL) {
        left = json_integer((json_int_t)left_of(limit, (double)counts[kind]));
    }
    return json_pack("{s:o, s:o, s:o}", "limit",
                     limit > 0 ? json_integer((json_int_t)limit) : json_null(), "window",
                     kinds[kind].window > 0 ? json_integer(kinds[kind].window) : json_null(),
                     "remaining", left != NULL ? left : json_null());
}

json_t *quota_json(const struct quota_party *party, bool key, const int64_t counts[QUOTA_KINDS],
                   int64_t now_us)
{
    json_t *all = json_object();
    size_t n = key ? QUOTA_KEY_KINDS : QUOTA_KINDS;
    for (size_t i = 0; i < n; i++) {
        if (!json_put(all, kinds[i].member,
                      kind_json(party, (enum quota_kind)i, key, counts, now_us))) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}
