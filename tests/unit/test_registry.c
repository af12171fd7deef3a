/* test_registry.c: tasks in memory: look-up, publishing, binding, names. */
#include "server/registry.h"
#include "tests/unit/boot_model.h"
#include "tests/unit/test.h"

#include <time.h>

static eng_model *model;
static eng_bank *bank;

static const eng_text words[2] = {{"负面", 6}, {"正面", 6}};
static const eng_text other_words[2] = {{"是", 3}, {"否", 3}};
static const eng_task_spec sentiment = {.type = ENG_CLASSIFICATION, .labels = words, .n_labels = 2};
static const eng_task_spec yes_no = {
    .type = ENG_CLASSIFICATION, .labels = other_words, .n_labels = 2};

static struct registry *open_registry(void)
{
    struct registry *registry = NULL;
    eng_error err;
    CHECK(registry_new(model, &bank, 1, &registry, &err) == ENG_OK);
    return registry;
}

static eng_status publish(struct registry *registry, int64_t tenant, int64_t task, const char *name,
                          int64_t number, float first, eng_error *err)
{
    float route[8] = {first, 1, 2, 3, 4, 5, 6, 7};
    const reg_publication pub = {.tenant = tenant,
                                 .task = task,
                                 .name = name,
                                 .spec = &sentiment,
                                 .number = number,
                                 .route = route,
                                 .route_len = 8};
    return registry_publish(registry, &pub, err);
}

static bool has(const struct registry *registry, int64_t tenant, const char *name,
                struct reg_task_view *view)
{
    return registry_find(registry, tenant, name, strlen(name), view);
}

static void finds_only_the_tenants_own(void)
{
    struct registry *registry = open_registry();
    struct reg_task_view view;
    eng_error err;
    CHECK(!has(registry, 1, "reviews", &view));
    CHECK(publish(registry, 1, 10, "reviews", 1, 0.5F, &err) == ENG_OK);
    CHECK(publish(registry, 2, 11, "reviews", 1, 0.25F, &err) == ENG_OK);
    REQUIRE(has(registry, 1, "reviews", &view));
    CHECK(view.id == 10 && view.current->number == 1);
    CHECK_NEAR(view.current->route[0], 0.5, 0);
    CHECK(has(registry, 2, "reviews", &view) && view.id == 11);
    CHECK(!has(registry, 3, "reviews", &view));
    CHECK(!has(registry, 1, "review", &view) && !has(registry, 1, "reviewss", &view));
    CHECK(!registry_find_id(registry, 2, 10, &view));
    CHECK(!registry_remove(registry, 2, 10));
    CHECK_INT(registry_count(registry), 2);
    registry_free(registry);
}

static void a_bound_version_survives_publishing_and_removal(void)
{
    struct registry *registry = open_registry();
    struct reg_task_view view;
    struct version *first = NULL, *second = NULL;
    eng_error err;
    CHECK(publish(registry, 1, 10, "reviews", 1, 0.5F, &err) == ENG_OK);
    REQUIRE(has(registry, 1, "reviews", &view));
    REQUIRE(registry_bind(registry, view.current, &first, &err) == ENG_OK);
    CHECK(publish(registry, 1, 10, "reviews", 2, 0.75F, &err) == ENG_OK);
    REQUIRE(has(registry, 1, "reviews", &view));
    CHECK(view.current->number == 2);
    REQUIRE(registry_bind(registry, view.current, &second, &err) == ENG_OK);
    CHECK(first->form == second->form);                                  /* interned */
    CHECK(publish(registry, 1, 10, "reviews", 1, 0.5F, &err) == ENG_OK); /* rolled back */
    REQUIRE(has(registry, 1, "reviews", &view));
    CHECK(view.current->number == 1);
    CHECK(registry_remove(registry, 1, 10));
    CHECK(!has(registry, 1, "reviews", &view));
    CHECK(first->number == 1 && first->route[0] == 0.5F);
    CHECK(second->number == 2 && second->route[0] == 0.75F);
    version_release(registry, first);
    version_release(registry, second);
    registry_free(registry);
}

