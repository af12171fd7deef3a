/* split.c: which rows train and which rows choose. Both splits shuffle once with the seed and then
 * walk the shuffled rows, so the order of the file decides nothing.
 */
#include "engine/engine.h"
#include "engine/rng.h"

#include <stdlib.h>

#define FEW_SHOTS_WITHOUT_LABELS 32

/* Rows in the order of `seed` into `order` (rows of the set). */
static void shuffled(const eng_dataset *set, uint64_t seed, size_t *order)
{
    size_t rows = eng_dataset_get_info(set)->rows;
    struct rng rng;
    for (size_t i = 0; i < rows; i++) {
        order[i] = i;
    }
    rng_seed(&rng, seed);
    rng_shuffle(&rng, order, rows);
}

static bool has_labels(const eng_dataset *set)
{
    return eng_dataset_get_info(set)->labels > 0;
}

static size_t label_of(const eng_dataset *set, size_t row)
{
    eng_example example;
    eng_dataset_row(set, row, &example, NULL);
    return has_labels(set) ? example.label : 0;
}

size_t eng_few_shot_k(const eng_dataset *set, size_t k_shot)
{
    size_t labels = eng_dataset_get_info(set)->labels;
    if (k_shot > 0) {
        return k_shot;
    }
    if (labels == 0) {
        return FEW_SHOTS_WITHOUT_LABELS;
    }
    return 32 / labels > 8 ? 32 / labels : 8;
}

/* Walks `dev` (rows of the set, already shuffled): the first train_of(label) rows of each label go
 * to train, the next dev_of(label) stay in dev. Reading runs ahead of writing, so one array does. */
static void deal(const eng_dataset *set, const size_t *train_of, const size_t *dev_of,
                 size_t *train, size_t *n_train, size_t *dev, size_t *n_dev)
{
    size_t rows = eng_dataset_get_info(set)->rows;
    size_t seen[ENG_MAX_LABELS] = {0};
    *n_train = *n_dev = 0;
    for (size_t i = 0; i < rows; i++) {
        size_t row = dev[i], label = label_of(set, row), place = seen[label]++;
        if (place < train_of[label]) {
            train[(*n_train)++] = row;
        } else if (place - train_of[label] < dev_of[label]) {
            dev[(*n_dev)++] = row;
        }
    }
}

void eng_few_shot_split(const eng_dataset *set, uint64_t seed, size_t k_shot, size_t *train,
                        size_t *n_train, size_t *dev, size_t *n_dev)
{
    size_t k[ENG_MAX_LABELS];
    for (size_t i = 0; i < ENG_MAX_LABELS; i++) {
        k[i] = eng_few_shot_k(set, k_shot);
    }
    shuffled(set, seed, dev);
    deal(set, k, k, train, n_train, dev, n_dev);
}

void eng_half_split(const eng_dataset *set, uint64_t seed, size_t *train, size_t *n_train,
                    size_t *dev, size_t *n_dev)
{
    size_t first[ENG_MAX_LABELS] = {0}, second[ENG_MAX_LABELS] = {0};
    for (size_t i = 0; i < ENG_MAX_LABELS; i++) {
        size_t rows = eng_dataset_label_rows(set, i);
        if (i == 0 && !has_labels(set)) {
            rows = eng_dataset_get_info(set)->rows;
        }
        first[i] = (rows + 1) / 2;
        second[i] = rows / 2;
    }
    shuffled(set, seed, dev);
    deal(set, first, second, train, n_train, dev, n_dev);
}
