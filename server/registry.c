/* registry.c: tasks by name and by id, their current versions, and publishing.
 *
 * Two hash tables over one node a task: by (tenant, name) for requests, by (tenant, id) for the store's
 * changes and for "ft:" ids. Chains hang in the nodes, so a task costs one node (with its name), one
 * version (with its route) and two bucket pointers: some 200 bytes with a shallow route. Tables double
 * when full; nothing moves otherwise. A list per tenant serves "nearest name" and enumeration.
 *
 * Counts are plain integers: all of this belongs to the loop thread (registry.h).
 */
#include "server/registry_parts.h"

#include "server/fault.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- hashes -------------------------------------------------------------------------------- */

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    uint64_t hash = seed ^ 0xCBF29CE484222325u;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    }
    hash ^= hash >> 32;
    hash *= 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 29);
}

static uint32_t name_hash(int64_t tenant, const char *name, size_t len)
{
    return (uint32_t)hash_bytes((uint64_t)tenant * 0x9E3779B97F4A7C15u, name, len);
}

static size_t name_bucket(uint32_t hash, size_t n_buckets)
{
    return hash & (n_buckets - 1);
}

/* The store counts ids up: they fill buckets evenly as they are, and neighbours lie beside each other. */
static size_t id_bucket(int64_t id, size_t n_buckets)
{
    return (size_t)id & (n_buckets - 1);
}

/* ---- making and ending --------------------------------------------------------------------- */

eng_status registry_new(const eng_model *model, eng_bank *const *banks, size_t n_banks,
                        struct registry **out, eng_error *err)
{
    *out = NULL;
    if (n_banks == 0 || n_banks > REG_MAX_BANKS) {
        return fault(err, ENG_EINVAL, "banks", "a registry takes 1 to %d banks, got %zu",
                     REG_MAX_BANKS, n_banks);
    }
    struct registry *registry = calloc(1, sizeof *registry);
    if (registry == NULL || pthread_mutex_init(&registry->compiling, NULL) != 0) {
        free(registry);
        return fault_nomem(err, "registry");
    }
    registry->model = model;
    registry->n_banks = n_banks;
    memcpy(registry->banks, banks, n_banks * sizeof banks[0]);
    *out = registry;
    return ENG_OK;
}

void registry_free(struct registry *registry)
{
    if (registry == NULL) {
        return;
    }
    for (size_t i = 0; i < registry->n_buckets; i++) {
        struct task_node *node = registry->by_name[i];
        while (node != NULL) {
            struct task_node *next = node->next_by_name;
            version_drop(registry, node->current);
            free(node);
            node = next;
        }
    }
    drop_pins(registry, 0);
    forms_fini(registry);
    for (size_t i = 0; i < registry->n_tenant_buckets; i++) {
        struct tenant_node *tenant = registry->tenants[i];
        while (tenant != NULL) {
            struct tenant_node *next = tenant->next;
            free(tenant);
            tenant = next;
        }
    }
    free(registry->tenants);
    free(registry->by_name);
    free(registry->by_id);
    pthread_mutex_destroy(&registry->compiling);
    free(registry);
}

size_t registry_count(const struct registry *registry)
{
    return registry->n_tasks;
}

size_t registry_bytes(const struct registry *registry)
{
    return registry->bytes + 2 * registry->n_buckets * sizeof *registry->by_name +
           registry->n_tenant_buckets * sizeof *registry->tenants;
}

size_t registry_compiled(const struct registry *registry)
{
    return atomic_load(&registry->n_compiled);
}

const eng_bank *registry_default_bank(const struct registry *registry)
{
    return registry->banks[0];
}

const eng_model *registry_model(const struct registry *registry)
{
    return registry->model;
}

/* ---- tenants ------------------------------------------------------------------------------- */

static struct tenant_node *find_tenant(const struct registry *registry, int64_t id)
{
    if (registry->n_tenant_buckets == 0) {
        return NULL;
    }
    struct tenant_node *tenant = registry->tenants[id_bucket(id, registry->n_tenant_buckets)];
    while (tenant != NULL && tenant->id != id) {
        tenant = tenant->next;
    }
    return tenant;
}

static bool grow_tenants(struct registry *registry)
{
    size_t n = registry->n_tenant_buckets == 0 ? 64 : registry->n_tenant_buckets * 2;
    struct tenant_node **tenants = calloc(n, sizeof(struct tenant_node *));
    if (tenants == NULL) {
        return false;
    }
    for (size_t i = 0; i < registry->n_tenant_buckets; i++) {
        struct tenant_node *tenant = registry->tenants[i];
        while (tenant != NULL) {
            struct tenant_node *next = tenant->next;
            struct tenant_node **bucket = &tenants[id_bucket(tenant->id, n)];
            tenant->next = *bucket;
            *bucket = tenant;
            tenant = next;
        }
    }
    free(registry->tenants);
    registry->tenants = tenants;
    registry->n_tenant_buckets = n;
    return true;
}