static void renames(void)
{
    struct registry *registry = open_registry();
    struct reg_task_view view;
    eng_error err;
    CHECK(publish(registry, 1, 10, "old", 1, 0, &err) == ENG_OK);
    CHECK(publish(registry, 1, 11, "taken", 1, 0, &err) == ENG_OK);
    CHECK(!registry_rename(registry, 1, 10, "taken"));
    CHECK(!registry_rename(registry, 1, 10, "a/b"));
    CHECK(registry_rename(registry, 1, 10, "old"));
    CHECK(registry_rename(registry, 1, 10, "new"));
    CHECK(!has(registry, 1, "old", &view) && has(registry, 1, "new", &view) && view.id == 10);
    CHECK(registry_find_id(registry, 1, 10, &view));
    CHECK_STR(view.name, "new");
    CHECK(publish(registry, 1, 12, "new", 1, 0, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "name");
    CHECK(publish(registry, 1, 10, "newer", 2, 0, &err) == ENG_OK);
    CHECK(has(registry, 1, "newer", &view) && view.current->number == 2);
    CHECK_INT(registry_count(registry), 2);
    registry_free(registry);
}

static void a_wrong_route_is_refused(void)
{
    struct registry *registry = open_registry();
    float route[9] = {0};
    reg_publication pub = {
        .tenant = 1, .task = 1, .name = "a", .spec = &sentiment, .route = route, .route_len = 9};
    eng_error err;
    CHECK(registry_publish(registry, &pub, &err) == ENG_EINVAL);
    CHECK(strstr(err.text, "8 numbers, found 9") != NULL);
    pub.route_len = 8;
    route[3] = NAN;
    CHECK(registry_publish(registry, &pub, &err) == ENG_EINVAL);
    route[3] = INFINITY;
    CHECK(registry_publish(registry, &pub, &err) == ENG_EINVAL);
    CHECK_STR(err.field, "route");
    CHECK_INT(registry_count(registry), 0);
    registry_free(registry);
}

static void a_foreign_version_is_kept_but_not_used(void)
{
    struct registry *registry = open_registry();
    float route[5] = {1, 2, 3, 4, 5};
    reg_publication pub = {.tenant = 1,
                           .task = 1,
                           .name = "a",
                           .spec = &sentiment,
                           .number = 1,
                           .route = route,
                           .route_len = 5,
                           .bank_fingerprint = "0123456789abcdef"};
    struct reg_task_view view;
    struct version *version = NULL;
    eng_error err;
    REQUIRE(registry_publish(registry, &pub, &err) == ENG_OK);
    REQUIRE(has(registry, 1, "a", &view));
    CHECK(registry_bind(registry, view.current, &version, &err) == ENG_EMISMATCH);
    CHECK(version == NULL && strstr(err.text, "0123456789ab") != NULL);
    pub.bank_fingerprint = eng_bank_get_info(bank)->fingerprint;
    pub.model_fingerprint = "fedcba9876543210";
    REQUIRE(registry_publish(registry, &pub, &err) == ENG_OK);
    REQUIRE(has(registry, 1, "a", &view));
    CHECK(registry_bind(registry, view.current, &version, &err) == ENG_EMISMATCH);
    CHECK(strstr(err.text, "backbone fedcba987654") != NULL);
    CHECK(registry_inline(registry, &pub, &version, &err) == ENG_EMISMATCH && version == NULL);
    registry_free(registry);
}

static void inline_tasks_share_forms(void)
{
    struct registry *registry = open_registry();
    const reg_publication pub = {.spec = &sentiment}, other = {.spec = &yes_no};
    struct version *a = NULL, *b = NULL, *c = NULL;
    const eng_task *first = NULL, *again = NULL;
    eng_error err;
    REQUIRE(registry_inline(registry, &pub, &a, &err) == ENG_OK);
    REQUIRE(registry_inline(registry, &pub, &b, &err) == ENG_OK);
    REQUIRE(registry_inline(registry, &other, &c, &err) == ENG_OK);
    CHECK(a->form == b->form && a->form != c->form && a->route_len == 0);
    REQUIRE(form_compile(a->form, &first, &err) == ENG_OK);
    version_release(registry, a);
    version_release(registry, b);
    REQUIRE(registry_inline(registry, &pub, &a, &err) == ENG_OK);
    REQUIRE(form_compile(a->form, &again, &err) == ENG_OK);
    CHECK(first == again); /* still compiled though no request held it */
    version_release(registry, a);
    version_release(registry, c);
    registry_free(registry);
}

/* More inline forms than are remembered come and go: memory stays bounded. */
static void old_inline_forms_are_forgotten(void)
{
    struct registry *registry = open_registry();
    size_t after_first_thousand = 0;
    for (int i = 0; i < 5000; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "label %06d", i);
        const eng_text labels[2] = {{text, (size_t)len}, {"no", 2}};
        const eng_task_spec spec = {.type = ENG_PAIR, .labels = labels, .n_labels = 2};
        const reg_publication pub = {.spec = &spec};
        struct version *version = NULL;
        eng_error err;
        REQUIRE(registry_inline(registry, &pub, &version, &err) == ENG_OK);
        version_release(registry, version);
        if (i == 999) {
            after_first_thousand = registry_bytes(registry);
        }
    }
    CHECK_INT(registry_bytes(registry), after_first_thousand);
    registry_free(registry);
}

