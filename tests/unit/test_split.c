/* test_split.c: the few-shot protocol and the half split. */
#include "engine/engine.h"
#include "tests/unit/test.h"

enum { ROWS = 300 };

/* ROWS rows whose labels turn round: "l0", "l1", … */
static eng_dataset *rows_of(int labels)
{
    static char text[ROWS * 64];
    size_t len = 0;
    for (int i = 0; i < ROWS; i++) {
        int n = snprintf(text + len, sizeof text - len, "{\"text\":\"t%d\",\"label\":\"l%d\"}\n", i,
                         i % labels);
        len += (size_t)n;
    }
    eng_dataset *set = NULL;
    CHECK(eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL, NULL) ==
          ENG_OK);
    return set;
}

/* Rows of each label in `which`; no row twice over both calls with the same `seen`. */
static void count(const eng_dataset *set, const size_t *which, size_t n, size_t *labels,
                  unsigned char *seen)
{
    for (size_t i = 0; i < n; i++) {
        eng_example row;
        CHECK(which[i] < ROWS && !seen[which[i]]);
        seen[which[i]] = 1;
        eng_dataset_row(set, which[i], &row, NULL);
        labels[row.label]++;
    }
}

static void k_rows_a_label(void)
{
    static const struct {
        int labels;
        size_t asked, k;
    } cases[] = {{2, 0, 16}, {4, 0, 8}, {15, 0, 8}, {2, 5, 5}, {30, 0, 8}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        eng_dataset *set = rows_of(cases[c].labels);
        size_t train[ROWS], dev[ROWS], n_train, n_dev, per[2][ENG_MAX_LABELS] = {{0}};
        unsigned char seen[ROWS] = {0};
        CHECK_INT(eng_few_shot_k(set, cases[c].asked), cases[c].k);
        eng_few_shot_split(set, 8, cases[c].asked, train, &n_train, dev, &n_dev);
        count(set, train, n_train, per[0], seen);
        count(set, dev, n_dev, per[1], seen);
        size_t have = ROWS / (size_t)cases[c].labels, k = cases[c].k;
        for (int i = 0; i < cases[c].labels; i++) {
            CHECK_INT(per[0][i], k);
            CHECK_INT(per[1][i], have - k < k ? have - k : k);
        }
        eng_dataset_free(set);
    }
}

static void the_seed_decides(void)
{
    eng_dataset *set = rows_of(2);
    size_t a[ROWS], b[ROWS], c[ROWS], dev[ROWS], n, m;
    eng_few_shot_split(set, 8, 0, a, &n, dev, &m);
    eng_few_shot_split(set, 8, 0, b, &n, dev, &m);
    eng_few_shot_split(set, 13, 0, c, &n, dev, &m);
    CHECK_INT(n, 32);
    CHECK(memcmp(a, b, n * sizeof *a) == 0);
    CHECK(memcmp(a, c, n * sizeof *a) != 0);
    eng_dataset_free(set);
}

static void halves(void)
{
    eng_dataset *set = NULL;
    const char *text = "text,label\na,x\nb,x\nc,x\nd,y\n";
    REQUIRE(eng_dataset_parse((eng_text){text, strlen(text)}, ENG_ROWS_CSV, NULL, &set, NULL, NULL,
                              NULL) == ENG_OK);
    size_t train[4], dev[4], n_train, n_dev;
    eng_half_split(set, 1, train, &n_train, dev, &n_dev);
    CHECK_INT(n_train, 3); /* two of x, the only y */
    CHECK_INT(n_dev, 1);
    eng_dataset_free(set);
}

static void rows_without_labels(void)
{
    static char text[100 * 80];
    size_t len = 0;
    for (int i = 0; i < 100; i++) {
        int n = snprintf(text + len, sizeof text - len,
                         "{\"question\":\"q%d\",\"options\":[\"a\",\"b\"],\"label\":0}\n", i);
        len += (size_t)n;
    }
    eng_dataset *set = NULL;
    REQUIRE(eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL,
                              NULL) == ENG_OK);
    size_t train[100], dev[100], n_train, n_dev;
    eng_few_shot_split(set, 8, 0, train, &n_train, dev, &n_dev);
    CHECK_INT(n_train, 32);
    CHECK_INT(n_dev, 32);
    eng_half_split(set, 8, train, &n_train, dev, &n_dev);
    CHECK_INT(n_train, 50);
    CHECK_INT(n_dev, 50);
    eng_dataset_free(set);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(k_rows_a_label);
    RUN(the_seed_decides);
    RUN(halves);
    RUN(rows_without_labels);
    TESTS_END;
}
