/* test_auth.c: the form of keys, scopes, names, and the table of keys in memory. */
#include "server/auth.h"
#include "tests/unit/test.h"

#include <sodium.h>
#include <unistd.h>

static void key_form(void)
{
    char key[AUTH_KEY_CHARS + 1], id[AUTH_KEY_ID_CHARS + 1], other[AUTH_KEY_CHARS + 1];
    unsigned char made[32], hashed[32];
    auth_make_key(key, id, made);
    auth_make_key(other, id, hashed);
    CHECK(strlen(key) == 47 && strncmp(key, "mp2_", 4) == 0 && strcmp(key, other) != 0);
    CHECK(strlen(id) == 20 && strncmp(id, "key_", 4) == 0);
    CHECK(strstr(key, id + 4) == NULL);
    CHECK(auth_hash(key, hashed) && memcmp(made, hashed, 32) == 0);
    /* SHA-256 of a fixed key, from sha256sum. */
    char hex[65];
    CHECK(auth_hash("mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", hashed));
    sodium_bin2hex(hex, sizeof hex, hashed, sizeof hashed);
    CHECK_STR(hex, "10851a9591b4b9050e4670b3cc673cae3ec44a22e4561f99aab9ef16e66a55f2");
}

static void wrong_forms(void)
{
    unsigned char hash[32];
    static const char *const wrong[] = {"",
                                        "mp2_",
                                        "mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        "mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        "mp3_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        "mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                                        "mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+",
                                        " mp2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(!auth_hash(wrong[i], hash));
    }
}

static void scopes(void)
{
    uint32_t bits = 0;
    char text[64];
    CHECK(auth_scopes_parse("predict,admin", &bits));
    CHECK_INT(bits, STORE_SCOPE_PREDICT | STORE_SCOPE_ADMIN);
    auth_scopes_text(bits, text, sizeof text);
    CHECK_STR(text, "predict,admin");
    CHECK(!auth_scopes_parse("", &bits) && !auth_scopes_parse("predict,", &bits));
    CHECK(!auth_scopes_parse("root", &bits) && !auth_scopes_parse("pre", &bits));
}

static void names(void)
{
    CHECK(auth_tenant_name_ok("a") && auth_tenant_name_ok("0-a_b"));
    CHECK(!auth_tenant_name_ok("") && !auth_tenant_name_ok("-a") && !auth_tenant_name_ok("_"));
    CHECK(!auth_tenant_name_ok("A") && !auth_tenant_name_ok("a b") && !auth_tenant_name_ok("a/b"));
}

#define MANY 3000

struct sample {
    char key[AUTH_KEY_CHARS + 1], id[AUTH_KEY_ID_CHARS + 1], header[AUTH_KEY_CHARS + 8];
};
static struct sample samples[MANY];

static void add_sample(struct auth *auth, struct sample *sample, int64_t tenant, int64_t expires)
{
    store_key key = {
        .id = sample->id, .tenant = tenant, .scopes = STORE_SCOPE_READ, .expires = expires};
    auth_make_key(sample->key, sample->id, key.hash);
    snprintf(sample->header, sizeof sample->header, "Bearer %s", sample->key);
    CHECK(auth_put_key(auth, &key));
}

/* An empty database gives an empty table to fill. */
static struct auth *empty_table(void)
{
    char dir[] = "/tmp/mp2-auth-XXXXXX", path[64], rest[80];
    store *s = NULL;
    store_error err;
    if (mkdtemp(dir) == NULL) {
        return NULL;
    }
    snprintf(path, sizeof path, "%s/db", dir);
    struct auth *auth = NULL;
    if (store_open(path, NULL, &s, &err) == STORE_OK) {
        auth = auth_load(s, &err);
        store_close(s);
    }
    static const char *const endings[] = {"", "-wal", "-shm", "-lock"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(rest, sizeof rest, "%s%s", path, endings[i]);
        unlink(rest);
    }
    rmdir(dir);
    return auth;
}

static void table(void)
{
    struct auth *auth = empty_table();
    REQUIRE(auth != NULL);
    store_tenant tenant = {.id = 5, .name = "acme", .settings = "{\"weight\":2.5}"};
    CHECK(auth_put_tenant(auth, &tenant));
    for (size_t i = 0; i < MANY; i++) {
        add_sample(auth, &samples[i], 5, i % 3 == 0 ? 1000 : 0);
    }
    CHECK_INT(auth_key_count(auth), MANY);
    for (size_t i = 0; i < MANY; i += 2) {
        auth_drop_key(auth, samples[i].id);
    }
    CHECK_INT(auth_key_count(auth), MANY / 2);
    for (size_t i = 0; i < MANY; i++) {
        struct auth_identity who;
        bool in = auth_check(auth, samples[i].header, 1000, &who) == NULL;
        CHECK(in == (i % 2 == 1 && i % 3 != 0));
        if (in) {
            CHECK_STR(who.key_id, samples[i].id);
            CHECK(who.tenant->id == 5 && who.scopes == STORE_SCOPE_READ);
        }
    }
    struct auth_identity who;
    CHECK(auth_check(auth, samples[3].header, 999, &who) == NULL); /* not expired yet */
    CHECK(auth_tenant(auth, 5)->weight == 2.5 && auth_tenant(auth, 6) == NULL);
    tenant.disabled = 1;
    CHECK(auth_put_tenant(auth, &tenant));
    CHECK(auth_check(auth, samples[1].header, 0, &who) != NULL);
    auth_free(auth);
}

int main(void)
{
    TESTS_BEGIN;
    if (sodium_init() < 0) {
        return 1;
    }
    RUN(key_form);
    RUN(wrong_forms);
    RUN(scopes);
    RUN(names);
    RUN(table);
    TESTS_END;
}
