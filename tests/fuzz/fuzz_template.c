/* fuzz_template.c: a template, and an input for it. First byte: type and flags; second and third:
 * model size and text limit; the rest, cut at zero bytes: template, one value for every field, then
 * options. Sequences must fit, hold their options and answer spans inside the context. */
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"
#include "engine/mrc.h"
#include "engine/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST_OPTIONS 16
#define MOST_TOKENS  256

static const char vocab[] = "[UNK]\n[CLS]\n[SEP]\nx0\nx1\nx2\na\nb\n##a\n{\n}\n,"
                            "\n，\n：\n？\n好\n坏\n没\n有\n答\n案\n（\n）\n";

struct source {
    const char *at;
    size_t left;
};

static eng_text next(struct source *source)
{
    const char *zero = source->left > 0 ? memchr(source->at, 0, source->left) : NULL;
    eng_text text = {source->at, zero != NULL ? (size_t)(zero - source->at) : source->left};
    size_t used = text.len + (zero != NULL);
    source->at += used;
    source->left -= used;
    return text;
}

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* Read by a scaling, too, probabilities are of all options and add up. */
static void check_scaled(const eng_encoded *encoded, const float *start, const float *end)
{
    float numbers[1 + ENG_MAX_LABELS + ENG_MAX_CROSS_LABELS * ENG_MAX_CROSS_LABELS];
    float p[ENG_MAX_LABELS];
    double sum = 0;
    size_t options = eng_encoded_options(encoded);
    if (options == 0) {
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        numbers[i] = (float)(i * 5 % 9) - 4;
    }
    const eng_label_scaling scaling = {
        numbers, eng_label_scaling_len(options, options <= ENG_MAX_CROSS_LABELS)};
    eng_decode_options(encoded, start, end, &scaling, p);
    for (size_t i = 0; i < options; i++) {
        sum += (double)p[i];
    }
    check(sum > 0.999 && sum < 1.001);
}

static void check_encoded(const eng_model *model, const eng_encoded *encoded,
                          const eng_example *row)
{
    float start[MOST_TOKENS], end[MOST_TOKENS], p[ENG_MAX_LABELS];
    eng_span spans[4];
    size_t len, from = 0, to = 0;
    const int32_t *ids = eng_encoded_ids(encoded, &len);
    check(len <= model->params.positions && len <= MOST_TOKENS);
    for (size_t i = 0; i < len; i++) {
        check(tokenizer_string(model->tokenizer, ids[i]) != NULL);
        start[i] = (float)(ids[i] * 7 % 5);
        end[i] = (float)(i * 13 % 7);
    }
    eng_decode_options(encoded, start, end, NULL, p);
    check_scaled(encoded, start, end);
    size_t n = eng_decode_spans(encoded, start, end, NULL, 0, spans, 4);
    for (size_t i = 0; i < n; i++) {
        check(spans[i].no_answer || spans[i].start < spans[i].end);
        check(spans[i].score >= 0 && spans[i].score <= 1.0000001);
    }
    if (mrc_targets(encoded, row, &from, &to)) {
        check(from <= to && to < len);
    }
}

static void use(const eng_task *task, const eng_model *model, size_t limit, struct source *source)
{
    const char *names[ENG_MAX_FIELDS];
    eng_field fields[ENG_MAX_FIELDS];
    eng_text options[MOST_OPTIONS];
    size_t n = eng_task_fields(task, names);
    for (size_t i = 0; i < n; i++) {
        fields[i] = (eng_field){{names[i], strlen(names[i])}, next(source)};
    }
    eng_example row = {{fields, n, options, 0}, limit % 4, next(source), limit};
    while (source->left > 0 && row.input.n_options < MOST_OPTIONS) {
        options[row.input.n_options++] = next(source);
    }
    eng_encoded *encoded;
    if (eng_encode(task, &row.input, limit, &encoded, NULL) == ENG_OK) {
        check_encoded(model, encoded, &row);
        eng_encoded_free(encoded);
    }
    if (mrc_encode_for_training(task, &row, limit, &encoded, NULL) == ENG_OK) {
        check_encoded(model, encoded, &row);
        eng_encoded_free(encoded);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eng_model model;
    static eng_bank bank;
    struct tokenizer_options defaults = tokenizer_defaults();
    if (model.tokenizer == NULL &&
        tokenizer_from_vocab((eng_text){vocab, sizeof vocab - 1}, &defaults, &model.tokenizer,
                             NULL) != ENG_OK) {
        abort();
    }
    if (size < 3) {
        return 0;
    }
    static const eng_text labels[] = {{"好", 3}, {"坏", 3}, {"a b", 3}};
    model.params.positions = data[1];
    bank.model = &model;
    bank.info.prompt_tokens = 3;
    bank.info.prompt_token_offset = 3;
    memcpy(bank.option_separator, "，", sizeof "，");
    struct source source = {(const char *)data + 3, size - 3};
    bool labelled = (data[0] & 3) <= ENG_PAIR;
    eng_task_spec spec = {(eng_task_type)(data[0] & 3), next(&source), labels, labelled ? 3 : 0,
                          (data[0] & 4) != 0};
    eng_task *task;
    if (eng_task_new(&model, &bank, &spec, &task, NULL) == ENG_OK) {
        use(task, &model, data[2], &source);
        eng_task_free(task);
    }
    return 0;
}
