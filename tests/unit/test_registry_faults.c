/* test_registry_faults.c: every allocation of registry and queue fails in its turn. The answer is out of
 * memory, what was there stays as it was, and nothing stays behind. */
#include "server/queue.h"
#include "server/registry.h"
#include "tests/unit/boot_model.h"
#include "tests/unit/failing_malloc.h"
#include "tests/unit/test.h"

static eng_model *model;
static eng_bank *bank;

static const eng_text words[2] = {{"负面", 6}, {"正面", 6}};

static eng_status publish(struct registry *registry, int64_t task, const char *name,
                          const eng_text *labels, float first)
{
    const eng_task_spec spec = {.type = ENG_CLASSIFICATION, .labels = labels, .n_labels = 2};
    float route[8] = {first};
    const reg_publication pub = {.tenant = task % 3,
                                 .task = task,
                                 .name = name,
                                 .spec = &spec,
                                 .number = 1,
                                 .route = route,
                                 .route_len = 8};
    eng_error err;
    return registry_publish(registry, &pub, &err);
}

/* Tasks with forms of their own, so that every table has to grow. */
static eng_status publish_many(struct registry *registry)
{
    eng_status status = ENG_OK;
    for (int64_t i = 1; i <= 150 && status == ENG_OK; i++) {
        char name[16], text[16];
        int len = snprintf(text, sizeof text, "w%03d", (int)i);
        const eng_text labels[2] = {{text, (size_t)len}, {"no", 2}};
        snprintf(name, sizeof name, "task-%d", (int)i);
        status = publish(registry, i, name, labels, (float)i);
    }
    return status;
}

static eng_status use(struct registry *registry)
{
    struct reg_task_view view;
    struct version *bound = NULL, *made = NULL;
    const struct version *pinned = NULL;
    eng_error err;
    if (!registry_find_id(registry, 0, 3, &view)) {
        return ENG_EINVAL;
    }
    const eng_task_spec spec = {.type = ENG_PAIR, .labels = words, .n_labels = 2};
    const reg_publication pub = {.task = 3, .spec = &spec, .number = 7};
    eng_status status = registry_bind(registry, view.current, &bound, &err);
    if (status == ENG_OK) {
        status = registry_inline(registry, &pub, &made, &err);
    }
    if (status == ENG_OK) {
        status = registry_pin(registry, &pub, &pinned, &err);
    }
    if (status == ENG_OK && !registry_rename(registry, 0, 3, "another name")) {
        status = ENG_ENOMEM;
        CHECK(registry_find(registry, 0, "task-3", 6, &view) && view.id == 3);
    }
    if (status == ENG_OK) {
        status = publish(registry, 6, "task-6", words, -1);
        CHECK(registry_find_id(registry, 0, 6, &view));
        CHECK(view.current->route[0] == (status == ENG_OK ? -1.0F : 6.0F));
    }
    version_release(registry, bound);
    version_release(registry, made);
    return status;
}

static eng_status registry_scenario(void)
{
    struct registry *registry = NULL;
    eng_error err;
    eng_status status = registry_new(model, &bank, 1, &registry, &err);
    if (status == ENG_OK) {
        status = publish_many(registry);
    }
    if (status == ENG_OK) {
        status = use(registry);
    }
    registry_free(registry);
    return status;
}

static eng_status queue_scenario(void)
{
    static struct fair_item items[100];
    static const struct fair_load no_limit, one = {1, 1, 1};
    struct fair_queue queue;
    eng_status status = ENG_OK;
    fair_init(&queue, &no_limit);
    memset(items, 0, sizeof items);
    for (uint64_t i = 0; i < 100 && status == ENG_OK; i++) {
        bool in = fair_admit(&queue, i, &one) == FAIR_ADMITTED;
        status = in && fair_push(&queue, i, 1, &items[i]) ? ENG_OK : ENG_ENOMEM;
    }
    for (size_t i = 0; i < 100; i++) {
        fair_remove(&queue, &items[i]);
    }
    CHECK(fair_next(&queue) == NULL);
    fair_fini(&queue);
    return status;
}

static void fail_in_turn(eng_status (*scenario)(void), long least)
{
    eng_status status = ENG_ENOMEM;
    long n = 0;
    while (status == ENG_ENOMEM && n < 5000) {
        long before = alive;
        until_failure = ++n;
        status = scenario();
        until_failure = 0;
        CHECK_INT(alive, before);
    }
    CHECK_INT(status, ENG_OK);
    CHECK(n > least);
    printf("%ld allocations failed in turn\n", n - 1);
}

static void the_registry_survives(void)
{
    if (!OWN_MALLOC) {
        SKIP("the sanitizer has its own malloc");
    }
    fail_in_turn(registry_scenario, 400);
}

static void the_queue_survives(void)
{
    if (!OWN_MALLOC) {
        SKIP("the sanitizer has its own malloc");
    }
    fail_in_turn(queue_scenario, 100);
}

int main(void)
{
    TESTS_BEGIN;
    if (!boot_model_open(&model, &bank)) {
        return 1;
    }
    RUN(the_registry_survives);
    RUN(the_queue_survives);
    eng_bank_free(bank);
    eng_model_free(model);
    TESTS_END;
}
