/* test_tasks_load.c: what a start reads from the database: every task with its own labels, route and
 * current version, however many sets of labels there are. */
#include "server/tasks.h"
#include "tests/unit/boot_model.h"
#include "tests/unit/store_test.h"

static eng_model *model;
static eng_bank *bank;

#define TASKS 1000
#define SETS  400 /* of labels: more than are kept while reading */

static int64_t add(store *s, int64_t tenant, const char *name, const char *labels, float first)
{
    const float route[8] = {first, 1, 2, 3, 4, 5, 6, 7};
    const store_task task = {
        .tenant = tenant, .name = name, .type = "classification", .labels = labels, .created = 1};
    const store_version version = {.route = {route, sizeof route},
                                   .method = "route",
                                   .model_fingerprint = eng_model_get_info(model)->fingerprint,
                                   .bank_fingerprint = eng_bank_get_info(bank)->fingerprint,
                                   .bank = "shallow",
                                   .created = 1};
    store_error err;
    int64_t id = 0;
    CHECK(store_task_create(s, &task, &version, &id, &err) == STORE_OK);
    return id;
}

static void labels_of(int i, char first[16], char second[16])
{
    snprintf(first, 16, "yes%d", i % SETS);
    snprintf(second, 16, "no%d", i % SETS);
}

/* Of the tasks task-0 … those that differ from what was stored. */
static size_t wrong_tasks(const struct registry *registry, const int64_t tenants[2])
{
    size_t wrong = 0;
    for (int i = 0; i < TASKS; i++) {
        struct reg_task_view view;
        char name[32], first[16], second[16];
        labels_of(i, first, second);
        int len = snprintf(name, sizeof name, "task-%d", i);
        if (!registry_find(registry, tenants[i % 2], name, (size_t)len, &view)) {
            wrong++;
            continue;
        }
        const struct form *form = view.current->form;
        wrong += view.current->route[0] != (float)i || view.current->route_len != 8 ||
                 view.current->number != 1 || form->n_labels != 2 ||
                 form->labels[0].len != strlen(first) || form->labels[1].len != strlen(second) ||
                 memcmp(form->labels[0].data, first, strlen(first)) != 0 ||
                 memcmp(form->labels[1].data, second, strlen(second)) != 0;
    }
    return wrong;
}

static void every_task_as_it_was_stored(void)
{
    store *s = open_fresh(NULL);
    store_error err;
    eng_error engine_err;
    struct registry *registry = NULL;
    int64_t tenants[2] = {0};
    size_t loaded = 0, refused = 0;
    OK(store_tenant_create(s, "a", NULL, 1, &tenants[0], &err));
    OK(store_tenant_create(s, "b", NULL, 1, &tenants[1], &err));
    OK(store_begin(s, &err));
    for (int i = 0; i < TASKS; i++) {
        char name[32], first[16], second[16], labels[64];
        labels_of(i, first, second);
        snprintf(name, sizeof name, "task-%d", i);
        snprintf(labels, sizeof labels, "[\"%s\", \"%s\"]", first, second);
        add(s, tenants[i % 2], name, labels, (float)i);
    }
    add(s, tenants[0], "numbers", "[1, 2]", 0);
    add(s, tenants[0], "numbers-again", "[1, 2]", 0);
    int64_t gone = add(s, tenants[0], "gone", "[\"a\", \"b\"]", 0), id = 0, n = 0;
    const store_task empty = {
        .tenant = tenants[0], .name = "empty", .type = "extractive", .created = 1};
    OK(store_task_create(s, &empty, NULL, &id, &err));
    OK(store_commit(s, &err));
    OK(store_task_delete(s, tenants[0], gone, 2, &err));
    OK(store_tasks_count(s, &n, &err));
    CHECK_INT(n, TASKS + 4);
    REQUIRE(registry_new(model, &bank, 1, &registry, &engine_err) == ENG_OK);
    OK(tasks_load(s, registry, &loaded, &refused, &err));
    CHECK_INT(loaded, TASKS);
    CHECK_INT(refused, 2);
    CHECK_INT(registry_count(registry), TASKS);
    CHECK_INT(wrong_tasks(registry, tenants), 0);
    registry_free(registry);
    close_fresh(s);
}

int main(void)
{
    TESTS_BEGIN;
    if (!boot_model_open(&model, &bank)) {
        return 1;
    }
    RUN(every_task_as_it_was_stored);
    eng_bank_free(bank);
    eng_model_free(model);
    TESTS_END;
}
