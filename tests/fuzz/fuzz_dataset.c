/* fuzz_dataset.c: rows as JSONL or CSV (chosen by the first byte), then every row read back and both
 * splits made. */
#include "engine/engine.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const eng_dataset *set)
{
    size_t rows = eng_dataset_get_info(set)->rows, n_train = 0, n_dev = 0, sum = 0;
    for (size_t i = 0; i < rows; i++) {
        eng_example row;
        const char *word;
        eng_dataset_row(set, i, &row, &word);
        for (size_t k = 0; k < row.input.n_fields; k++) {
            eng_text value = row.input.fields[k].value;
            sum += value.len > 0 ? (unsigned char)value.data[value.len - 1] : 0;
        }
        if (eng_dataset_get_info(set)->type == ENG_CHOICE && row.label >= row.input.n_options) {
            abort();
        }
    }
    size_t *train = malloc(rows * sizeof *train), *dev = malloc(rows * sizeof *dev);
    if (train != NULL && dev != NULL) {
        eng_few_shot_split(set, sum, 0, train, &n_train, dev, &n_dev);
        eng_half_split(set, sum, train, &n_train, dev, &n_dev);
        if (n_train + n_dev != rows) {
            abort();
        }
    }
    free(train);
    free(dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    eng_row_error errors[ENG_MAX_ROW_ERRORS];
    size_t n_errors = 0;
    eng_error err;
    eng_dataset *set = NULL;
    if (size == 0) {
        return 0;
    }
    eng_task_type type = (eng_task_type)((data[0] >> 1) % 4);
    eng_status status =
        eng_dataset_parse((eng_text){(const char *)data + 1, size - 1},
                          (data[0] & 1) != 0 ? ENG_ROWS_CSV : ENG_ROWS_JSONL,
                          (data[0] & 8) != 0 ? &type : NULL, &set, errors, &n_errors, &err);
    if (status == ENG_OK) {
        walk(set);
    }
    eng_dataset_free(set);
    return 0;
}