/* More forms than stay compiled: those not in use are compiled again when they are asked again. */
static void compiled_forms_are_bounded(void)
{
    enum { FORMS = 5000 };
    struct registry *registry = open_registry();
    const eng_task *task = NULL, *held_task = NULL;
    struct version *held = NULL;
    struct reg_task_view view;
    eng_error err;
    size_t wrong = 0;
    for (int i = 0; i < FORMS; i++) {
        char text[32], name[16];
        int len = snprintf(text, sizeof text, "%04d号", i);
        snprintf(name, sizeof name, "t%d", i);
        const eng_text labels[2] = {{text, (size_t)len}, {"无", 3}};
        const eng_task_spec spec = {.type = ENG_CLASSIFICATION, .labels = labels, .n_labels = 2};
        const reg_publication pub = {
            .tenant = 1, .task = i + 1, .name = name, .spec = &spec, .number = 1};
        REQUIRE(registry_publish(registry, &pub, &err) == ENG_OK);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < FORMS; i++) {
            struct version *version = NULL;
            REQUIRE(registry_find_id(registry, 1, i + 1, &view));
            REQUIRE(registry_bind(registry, view.current, &version, &err) == ENG_OK);
            wrong += form_compile(version->form, &task, &err) != ENG_OK;
            wrong += strncmp(eng_task_label(task, 0), version->form->labels[0].data, 4) != 0;
            if (held == NULL) {
                held = version;
                held_task = task;
            } else {
                version_release(registry, version);
            }
        }
    }
    CHECK_INT(wrong, 0);
    CHECK(registry_compiled(registry) <= 4097);
    CHECK(form_compile(held->form, &task, &err) == ENG_OK && task == held_task);
    version_release(registry, held);
    registry_free(registry);
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Room made beforehand, or in between, loses nothing. */
static void room_is_made_at_any_time(void)
{
    struct registry *registry = open_registry();
    struct reg_task_view view;
    eng_error err;
    char name[32];
    CHECK(registry_reserve(registry, 10));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "task-%d", i);
        CHECK(publish(registry, 1, i + 1, name, 1, (float)i, &err) == ENG_OK);
        CHECK(i % 100 != 50 || registry_reserve(registry, 1000 * (size_t)(i + 1)));
    }
    CHECK(registry_reserve(registry, 0));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "task-%d", i);
        CHECK(has(registry, 1, name, &view) && view.id == i + 1);
        CHECK(registry_find_id(registry, 1, i + 1, &view) && strcmp(view.name, name) == 0);
    }
    registry_free(registry);
}

static void holds_many_tasks(void)
{
    enum { TASKS = 300000, TENANTS = 50 };
    struct registry *registry = open_registry();
    struct reg_task_view view;
    eng_error err;
    char name[32];
    for (int i = 0; i < TASKS; i++) {
        snprintf(name, sizeof name, "task-%07d", i);
        if (publish(registry, i % TENANTS, i + 1, name, 1, (float)i, &err) != ENG_OK) {
            REQUIRE(false);
        }
    }
    CHECK_INT(registry_count(registry), TASKS);
    double each = (double)registry_bytes(registry) / TASKS;
    printf("%.0f bytes a task\n", each);
    CHECK(each < 300);
    size_t wrong = 0;
    double began = seconds_now();
    for (int i = 0; i < TASKS; i++) {
        snprintf(name, sizeof name, "task-%07d", i);
        wrong += !has(registry, i % TENANTS, name, &view) || view.id != i + 1 ||
                 view.current->route[0] != (float)i;
        wrong += has(registry, (i + 1) % TENANTS, name, &view);
    }
    printf("%.0f ns a look-up\n", (seconds_now() - began) * 1e9 / (2 * TASKS));
    CHECK_INT(wrong, 0);
    for (int i = 0; i < TASKS; i += 2) {
        wrong += !registry_remove(registry, i % TENANTS, i + 1);
    }
    for (int i = 0; i < TASKS; i++) {
        wrong += registry_find_id(registry, i % TENANTS, i + 1, &view) != (i % 2 == 1);
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(registry_count(registry), TASKS / 2);
    registry_free(registry);
}

static bool count_up(void *arg, const struct reg_task_view *task)
{
    size_t *n = arg;
    CHECK(task->name[0] == 't');
    return ++*n < 5;
}

static void enumerates_a_tenant(void)
{
    struct registry *registry = open_registry();
    eng_error err;
    size_t n = 0;
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "%c%d", i % 2 == 0 ? 't' : 'u', i);
        CHECK(publish(registry, i % 2, i + 1, name, 1, 0, &err) == ENG_OK);
    }
    registry_each(registry, 0, count_up, &n);
    CHECK_INT(n, 5);
    registry_each(registry, 77, count_up, &n);
    CHECK_INT(n, 5);
    registry_free(registry);
}

