/* test_baseline.c: what a guess and a bag of characters reach, against numbers worked out by hand. */
#include "tests/unit/toy_task.h"

#include <math.h>

static struct toy toy;

static eng_dataset *rows_of(const char *text)
{
    eng_dataset *set = NULL;
    CHECK(eng_dataset_parse((eng_text){text, strlen(text)}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL,
                            NULL) == ENG_OK);
    return set;
}

/* 甲 is written with a, 乙 with b: the bag reads three of four right, and the majority is two. */
static void labels(void)
{
    eng_dataset *train = rows_of("{\"text\":\"aaab\",\"label\":\"甲\"}\n"
                                 "{\"text\":\"bbba\",\"label\":\"乙\"}\n");
    eng_dataset *test = rows_of("{\"text\":\"aa\",\"label\":\"甲\"}\n"
                                "{\"text\":\"bb\",\"label\":\"乙\"}\n"
                                "{\"text\":\"bbz\",\"label\":\"乙\"}\n"
                                "{\"text\":\"bb\",\"label\":\"甲\"}\n");
    const size_t which[] = {0, 1, 2, 3};
    eng_baselines base;
    REQUIRE(train != NULL && test != NULL);
    REQUIRE(eng_baselines_of(toy.task, train, which, 2, test, which, 4, &base, NULL) == ENG_OK);
    CHECK(base.majority == 0.5 && base.bag == 0.75);
    CHECK_STR(base.bag_name, "naive Bayes");
    /* without a row of 乙 everything is 甲 */
    REQUIRE(eng_baselines_of(toy.task, train, which, 1, test, which, 3, &base, NULL) == ENG_OK);
    CHECK_NEAR(base.bag, 1.0 / 3, 1e-12);
    CHECK_NEAR(base.majority, 2.0 / 3, 1e-12);
    eng_dataset_free(train);
    eng_dataset_free(test);
}

static eng_task *task_of(eng_task_type type)
{
    eng_task_spec spec = {.type = type};
    eng_task *task = NULL;
    CHECK(eng_task_new(toy.model, toy.bank, &spec, &task, NULL) == ENG_OK);
    return task;
}

static void choices(void)
{
    eng_dataset *set = rows_of(
        "{\"context\":\"小猫在树上睡觉\",\"question\":\"谁在睡\",\"options\":[\"大狗\",\"小猫\"],"
        "\"label\":1}\n"
        "{\"context\":\"今天下雨\",\"question\":\"天气\",\"options\":[\"晴天\",\"下雨\",\"今天\","
        "\"大"
        "风\"],\"label\":2}\n");
    eng_task *task = task_of(ENG_CHOICE);
    const size_t which[] = {0, 1};
    eng_baselines base;
    REQUIRE(set != NULL && task != NULL);
    REQUIRE(eng_baselines_of(task, set, which, 0, set, which, 2, &base, NULL) == ENG_OK);
    CHECK(base.majority == 0.375); /* ½ and ¼ */
    CHECK(base.bag == 0.5);        /* the first of two that are found whole is not the right one */
    CHECK_STR(base.bag_name, "overlap");
    eng_task_free(task);
    eng_dataset_free(set);
}

static void spans_have_none(void)
{
    eng_dataset *set =
        rows_of("{\"context\":\"小猫在树上\",\"question\":\"谁\",\"answer\":\"小猫\","
                "\"answer_start\":0}\n");
    eng_task *task = task_of(ENG_EXTRACTIVE);
    const size_t which[] = {0};
    eng_baselines base;
    REQUIRE(set != NULL && task != NULL);
    REQUIRE(eng_baselines_of(task, set, which, 1, set, which, 1, &base, NULL) == ENG_OK);
    CHECK(isnan(base.majority) && isnan(base.bag));
    CHECK_STR(base.bag_name, "none");
    eng_task_free(task);
    eng_dataset_free(set);
}

int main(void)
{
    TESTS_BEGIN;
    if (toy_open(&toy)) {
        RUN(labels);
        RUN(choices);
        RUN(spans_have_none);
    }
    toy_close(&toy);
    TESTS_END;
}