static struct tenant_node *get_tenant(struct registry *registry, int64_t id)
{
    struct tenant_node *tenant = find_tenant(registry, id);
    if (tenant != NULL) {
        return tenant;
    }
    if (registry->n_tenants >= registry->n_tenant_buckets && !grow_tenants(registry)) {
        return NULL;
    }
    tenant = calloc(1, sizeof *tenant);
    if (tenant == NULL) {
        return NULL;
    }
    tenant->id = id;
    struct tenant_node **bucket = &registry->tenants[id_bucket(id, registry->n_tenant_buckets)];
    tenant->next = *bucket;
    *bucket = tenant;
    registry->n_tenants++;
    registry->bytes += sizeof *tenant + MALLOC_OVERHEAD;
    return tenant;
}

/* ---- the tables of tasks ------------------------------------------------------------------- */

static struct task_node *find_name(const struct registry *registry, int64_t tenant,
                                   const char *name, size_t len)
{
    if (registry->n_buckets == 0) {
        return NULL;
    }
    uint32_t hash = name_hash(tenant, name, len);
    struct task_node *node = registry->by_name[name_bucket(hash, registry->n_buckets)];
    while (node != NULL && (node->hash != hash || strncmp(node->name, name, len) != 0 ||
                            node->name[len] != '\0' || node->tenant->id != tenant)) {
        node = node->next_by_name;
    }
    return node;
}

static struct task_node *find_id(const struct registry *registry, int64_t tenant, int64_t task)
{
    if (registry->n_buckets == 0) {
        return NULL;
    }
    struct task_node *node = registry->by_id[id_bucket(task, registry->n_buckets)];
    while (node != NULL && (node->id != task || node->tenant->id != tenant)) {
        node = node->next_by_id;
    }
    return node;
}

static void link_name(struct registry *registry, struct task_node *node)
{
    struct task_node **bucket = &registry->by_name[name_bucket(node->hash, registry->n_buckets)];
    node->next_by_name = *bucket;
    *bucket = node;
}

static void link_id(struct registry *registry, struct task_node *node)
{
    struct task_node **bucket = &registry->by_id[id_bucket(node->id, registry->n_buckets)];
    node->next_by_id = *bucket;
    *bucket = node;
}

static void unlink_name(struct registry *registry, struct task_node *node)
{
    struct task_node **link = &registry->by_name[name_bucket(node->hash, registry->n_buckets)];
    while (*link != node) {
        link = &(*link)->next_by_name;
    }
    *link = node->next_by_name;
}

static void unlink_id(struct registry *registry, struct task_node *node)
{
    struct task_node **link = &registry->by_id[id_bucket(node->id, registry->n_buckets)];
    while (*link != node) {
        link = &(*link)->next_by_id;
    }
    *link = node->next_by_id;
}

static bool grow_tasks(struct registry *registry, size_t n)
{
    size_t old = registry->n_buckets;
    struct task_node **by_name = calloc(n, sizeof(struct task_node *));
    struct task_node **by_id = calloc(n, sizeof(struct task_node *));
    if (by_name == NULL || by_id == NULL) {
        free(by_name);
        free(by_id);
        return false;
    }
    struct task_node **before = registry->by_name;
    free(registry->by_id);
    registry->by_name = by_name;
    registry->by_id = by_id;
    registry->n_buckets = n;
    for (size_t i = 0; i < old; i++) {
        struct task_node *node = before[i];
        while (node != NULL) {
            struct task_node *next = node->next_by_name;
            link_name(registry, node);
            link_id(registry, node);
            node = next;
        }
    }
    free(before);
    return true;
}

bool registry_reserve(struct registry *registry, size_t tasks)
{
    size_t n = registry->n_buckets == 0 ? 64 : registry->n_buckets;
    while (n < tasks && n < REG_MAX_RESERVED) {
        n *= 2;
    }
    return n == registry->n_buckets || grow_tasks(registry, n);
}

static size_t node_bytes(size_t name_len)
{
    size_t bytes = offsetof(struct task_node, name) + name_len + 1;
    return bytes > sizeof(struct task_node) ? bytes : sizeof(struct task_node);
}

static void link_of_tenant(struct task_node *node)
{
    node->previous_of_tenant = NULL;
    node->next_of_tenant = node->tenant->newest;
    if (node->next_of_tenant != NULL) {
        node->next_of_tenant->previous_of_tenant = node;
    }
    node->tenant->newest = node;
}

static void unlink_of_tenant(struct task_node *node)
{
    if (node->previous_of_tenant != NULL) {
        node->previous_of_tenant->next_of_tenant = node->next_of_tenant;
    } else {
        node->tenant->newest = node->next_of_tenant;
    }
    if (node->next_of_tenant != NULL) {
        node->next_of_tenant->previous_of_tenant = node->previous_of_tenant;
    }
}

static struct task_node *add_node(struct registry *registry, int64_t tenant_id, int64_t task,
                                  const char *name)
{
    if (registry->n_tasks >= registry->n_buckets &&
        !grow_tasks(registry, registry->n_buckets == 0 ? 64 : registry->n_buckets * 2)) {
        return NULL;
    }
    struct tenant_node *tenant = get_tenant(registry, tenant_id);
    size_t len = strlen(name);
    struct task_node *node = tenant != NULL ? calloc(1, node_bytes(len)) : NULL;
    if (node == NULL) {
        return NULL;
    }
    node->tenant = tenant;
    node->id = task;
    node->hash = name_hash(tenant_id, name, len);
    memcpy(node->name, name, len + 1);
    link_name(registry, node);
    link_id(registry, node);
    link_of_tenant(node);
    registry->n_tasks++;
    registry->bytes += node_bytes(len) + MALLOC_OVERHEAD;
    return node;
}