static void names_the_nearest(void)
{
    struct registry *registry = open_registry();
    eng_error err;
    CHECK(registry_nearest(registry, 1, "reviews") == NULL);
    CHECK(publish(registry, 1, 1, "reviews", 1, 0, &err) == ENG_OK);
    CHECK(publish(registry, 1, 2, "tickets", 1, 0, &err) == ENG_OK);
    CHECK(publish(registry, 2, 3, "reviewz", 1, 0, &err) == ENG_OK);
    CHECK_STR(registry_nearest(registry, 1, "review"), "reviews");
    CHECK_STR(registry_nearest(registry, 1, "reviewz"), "reviews");
    CHECK_STR(registry_nearest(registry, 1, "tikets"), "tickets");
    CHECK(registry_nearest(registry, 1, "weather-forecast") == NULL);
    CHECK(registry_nearest(registry, 3, "reviews") == NULL);
    registry_free(registry);
}

static void names_are_checked(void)
{
    char long_name[REG_MAX_NAME + 2];
    memset(long_name, 'x', sizeof long_name);
    long_name[REG_MAX_NAME + 1] = '\0';
    const char *const bad[] = {NULL, "",   "a/b", "a:b", "a@1", "..",
                               " a", "a ", "a\n", "a%b", "a?b", long_name};
    const char *const good[] = {"reviews", "情感", "a.b-c_d 2", "…"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(task_name_fault(bad[i]) != NULL);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(task_name_fault(good[i]) == NULL);
    }
    long_name[REG_MAX_NAME] = '\0';
    CHECK(task_name_fault(long_name) == NULL);
}

static void ft_ids_go_there_and_back(void)
{
    char id[256];
    int64_t task = 0, number = 0;
    ft_format(id, sizeof id, "boot", "acme", "re:views", 12, 3);
    CHECK_STR(id, "ft:boot:acme:re:views:12-3");
    CHECK(ft_parse(id, "acme", &task, &number) && task == 12 && number == 3);
    CHECK(!ft_parse(id, "acm", &task, &number) && !ft_parse(id, "other", &task, &number));
    const char *const bad[] = {"ft:",
                               "ft:boot",
                               "ft:boot:acme",
                               "ft:boot:acme:",
                               "ft:boot:acme::12",
                               "ft:boot:acme::-3",
                               "ft:boot:acme::12-",
                               "ft:boot:acme::0-1",
                               "ft:boot:acme::12-3x",
                               "ft:boot:acme::99999999999999999999-1",
                               "xx:boot:acme::12-3",
                               "ft:boot:acme12-3"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!ft_parse(bad[i], "acme", &task, &number));
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(names_are_checked);
    RUN(ft_ids_go_there_and_back);
    if (!boot_model_open(&model, &bank)) {
        return 1;
    }
    RUN(finds_only_the_tenants_own);
    RUN(a_bound_version_survives_publishing_and_removal);
    RUN(renames);
    RUN(a_wrong_route_is_refused);
    RUN(a_foreign_version_is_kept_but_not_used);
    RUN(inline_tasks_share_forms);
    RUN(old_inline_forms_are_forgotten);
    RUN(compiled_forms_are_bounded);
    RUN(room_is_made_at_any_time);
    RUN(holds_many_tasks);
    RUN(enumerates_a_tenant);
    RUN(names_the_nearest);
    eng_bank_free(bank);
    eng_model_free(model);
    TESTS_END;
}
