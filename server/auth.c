/* auth.c: two open-addressing tables of keys (by hash and by public id) and one of tenants, all of
 * pointers, all keyed by 64 bits. Deleted places keep a tombstone; a table is rebuilt when three
 * quarters are used.
 */
#include "server/auth.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct key_entry {
    char id[AUTH_KEY_ID_CHARS + 1];
    unsigned char hash[STORE_KEY_HASH_BYTES];
    struct auth_tenant *tenant;
    uint32_t scopes;
    int64_t expires;
    struct auth_key_quota *quota; /* NULL: none of its own */
};

struct slot {
    uint64_t key;
    void *value; /* NULL: free, or a tombstone when `used` */
    bool used;
};

struct map {
    struct slot *slots;
    size_t room, used, count; /* room: a power of two */
};

struct auth {
    struct map by_hash, by_id, tenants;
};

const struct auth_scope auth_scopes[] = {{"predict", STORE_SCOPE_PREDICT},
                                         {"adapt", STORE_SCOPE_ADAPT},
                                         {"read", STORE_SCOPE_READ},
                                         {"admin", STORE_SCOPE_ADMIN},
                                         {NULL, 0}};

/* ---- map ------------------------------------------------------------------------------------------- */

static size_t map_place(const struct map *map, uint64_t key)
{
    return (size_t)(key * 0x9E3779B97F4A7C15u >> 20) & (map->room - 1);
}

static void map_insert(struct map *map, uint64_t key, void *value)
{
    size_t i = map_place(map, key);
    while (map->slots[i].value != NULL) {
        i = (i + 1) & (map->room - 1);
    }
    map->used += !map->slots[i].used;
    map->slots[i] = (struct slot){key, value, true};
    map->count++;
}

static bool map_reserve(struct map *map)
{
    if (map->used + 1 <= map->room / 4 * 3) {
        return true;
    }
    struct map bigger = {NULL, 64, 0, 0};
    while (bigger.room < (map->count + 1) * 2) {
        bigger.room *= 2;
    }
    bigger.slots = calloc(bigger.room, sizeof *bigger.slots);
    if (bigger.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < map->room; i++) {
        if (map->slots[i].value != NULL) {
            map_insert(&bigger, map->slots[i].key, map->slots[i].value);
        }
    }
    free(map->slots);
    *map = bigger;
    return true;
}

/* Walks the values stored under `key`; start with *at = SIZE_MAX. */
static void *map_next(const struct map *map, uint64_t key, size_t *at)
{
    if (map->room == 0) {
        return NULL;
    }
    size_t i = *at == SIZE_MAX ? map_place(map, key) : (*at + 1) & (map->room - 1);
    for (; map->slots[i].used; i = (i + 1) & (map->room - 1)) {
        if (map->slots[i].value != NULL && map->slots[i].key == key) {
            *at = i;
            return map->slots[i].value;
        }
    }
    return NULL;
}

static void map_remove(struct map *map, uint64_t key, const void *value)
{
    size_t at = SIZE_MAX;
    void *found;
    while ((found = map_next(map, key, &at)) != NULL) {
        if (found == value) {
            map->slots[at].value = NULL;
            map->count--;
            return;
        }
    }
}

/* ---- keys and tenants ------------------------------------------------------------------------------ */

static uint64_t hash_prefix(const unsigned char hash[STORE_KEY_HASH_BYTES])
{
    uint64_t prefix;
    memcpy(&prefix, hash, sizeof prefix);
    return prefix;
}

/* FNV-1a: ids are random and ours. */
static uint64_t hash_id(const char *id)
{
    uint64_t h = 14695981039346656037u;
    for (; *id != '\0'; id++) {
        h = (h ^ (unsigned char)*id) * 1099511628211u;
    }
    return h;
}

static struct key_entry *find_hash(const struct auth *auth, const unsigned char *hash)
{
    size_t at = SIZE_MAX;
    struct key_entry *entry;
    while ((entry = map_next(&auth->by_hash, hash_prefix(hash), &at)) != NULL) {
        if (sodium_memcmp(entry->hash, hash, STORE_KEY_HASH_BYTES) == 0) {
            return entry;
        }
    }
    return NULL;
}

static struct key_entry *find_id(const struct auth *auth, const char *id)
{
    size_t at = SIZE_MAX;
    struct key_entry *entry;
    while ((entry = map_next(&auth->by_id, hash_id(id), &at)) != NULL) {
        if (strcmp(entry->id, id) == 0) {
            return entry;
        }
    }
    return NULL;
}

struct auth_tenant *auth_tenant(struct auth *auth, int64_t id)
{
    size_t at = SIZE_MAX;
    return map_next(&auth->tenants, (uint64_t)id, &at);
}

