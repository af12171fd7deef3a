/* registry_parts.h (private to registry*.c, version.c, taskname.c): the structs behind registry.h. */
#ifndef SERVER_REGISTRY_PARTS_H
#define SERVER_REGISTRY_PARTS_H

#include "server/registry.h"

#include <pthread.h>
#include <stdatomic.h>

#define REG_MAX_BANKS    16
#define REG_MAX_RESERVED ((size_t)1 << 26) /* buckets: a count from a file is not believed beyond */
#define RECENT_INLINE    256               /* forms of inline tasks kept compiled */
#define MAX_COMPILED     4096 /* forms kept compiled, some 10 KiB each; those in use stay beyond */
#define MAX_PINS         256
#define NEAREST_NAMES    1000 /* names compared for a "did you mean" */
#define MALLOC_OVERHEAD  16   /* a fair guess, for registry_bytes */

struct tenant_node {
    int64_t id;
    struct task_node *newest;
    struct tenant_node *next;
};

struct task_node {
    struct tenant_node *tenant;
    int64_t id;
    struct version *current;
    struct task_node *next_by_name, *next_by_id;
    struct task_node *next_of_tenant, *previous_of_tenant;
    uint32_t hash; /* of tenant and name: chains are walked without touching other memory */
    char name[];
};

/* An interned form: the public part first. Labels and their text lie behind the struct. */
struct form_node {
    struct form form;
    struct registry *registry;
    size_t refs, bytes;
    size_t users; /* of refs, those handed out: such a form keeps what was compiled */
    uint64_t hash;
    struct form_node *next;
    struct form_node *newer, *older; /* in the order of last use, once used */
    _Atomic(eng_task *) compiled;    /* written under registry->compiling */
};

/* Behind the route of a version with tuned parts, and of no other: a million routes pay nothing. */
struct tuned {
    int64_t tenant, task;
    size_t users;          /* times the version is handed out; while there are any … */
    struct prompt *prompt; /* … this is held, once it was read */
};

/* A version behind its count. */
struct version_node {
    size_t refs;
    struct version version; /* last: it ends in the route */
};

struct base_node {
    struct base base;
    struct base_node *next;
};

struct pin {
    int64_t task;            /* 0: never used, nor the places behind it */
    struct version *version; /* NULL: dropped */
};

struct registry {
    const eng_model *model;
    const eng_bank *banks[REG_MAX_BANKS];
    size_t n_banks;

    struct task_node **by_name, **by_id; /* n_buckets each, a power of two */
    size_t n_buckets, n_tasks;
    struct tenant_node **tenants;
    size_t n_tenant_buckets, n_tenants;

    struct form_node **forms;
    size_t n_form_buckets, n_forms;
    struct form_node *newest_used, *oldest_used;
    atomic_size_t n_compiled;
    struct form_node *recent[RECENT_INLINE];
    size_t next_recent;
    struct pin pins[MAX_PINS];
    size_t next_pin;
    struct base_node *bases; /* few: one a pair of fingerprints ever seen */

    size_t bytes;
    pthread_mutex_t compiling;
};

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len);
/* The registry's own reference is dropped with version_drop, one handed out with version_release. */
void version_drop(struct registry *registry, struct version *version);
ENG_MUST_CHECK eng_status version_new(struct registry *registry, const reg_publication *pub,
                                      struct version **out, eng_error *err);
/* NULL: the version has no tuned parts. */
struct tuned *version_tuned(const struct version *version);
/* Takes the held `prompt` over, until the last who was handed the version gives it back. */
void version_give_prompt(struct version *version, struct prompt *prompt);
/* prompts.c: a held prompt. */
void prompt_hold(struct prompt *prompt);
void prompt_release(struct prompt *prompt);
const float *prompt_floats(const struct prompt *prompt);
const float *prompt_head(const struct prompt *prompt);
/* Drops the pins of one task; 0: of all. */
void drop_pins(struct registry *registry, int64_t task);
/* Frees what is left of forms and bases; versions are gone already. */
void forms_fini(struct registry *registry);
/* Edit distance in bytes, or something above `limit`. */
size_t name_distance(const char *a, const char *b, size_t limit);

#endif
