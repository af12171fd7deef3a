/* template.c: parses templates. One pass, no allocation; every error names the byte. */
#include "engine/template.h"

#include <string.h>

#include "engine/status.h"
#include "engine/utf8.h"

static const char *const defaults[] = {
    [ENG_CLASSIFICATION] = "主题识别：\"{text}\"的主题是？选项：",
    [ENG_PAIR] = "意思判别：\"{text_a}\"与\"{text_b}\"的关系是？选项：",
    [ENG_CHOICE] = "阅读选择：文档\"{context}\"，问题\"{question}\"，选项：",
    [ENG_EXTRACTIVE] = "抽取式问答：文本\"{context}问题\"{question}",
};

const char *template_default(eng_task_type type, bool may_have_no_answer)
{
    if (type == ENG_EXTRACTIVE && may_have_no_answer) {
        return "抽取式问答（可能没有答案）：文本\"{context}问题\"{question}";
    }
    return defaults[type];
}

size_t template_field(const struct template *template, const char *name, size_t len)
{
    size_t i = 0;
    while (i < template->n_fields &&
           !(strlen(template->names[i]) == len && memcmp(template->names[i], name, len) == 0)) {
        i++;
    }
    return i;
}

size_t template_uses(const struct template *template, size_t field)
{
    size_t uses = 0;
    for (size_t i = 0; i < template->n_pieces; i++) {
        uses += template->pieces[i].field == field;
    }
    return uses;
}

struct parser {
    struct template *template;
    const char *text;
    size_t len, at;
    size_t literal; /* bytes of `literals` in use */
    eng_error *err;
};

static eng_status add_piece(struct parser *parser, struct template_piece piece)
{
    struct template *template = parser->template;
    if (template->n_pieces == TEMPLATE_MAX_PIECES) {
        return fail(parser->err, ENG_ELIMIT, "template", "more than %d fields and texts between",
                    TEMPLATE_MAX_PIECES);
    }
    template->pieces[template->n_pieces++] = piece;
    return ENG_OK;
}

static eng_status add_literal_byte(struct parser *parser, char byte)
{
    struct template *template = parser->template;
    struct template_piece *last =
        template->n_pieces > 0 ? &template->pieces[template->n_pieces - 1] : NULL;
    if (last == NULL || last->field != TEMPLATE_LITERAL) {
        eng_status status =
            add_piece(parser, (struct template_piece){TEMPLATE_LITERAL, parser->literal, 0});
        if (status != ENG_OK) {
            return status;
        }
        last = &template->pieces[template->n_pieces - 1];
    }
    template->literals[parser->literal++] = byte;
    last->len++;
    return ENG_OK;
}

static bool is_name_byte(char c, bool first)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    return letter || (!first && c >= '0' && c <= '9');
}

/* parser->at is behind the opening brace. */
static eng_status take_field(struct parser *parser)
{
    struct template *template = parser->template;
    const char *name = parser->text + parser->at;
    size_t left = parser->len - parser->at, len = 0;
    while (len < left && is_name_byte(name[len], len == 0)) {
        len++;
    }
    if (len == 0 || len == left || name[len] != '}') {
        return fail(
            parser->err, ENG_EINVAL, "template",
            "byte %zu: '{' must begin a field such as {text} (letters, digits and _); write "
            "{{ for a brace",
            parser->at - 1);
    }
    if (len > TEMPLATE_MAX_NAME) {
        return fail(parser->err, ENG_ELIMIT, "template",
                    "byte %zu: a field name of %zu bytes, at most %d", parser->at, len,
                    TEMPLATE_MAX_NAME);
    }
    size_t field = template_field(template, name, len);
    if (field == ENG_MAX_FIELDS) {
        return fail(parser->err, ENG_ELIMIT, "template", "more than %d different fields",
                    ENG_MAX_FIELDS);
    }
    if (field == template->n_fields) {
        memcpy(template->names[field], name, len);
        template->n_fields++;
    }
    parser->at += len + 1;
    return add_piece(parser, (struct template_piece){.field = field});
}

static eng_status take_byte(struct parser *parser)
{
    char c = parser->text[parser->at++];
    bool doubled = parser->at < parser->len && parser->text[parser->at] == c;
    if ((c == '{' || c == '}') && doubled) {
        parser->at++;
        return add_literal_byte(parser, c);
    }
    if (c == '{') {
        return take_field(parser);
    }
    if (c == '}') {
        return fail(parser->err, ENG_EINVAL, "template",
                    "byte %zu: '}' without '{'; write }} for a brace", parser->at - 1);
    }
    return add_literal_byte(parser, c);
}

static eng_status check_text(eng_text text, eng_error *err)
{
    if (text.len > ENG_MAX_TEMPLATE_BYTES) {
        return fail(err, ENG_ELIMIT, "template", "%zu bytes, at most %d", text.len,
                    ENG_MAX_TEMPLATE_BYTES);
    }
    for (size_t i = 0; i < text.len;) {
        uint32_t c;
        size_t size = utf8_decode((const unsigned char *)text.data + i, text.len - i, &c);
        if (size == 0 || c == 0) {
            return fail(err, ENG_EINVAL, "template", "byte %zu: %s", i,
                        size == 0 ? "not UTF-8" : "a NUL");
        }
        i += size;
    }
    return ENG_OK;
}

eng_status template_parse(eng_text text, struct template *template, eng_error *err)
{
    memset(template, 0, sizeof *template);
    eng_status status = check_text(text, err);
    if (status != ENG_OK) {
        return status;
    }
    if (text.len > 0) {
        memcpy(template->source, text.data, text.len);
    }
    struct parser parser = {template, text.data, text.len, 0, 0, err};
    while (status == ENG_OK && parser.at < parser.len) {
        status = take_byte(&parser);
    }
    if (status == ENG_OK && template->n_fields == 0) {
        status = fail(err, ENG_EINVAL, "template",
                      "it reads no field: a text's place is written {text}");
    }
    return status;
}