/* ---- changes ------------------------------------------------------------------------------- */

static eng_status check_publication(const struct registry *registry, const reg_publication *pub,
                                    eng_error *err)
{
    const char *why = task_name_fault(pub->name);
    if (why != NULL) {
        return fault(err, ENG_EINVAL, "name", "%s", why);
    }
    const struct task_node *holder = find_name(registry, pub->tenant, pub->name, strlen(pub->name));
    if (holder != NULL && holder->id != pub->task) {
        return fault(err, ENG_EINVAL, "name", "another task is named \"%s\"", pub->name);
    }
    return ENG_OK;
}

eng_status registry_publish(struct registry *registry, const reg_publication *pub, eng_error *err)
{
    struct version *version = NULL;
    eng_status status = check_publication(registry, pub, err);
    if (status == ENG_OK) {
        status = version_new(registry, pub, &version, err);
    }
    if (status != ENG_OK) {
        return status;
    }
    struct task_node *node = find_id(registry, pub->tenant, pub->task);
    if (node == NULL) {
        node = add_node(registry, pub->tenant, pub->task, pub->name);
    } else if (strcmp(node->name, pub->name) != 0 &&
               !registry_rename(registry, pub->tenant, pub->task, pub->name)) {
        node = NULL;
    } else {
        node = find_id(registry, pub->tenant, pub->task);
    }
    if (node == NULL) {
        version_drop(registry, version);
        return fault_nomem(err, "task");
    }
    struct version *before = node->current;
    node->current = version;
    drop_pins(registry, pub->task);
    version_drop(registry, before);
    return ENG_OK;
}

bool registry_remove(struct registry *registry, int64_t tenant, int64_t task)
{
    struct task_node *node = find_id(registry, tenant, task);
    if (node == NULL) {
        return false;
    }
    unlink_name(registry, node);
    unlink_id(registry, node);
    unlink_of_tenant(node);
    registry->n_tasks--;
    registry->bytes -= node_bytes(strlen(node->name)) + MALLOC_OVERHEAD;
    version_drop(registry, node->current);
    drop_pins(registry, task);
    free(node);
    return true;
}

bool registry_rename(struct registry *registry, int64_t tenant, int64_t task, const char *name)
{
    struct task_node *node = find_id(registry, tenant, task);
    if (node == NULL || task_name_fault(name) != NULL) {
        return false;
    }
    const struct task_node *holder = find_name(registry, tenant, name, strlen(name));
    if (holder != NULL) {
        return holder == node;
    }
    struct task_node *renamed = add_node(registry, tenant, task, name);
    if (renamed == NULL) {
        return false;
    }
    renamed->current = node->current;
    node->current = NULL;
    unlink_name(registry, node);
    unlink_id(registry, node);
    unlink_of_tenant(node);
    registry->n_tasks--;
    registry->bytes -= node_bytes(strlen(node->name)) + MALLOC_OVERHEAD;
    free(node);
    return true;
}

/* ---- look-ups ------------------------------------------------------------------------------ */

static bool show(const struct task_node *node, struct reg_task_view *out)
{
    memset(out, 0, sizeof *out);
    if (node == NULL) {
        return false;
    }
    *out = (struct reg_task_view){.id = node->id, .name = node->name, .current = node->current};
    return true;
}

bool registry_find(const struct registry *registry, int64_t tenant, const char *name, size_t len,
                   struct reg_task_view *out)
{
    return show(find_name(registry, tenant, name, len), out);
}

bool registry_find_id(const struct registry *registry, int64_t tenant, int64_t task,
                      struct reg_task_view *out)
{
    return show(find_id(registry, tenant, task), out);
}

void registry_each(const struct registry *registry, int64_t tenant,
                   bool (*each)(void *arg, const struct reg_task_view *task), void *arg)
{
    const struct tenant_node *own = find_tenant(registry, tenant);
    const struct task_node *node = own != NULL ? own->newest : NULL;
    struct reg_task_view view;
    while (node != NULL && show(node, &view) && each(arg, &view)) {
        node = node->next_of_tenant;
    }
}

const char *registry_nearest(const struct registry *registry, int64_t tenant, const char *name)
{
    const struct tenant_node *own = find_tenant(registry, tenant);
    const struct task_node *node = own != NULL ? own->newest : NULL;
    size_t len = strlen(name);
    size_t best = len / 6 + 1;
    const char *nearest = NULL;
    for (size_t seen = 0; node != NULL && seen < NEAREST_NAMES; seen++) {
        size_t distance = name_distance(node->name, name, best);
        if (distance < best || (distance == best && nearest == NULL)) {
            best = distance;
            nearest = node->name;
        }
        node = node->next_of_tenant;
    }
    return nearest;
}
