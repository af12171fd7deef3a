/* boot_model.h: opens the small model of the tests and its bank. */
#ifndef TESTS_UNIT_BOOT_MODEL_H
#define TESTS_UNIT_BOOT_MODEL_H

#include "engine/engine.h"

#include <stdio.h>

/* False when there is none here or it cannot be read: the reason is printed. */
static inline bool boot_model_open(eng_model **model, eng_bank **bank)
{
    static const char *const dirs[] = {TEST_SOURCE_DIR "/tests/models/boot",
                                       TEST_SHARED_DIR "/boot"};
    eng_error err = {.text = ""};
    *model = NULL;
    *bank = NULL;
    for (size_t i = 0; i < 2 && *bank == NULL; i++) {
        if (eng_model_open(dirs[i], model, &err) == ENG_OK &&
            eng_bank_open_default(*model, false, bank, &err) != ENG_OK) {
            eng_model_free(*model);
            *model = NULL;
        }
    }
    if (*bank == NULL) {
        fprintf(stderr, "no boot model: %s: %s\n", err.field, err.text);
    }
    return *bank != NULL;
}

#endif