static void read_settings(struct auth_tenant *tenant, const char *text)
{
    tenant->weight = 1;
    json_t *settings = json_stored(text);
    double weight = json_number_value(json_object_get(settings, "weight"));
    if (weight > 0) {
        tenant->weight = weight;
    }
    quota_load(&tenant->quota, settings);
    json_decref(settings);
}

static struct auth_tenant *add_tenant(struct auth *auth, const store_tenant *given)
{
    struct auth_tenant *tenant = calloc(1, sizeof *tenant);
    char *name = strdup(given->name);
    if (tenant == NULL || name == NULL || !map_reserve(&auth->tenants)) {
        free(tenant);
        free(name);
        return NULL;
    }
    tenant->id = given->id;
    tenant->name = name;
    quota_account_init(&tenant->quota);
    map_insert(&auth->tenants, (uint64_t)given->id, tenant);
    return tenant;
}

bool auth_put_tenant(struct auth *auth, const store_tenant *given)
{
    struct auth_tenant *tenant = auth_tenant(auth, given->id);
    if (tenant == NULL) {
        tenant = add_tenant(auth, given);
    }
    if (tenant != NULL) {
        tenant->disabled = given->disabled != 0;
        read_settings(tenant, given->settings);
    }
    return tenant != NULL;
}

static void give_quota(struct auth_key_quota *quota)
{
    if (quota != NULL && --quota->refs == 0) {
        free(quota);
    }
}

static bool read_key_settings(struct key_entry *entry, const char *text)
{
    json_t *settings = json_stored(text);
    bool has_any = json_object_size(json_object_get(settings, "quotas")) > 0;
    if (entry->quota == NULL && has_any) {
        entry->quota = calloc(1, sizeof *entry->quota);
        if (entry->quota == NULL) {
            json_decref(settings);
            return false;
        }
        entry->quota->refs = 1;
        quota_account_init(&entry->quota->account);
    }
    if (entry->quota != NULL) {
        quota_load(&entry->quota->account, settings);
    }
    json_decref(settings);
    return true;
}

bool auth_set_key(struct auth *auth, const char *id, const char *settings)
{
    struct key_entry *entry = find_id(auth, id);
    return entry == NULL || read_key_settings(entry, settings);
}

bool auth_put_key(struct auth *auth, const store_key *key)
{
    if (key->revoked != 0 || find_id(auth, key->id) != NULL) {
        return true;
    }
    struct auth_tenant *tenant = auth_tenant(auth, key->tenant);
    struct key_entry *entry = calloc(1, sizeof *entry);
    if (tenant == NULL || entry == NULL || !read_key_settings(entry, key->settings) ||
        !map_reserve(&auth->by_hash) || !map_reserve(&auth->by_id)) {
        give_quota(entry != NULL ? entry->quota : NULL);
        free(entry);
        return false;
    }
    snprintf(entry->id, sizeof entry->id, "%s", key->id);
    memcpy(entry->hash, key->hash, sizeof entry->hash);
    entry->tenant = tenant;
    entry->scopes = key->scopes;
    entry->expires = key->expires;
    map_insert(&auth->by_hash, hash_prefix(entry->hash), entry);
    map_insert(&auth->by_id, hash_id(entry->id), entry);
    return true;
}

void auth_expire_key(struct auth *auth, const char *id, int64_t expires)
{
    struct key_entry *entry = find_id(auth, id);
    if (entry != NULL && (entry->expires == 0 || entry->expires > expires)) {
        entry->expires = expires;
    }
}

void auth_drop_key(struct auth *auth, const char *id)
{
    struct key_entry *entry = find_id(auth, id);
    if (entry != NULL) {
        map_remove(&auth->by_hash, hash_prefix(entry->hash), entry);
        map_remove(&auth->by_id, hash_id(entry->id), entry);
        give_quota(entry->quota);
        free(entry);
    }
}

/* ---- loading ----------------------------------------------------------------------------------------- */

struct loading {
    struct auth *auth;
    bool failed;
};

static bool load_key(void *arg, const store_key *key, const store_tenant *tenant)
{
    struct loading *loading = arg;
    loading->failed = !auth_put_tenant(loading->auth, tenant) || !auth_put_key(loading->auth, key);
    return !loading->failed;
}

struct auth *auth_load(store *s, store_error *err)
{
    struct loading loading = {calloc(1, sizeof(struct auth)), false};
    store_status status = STORE_ENOMEM;
    if (loading.auth != NULL) {
        status = store_keys_load(s, load_key, &loading, err);
    }
    if (status != STORE_OK || loading.failed) {
        if (status == STORE_OK || status == STORE_ENOMEM) {
            snprintf(err->text, sizeof err->text, "out of memory while reading the keys");
        }
        auth_free(loading.auth);
        return NULL;
    }
    return loading.auth;
}

static void free_map(struct map *map, bool values)
{
    for (size_t i = 0; values && i < map->room; i++) {
        free(map->slots[i].value);
    }
    free(map->slots);
}

