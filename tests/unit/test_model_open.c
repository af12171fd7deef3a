/* test_model_open.c: model directories and banks, good ones and bad ones. */
#include "engine/engine.h"
#include "tests/unit/test.h"

static void the_embedded_model_opens(void)
{
    eng_model *model = NULL;
    eng_error err = {0};
    eng_status status = eng_model_open(TEST_SOURCE_DIR "/engine/models/small-zh", &model, &err);
    REQUIRE(status == ENG_OK);
    const eng_model_info *info = eng_model_get_info(model);
    CHECK_INT(info->layers, 3);
    CHECK_INT(info->positions, 352);
    CHECK(info->has_vocab);
    CHECK_STR(info->dtype, "F16");
    eng_bank *bank = NULL;
    status = eng_bank_open_default(model, false, &bank, &err);
    REQUIRE(status == ENG_OK);
    CHECK_INT(eng_bank_get_info(bank)->rows, 107);
    CHECK_STR(eng_bank_row_name(bank, 0), "afqmc");
    CHECK_INT(eng_bank_get_info(bank)->prompt_token_offset, 1);
    CHECK_NEAR(eng_bank_get_info(bank)->adapt_lr, 0.1, 0);
    CHECK_STR(eng_bank_get_info(bank)->name, "shallow");
    eng_bank_free(bank);
    status = eng_bank_open(model, TEST_SOURCE_DIR "/engine/models/small-zh/tied.bank.safetensors",
                           false, &bank, &err);
    REQUIRE(status == ENG_OK);
    CHECK_INT(eng_bank_get_info(bank)->rows, 107);
    CHECK_INT(eng_bank_get_info(bank)->layers, 3);
    CHECK(eng_bank_get_info(bank)->tied);
    CHECK_INT(eng_bank_get_info(bank)->route_len, 8);
    eng_bank_free(bank);
    eng_model_free(model);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(the_embedded_model_opens);
    TESTS_END;
}
