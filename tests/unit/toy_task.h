/* toy_task.h: a small task on the small model of the tests, for tests of evaluation and adaptation. The options
 * 甲 and 乙 say nothing: which of them means "pleased" can only be learnt from the rows. */
#ifndef TESTS_UNIT_TOY_TASK_H
#define TESTS_UNIT_TOY_TASK_H

#include "tests/unit/boot_model.h"
#include "tests/unit/test.h"

static const char *const toy_pleased[] = {
    "味道很好，下次还来", "质量不错，非常满意", "老板热情，服务周到",   "房间干净，住得舒服",
    "送货很快，包装也好", "好看又实用，很喜欢", "物美价廉，值得推荐",   "孩子很喜欢，五星好评",
    "性价比高，超出预期", "手感很好，做工精致", "环境优美，心情愉快",   "声音清楚，效果很棒",
    "面料舒服，穿着合身", "位置方便，早餐丰富", "内容精彩，一口气读完", "分量足，口味正宗"};
static const char *const toy_angry[] = {
    "难吃死了，再也不来",   "质量太差，用两天就坏", "态度恶劣，没人理睬", "房间又脏又吵，没法睡",
    "等了三个小时，菜都凉", "褪色严重，非常失望",   "骗人的，千万别买",   "屏幕有划痕，退货还难",
    "噪音很大，浪费钱",     "味道刺鼻，不敢再用",   "客服敷衍，投诉没用", "尺码不对，线头很多",
    "书页缺了，印刷模糊",   "空调坏了，热得要命",   "电池不行，半天没电", "少送东西，还不承认"};
enum { TOY_EACH = 16, TOY_ROWS = 2 * TOY_EACH };

struct toy {
    eng_model *model;
    eng_bank *bank;
    eng_compute *compute;
    eng_task *task;
    eng_dataset *set; /* rows 2i pleased, 2i + 1 angry */
};

static inline eng_dataset *toy_rows(const char *pleased, const char *angry)
{
    char text[TOY_ROWS * 128];
    size_t len = 0;
    eng_dataset *set = NULL;
    for (int i = 0; i < TOY_ROWS; i++) {
        const char *row = i % 2 == 0 ? toy_pleased[i / 2] : toy_angry[i / 2];
        int n = snprintf(text + len, sizeof text - len, "{\"text\":\"%s\",\"label\":\"%s\"}\n", row,
                         i % 2 == 0 ? pleased : angry);
        len += (size_t)n;
    }
    eng_error err;
    if (eng_dataset_parse((eng_text){text, len}, ENG_ROWS_JSONL, NULL, &set, NULL, NULL, &err) !=
        ENG_OK) {
        TEST_FAIL_("toy rows: %s", err.text);
    }
    return set;
}

/* On the model and bank that are there already. */
static inline bool toy_set_up(struct toy *toy)
{
    eng_text labels[2] = {{"甲", 3}, {"乙", 3}};
    eng_task_spec spec = {.type = ENG_CLASSIFICATION, .labels = labels, .n_labels = 2};
    eng_error err = {.text = ""};
    toy->set = toy_rows("乙", "甲");
    if (toy->set == NULL || eng_compute_start(2, NULL, &toy->compute, &err) != ENG_OK ||
        eng_task_new(toy->model, toy->bank, &spec, &toy->task, &err) != ENG_OK) {
        TEST_FAIL_("toy: %s", err.text);
        return false;
    }
    return true;
}

static inline bool toy_open(struct toy *toy)
{
    memset(toy, 0, sizeof *toy);
    return boot_model_open(&toy->model, &toy->bank) && toy_set_up(toy);
}

/* The logits of one input under a mix, run alone: start, end (512). Free the result. NULL: it failed, as a check. */
static inline eng_encoded *toy_forward(const struct toy *toy, const eng_task *task,
                                       const eng_input *input, const float *mix, float *start,
                                       float *end, size_t *len)
{
    eng_encoded *encoded = NULL;
    eng_workspace *workspace = NULL;
    bool ok = eng_encode(task, input, 0, &encoded, NULL) == ENG_OK &&
              eng_workspace_new(toy->model, 512, 1, &workspace, NULL) == ENG_OK;
    if (ok) {
        const int32_t *ids = eng_encoded_ids(encoded, len);
        const eng_sequence sequence = {.ids = ids, .len = *len, .bank = toy->bank, .mix = mix};
        ok = eng_forward(toy->compute, workspace, ENG_SERVING, toy->model, &sequence, 1, start, end,
                         NULL) == ENG_OK;
    }
    eng_workspace_free(workspace);
    if (!ok) {
        TEST_FAIL_("toy: %s", "an input alone does not run");
        eng_encoded_free(encoded);
        return NULL;
    }
    return encoded;
}

static inline void toy_close(struct toy *toy)
{
    eng_dataset_free(toy->set);
    eng_task_free(toy->task);
    if (toy->compute != NULL) {
        eng_compute_stop(toy->compute);
    }
    eng_bank_free(toy->bank);
    eng_model_free(toy->model);
    memset(toy, 0, sizeof *toy);
}

#endif
