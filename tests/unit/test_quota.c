/* test_quota.c: limits of tenants and keys: rates that drain, requests at work, words and JSON. */
#include "server/config.h"
#include "server/quota.h"
#include "tests/unit/test.h"

#define SECOND 1000000

struct set_up {
    struct config *config;
    struct quota_account tenant, key;
    struct quota_party party;
    struct quota_excess excess;
};

static struct set_up begin(void)
{
    struct set_up s = {.config = config_new()};
    quota_account_init(&s.tenant);
    quota_account_init(&s.key);
    return s;
}

static struct quota_party *party_of(struct set_up *s, bool with_key)
{
    s->party = (struct quota_party){s->config, &s->tenant, with_key ? &s->key : NULL};
    return &s->party;
}

static void no_limit(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, true);
    char policy[QUOTA_HEADER_SIZE], state[QUOTA_HEADER_SIZE];
    for (int i = 0; i < 1000; i++) {
        CHECK(quota_enter(party, 1, &s.excess));
    }
    CHECK(quota_take_tokens(party, 1000000000, 1, &s.excess));
    CHECK(!quota_headers(party, NULL, 1, policy, state));
    CHECK_INT(s.tenant.inflight, 1000);
    config_free(s.config);
}

/* A minute's worth at once, then one a second. */
static void rate(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, false);
    int64_t now = 5 * SECOND;
    s.tenant.own[QUOTA_REQUESTS] = 60;
    for (int i = 0; i < 60; i++) {
        CHECK(quota_enter(party, now, &s.excess));
    }
    CHECK(!quota_enter(party, now, &s.excess));
    CHECK_INT(s.excess.kind, QUOTA_REQUESTS);
    CHECK_INT(s.excess.limit, 60);
    CHECK_INT(s.excess.used, 60);
    CHECK_INT(s.excess.wait_ms, 1000);
    CHECK(!quota_enter(party, now + SECOND - 1000, &s.excess));
    CHECK(quota_enter(party, now + SECOND, &s.excess));
    CHECK(!quota_enter(party, now + SECOND, &s.excess));
    CHECK_INT(s.tenant.inflight, 61); /* a refusal takes no place */
    for (int i = 0; i < 60; i++) {    /* idle time is worth a minute, not more */
        CHECK(quota_enter(party, now + 1000 * (int64_t)SECOND, &s.excess));
    }
    CHECK(!quota_enter(party, now + 1000 * (int64_t)SECOND, &s.excess));
    config_free(s.config);
}

static void changed_limits_hold_at_once(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, false);
    s.config->tenant_requests_per_minute = 2;
    CHECK(quota_enter(party, 1, &s.excess) && quota_enter(party, 1, &s.excess));
    CHECK(!quota_enter(party, 1, &s.excess));
    s.tenant.own[QUOTA_REQUESTS] = 3; /* what was used still counts */
    CHECK(quota_enter(party, 1, &s.excess));
    CHECK(!quota_enter(party, 1, &s.excess));
    s.tenant.own[QUOTA_REQUESTS] = 0;
    CHECK(quota_enter(party, 1, &s.excess));
    s.tenant.own[QUOTA_REQUESTS] = QUOTA_UNSET;
    CHECK(!quota_enter(party, 1, &s.excess));
    config_free(s.config);
}

static void tokens(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, false);
    s.tenant.own[QUOTA_TOKENS] = 600;
    CHECK(quota_take_tokens(party, 500, 1, &s.excess));
    CHECK(!quota_take_tokens(party, 200, 1, &s.excess));
    CHECK_INT(s.excess.wait_ms, 10000);
    quota_settle_tokens(party, 500, 100, 1); /* fewer than feared */
    CHECK(quota_take_tokens(party, 200, 1, &s.excess));
    /* One above the whole limit: only when nothing is used, and then the next ones wait. */
    CHECK(!quota_take_tokens(party, 6000, 1, &s.excess));
    int64_t later = 60 * (int64_t)SECOND;
    CHECK(quota_take_tokens(party, 6000, later, &s.excess));
    CHECK(!quota_take_tokens(party, 1, later + 60 * (int64_t)SECOND, &s.excess));
    CHECK(s.excess.wait_ms > 400000);
    config_free(s.config);
}

