/* template.h (private): "情感分析："{text}"的情感是？选项：" as literals and fields.
 *
 * {name} stands for a field; {{ and }} are braces. Nothing else is special. A struct template never
 * changes after template_parse: any thread may read.
 */
#ifndef ENGINE_TEMPLATE_H
#define ENGINE_TEMPLATE_H

#include "engine/engine.h"

#define TEMPLATE_MAX_PIECES 64
#define TEMPLATE_MAX_NAME   63
#define TEMPLATE_LITERAL    SIZE_MAX

struct template_piece {
    size_t field; /* index into names, or TEMPLATE_LITERAL */
    size_t start; /* a literal's bytes in `literals` */
    size_t len;
};

struct template
{
    char source[ENG_MAX_TEMPLATE_BYTES + 1]; /* string, as written */
    char literals[ENG_MAX_TEMPLATE_BYTES + 1];
    struct template_piece pieces[TEMPLATE_MAX_PIECES];
    size_t n_pieces;
    char names[ENG_MAX_FIELDS][TEMPLATE_MAX_NAME + 1]; /* in order of first use */
    size_t n_fields;
};

/* ENG_EINVAL and ENG_ELIMIT name the byte: a brace that does not belong, a bad field name, no field
 * at all, text that is not UTF-8 or holds a NUL. */
ENG_MUST_CHECK eng_status template_parse(eng_text text, struct template *template, eng_error *err);

/* The template a task has when it brings none (METHOD 3). String. */
const char *template_default(eng_task_type type, bool may_have_no_answer);

/* Index of the field called name[0 .. len), or n_fields. */
size_t template_field(const struct template *template, const char *name, size_t len);
/* How often field i occurs. */
size_t template_uses(const struct template *template, size_t field);

#endif