void auth_free(struct auth *auth)
{
    if (auth == NULL) {
        return;
    }
    for (size_t i = 0; i < auth->tenants.room; i++) {
        struct auth_tenant *tenant = auth->tenants.slots[i].value;
        if (tenant != NULL) {
            free(tenant->name);
        }
    }
    for (size_t i = 0; i < auth->by_id.room; i++) {
        struct key_entry *entry = auth->by_id.slots[i].value;
        give_quota(entry != NULL ? entry->quota : NULL);
    }
    free_map(&auth->tenants, true);
    free_map(&auth->by_id, false);
    free_map(&auth->by_hash, true);
    free(auth);
}

size_t auth_key_count(const struct auth *auth)
{
    return auth->by_hash.count;
}

size_t auth_tenant_count(const struct auth *auth)
{
    return auth->tenants.count;
}

/* ---- checking ---------------------------------------------------------------------------------------- */

const char *auth_check(struct auth *auth, const char *header, int64_t now,
                       struct auth_identity *who)
{
    static const char refused[] = "this key is unknown, revoked or expired";
    if (header == NULL) {
        return "give your key: Authorization: Bearer mp2_…";
    }
    if (strncasecmp(header, "Bearer ", 7) != 0) {
        return "the Authorization header must be: Bearer mp2_…";
    }
    const char *key = header + 7 + strspn(header + 7, " ");
    unsigned char hash[STORE_KEY_HASH_BYTES];
    if (!auth_hash(key, hash)) {
        return refused;
    }
    const struct key_entry *entry = find_hash(auth, hash);
    if (entry == NULL || (entry->expires != 0 && entry->expires <= now) ||
        entry->tenant->disabled) {
        return refused;
    }
    who->tenant = entry->tenant;
    memcpy(who->key_id, entry->id, sizeof who->key_id);
    who->scopes = entry->scopes;
    who->key_quota = entry->quota;
    if (who->key_quota != NULL) {
        who->key_quota->refs++;
    }
    return NULL;
}

void auth_leave(struct auth_identity *who)
{
    give_quota(who->key_quota);
    who->key_quota = NULL;
}

void auth_make_key(char key[AUTH_KEY_CHARS + 1], char id[AUTH_KEY_ID_CHARS + 1],
                   unsigned char hash[STORE_KEY_HASH_BYTES])
{
    unsigned char secret[32], public[8];
    randombytes_buf(secret, sizeof secret);
    randombytes_buf(public, sizeof public);
    memcpy(key, "mp2_", 4);
    sodium_bin2base64(key + 4, AUTH_KEY_CHARS - 4 + 1, secret, sizeof secret,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    memcpy(id, "key_", 4);
    sodium_bin2hex(id + 4, AUTH_KEY_ID_CHARS - 4 + 1, public, sizeof public);
    crypto_hash_sha256(hash, (const unsigned char *)key, AUTH_KEY_CHARS);
    sodium_memzero(secret, sizeof secret);
}

bool auth_hash(const char *key, unsigned char hash[STORE_KEY_HASH_BYTES])
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if (strncmp(key, "mp2_", 4) != 0 || strlen(key) != AUTH_KEY_CHARS ||
        strspn(key + 4, alphabet) != AUTH_KEY_CHARS - 4) {
        return false;
    }
    crypto_hash_sha256(hash, (const unsigned char *)key, AUTH_KEY_CHARS);
    return true;
}

/* ---- scopes and names -------------------------------------------------------------------------------- */

static uint32_t scope_bit(const char *word, size_t len)
{
    for (size_t i = 0; auth_scopes[i].name != NULL; i++) {
        if (strlen(auth_scopes[i].name) == len && memcmp(auth_scopes[i].name, word, len) == 0) {
            return auth_scopes[i].bit;
        }
    }
    return 0;
}

bool auth_scopes_parse(const char *text, uint32_t *scopes)
{
    *scopes = 0;
    while (true) {
        size_t len = strcspn(text, ",");
        uint32_t bit = scope_bit(text, len);
        if (bit == 0) {
            return false;
        }
        *scopes |= bit;
        if (text[len] == '\0') {
            return true;
        }
        text += len + 1;
    }
}

void auth_scopes_text(uint32_t scopes, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; auth_scopes[i].name != NULL; i++) {
        if ((scopes & auth_scopes[i].bit) != 0 && at < size) {
            int n = snprintf(text + at, size - at, "%s%s", at > 0 ? "," : "", auth_scopes[i].name);
            at += n > 0 ? (size_t)n : 0;
        }
    }
}

bool auth_tenant_name_ok(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t len = strlen(name);
    return len >= 1 && len <= 64 && strspn(name, allowed) == len && name[0] != '-' &&
           name[0] != '_';
}