static void concurrent(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, true);
    s.key.own[QUOTA_CONCURRENT] = 2;
    CHECK(quota_enter(party, 1, &s.excess) && quota_enter(party, 1, &s.excess));
    CHECK(!quota_enter(party, 1, &s.excess));
    CHECK(s.excess.of_key && s.excess.kind == QUOTA_CONCURRENT && s.excess.wait_ms == 0);
    CHECK(quota_enter(party_of(&s, false), 1, &s.excess)); /* another key of the tenant */
    CHECK_INT(s.tenant.inflight, 3);
    quota_leave(party_of(&s, true));
    CHECK(quota_enter(party, 1, &s.excess));
    config_free(s.config);
}

/* What is refused for the key must not be counted against the tenant. */
static void both_or_none(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, true);
    s.tenant.own[QUOTA_REQUESTS] = 10;
    s.key.own[QUOTA_REQUESTS] = 1;
    CHECK(quota_enter(party, 1, &s.excess));
    for (int i = 0; i < 20; i++) {
        CHECK(!quota_enter(party, 1, &s.excess) && s.excess.of_key);
    }
    CHECK_NEAR(s.tenant.used[QUOTA_REQUESTS], 1, 1e-9);
    config_free(s.config);
}

static void headers(void)
{
    struct set_up s = begin();
    struct quota_party *party = party_of(&s, true);
    char policy[QUOTA_HEADER_SIZE], state[QUOTA_HEADER_SIZE];
    s.tenant.own[QUOTA_REQUESTS] = 600;
    s.tenant.own[QUOTA_CONCURRENT] = 4;
    s.key.own[QUOTA_TOKENS] = 60;
    CHECK(quota_enter(party, 1, &s.excess));
    CHECK(quota_take_tokens(party, 45, 1, &s.excess));
    CHECK(quota_headers(party, NULL, 1, policy, state));
    CHECK_STR(policy, "\"key-tokens\";q=60;w=60, \"concurrent\";q=4, \"requests\";q=600;w=60");
    CHECK_STR(state, "\"key-tokens\";r=15;t=45, \"concurrent\";r=3, \"requests\";r=599;t=1");
    struct quota_excess jobs = quota_counted(QUOTA_QUEUED, 10, 9, 0);
    CHECK(quota_headers(party, &jobs, 1, policy, state));
    CHECK(strncmp(policy, "\"jobs\";q=10, ", 13) == 0 && strncmp(state, "\"jobs\";r=1, ", 12) == 0);
    jobs.limit = 0; /* no limit, nothing to show */
    CHECK(quota_headers(party, &jobs, 1, policy, state) && strstr(policy, "jobs") == NULL);
    jobs.limit = UINT64_MAX - 1;
    for (size_t i = 0; i < QUOTA_KEY_KINDS; i++) { /* the longest that there can be */
        s.tenant.own[i] = s.key.own[i] = UINT64_MAX - 1;
    }
    CHECK(quota_headers(party, &jobs, 1, policy, state));
    CHECK(strlen(policy) < QUOTA_HEADER_SIZE - 1 && strlen(state) < QUOTA_HEADER_SIZE - 1);
    config_free(s.config);
}

static void settings(void)
{
    struct problems problems = {.count = 0};
    uint64_t given[QUOTA_KINDS];
    bool set[QUOTA_KINDS];
    struct quota_account account;
    quota_account_init(&account);
    json_t *body = json_pack("{s:{s:i, s:n}}", "quotas", "concurrent", 7, "running_jobs");
    json_t *stored = json_pack("{s:{s:i, s:i}}", "quotas", "running_jobs", 2, "queued_jobs", 9);
    quota_load(&account, stored);
    CHECK_INT(account.own[QUOTA_RUNNING], 2);
    CHECK(account.own[QUOTA_CONCURRENT] == QUOTA_UNSET);
    quota_read(body, QUOTA_KINDS, given, set, &problems);
    CHECK_INT(problems.count, 0);
    CHECK(quota_merge(stored, given, set));
    quota_load(&account, stored);
    CHECK_INT(account.own[QUOTA_CONCURRENT], 7);
    CHECK(account.own[QUOTA_RUNNING] == QUOTA_UNSET);
    CHECK_INT(account.own[QUOTA_QUEUED], 9);
    quota_read(body, QUOTA_KEY_KINDS, given, set, &problems); /* a key has no job quotas */
    CHECK_INT(problems.count, 1);
    CHECK_STR(problems.items[0].pointer, "#/quotas/running_jobs");
    json_decref(body);
    json_decref(stored);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(no_limit);
    RUN(rate);
    RUN(changed_limits_hold_at_once);
    RUN(tokens);
    RUN(concurrent);
    RUN(both_or_none);
    RUN(headers);
    RUN(settings);
    TESTS_END;
}
