/* test_dataset.c: every row shape from both syntaxes, and rows that must be refused with their line,
 * pointer and reason. */
#include "engine/engine.h"
#include "tests/unit/test.h"

static eng_row_error errors[ENG_MAX_ROW_ERRORS];
static size_t n_errors;
static eng_error err;

static eng_dataset *parse_n(const char *text, size_t len, eng_rows_format format,
                            const eng_task_type *type)
{
    eng_dataset *set = NULL;
    memset(&err, 0, sizeof err);
    eng_status status =
        eng_dataset_parse((eng_text){text, len}, format, type, &set, errors, &n_errors, &err);
    CHECK((status == ENG_OK) == (set != NULL));
    return set;
}

static eng_dataset *jsonl(const char *text)
{
    return parse_n(text, strlen(text), ENG_ROWS_JSONL, NULL);
}

static eng_dataset *csv(const char *text)
{
    return parse_n(text, strlen(text), ENG_ROWS_CSV, NULL);
}

/* Field `name` of row i as a string; "(none)" when absent. */
static const char *field(const eng_dataset *set, size_t i, const char *name)
{
    static char text[4096];
    eng_example row;
    eng_dataset_row(set, i, &row, NULL);
    for (size_t k = 0; k < row.input.n_fields; k++) {
        eng_field f = row.input.fields[k];
        if (f.name.len == strlen(name) && memcmp(f.name.data, name, f.name.len) == 0) {
            snprintf(text, sizeof text, "%.*s", (int)f.value.len, f.value.data);
            return text;
        }
    }
    return "(none)";
}

static const char *label(const eng_dataset *set, size_t i)
{
    eng_example row;
    const char *word = NULL;
    eng_dataset_row(set, i, &row, &word);
    return word;
}

static void classification_rows(void)
{
    eng_dataset *set = jsonl("{\"text\":\"面很筋道\",\"label\":\"正面\",\"shop\":\"南门\"}\r\n"
                             "\r\n"
                             "{\"text\":\"等了两小时\",\"label\":\"负面\",\"id\":7}\n"
                             "{\"text\":\"还会再来\",\"label\":\"正面\"}");
    REQUIRE(set != NULL);
    const eng_dataset_info *info = eng_dataset_get_info(set);
    CHECK_INT(info->type, ENG_CLASSIFICATION);
    CHECK_INT(info->rows, 3);
    CHECK_INT(info->bad_rows, 0);
    CHECK_INT(info->labels, 2);
    CHECK_STR(eng_dataset_label(set, 0), "正面");
    CHECK_INT(eng_dataset_label_rows(set, 0), 2);
    CHECK_INT(eng_dataset_label_rows(set, 1), 1);
    CHECK(eng_dataset_label(set, 2) == NULL);
    CHECK_STR(field(set, 0, "text"), "面很筋道");
    CHECK_STR(field(set, 0, "shop"), "南门");
    CHECK_STR(field(set, 1, "id"), "(none)");
    CHECK_STR(label(set, 1), "负面");
    eng_dataset_free(set);
}

static void other_shapes(void)
{
    eng_dataset *set = jsonl("{\"text_a\":\"甲方\",\"text_b\":\"乙方\",\"label\":3}");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->type, ENG_PAIR);
    CHECK_STR(label(set, 0), "3");
    eng_dataset_free(set);

    set = jsonl("{\"question\":\"几点？\",\"options\":[\"一点\",\"两点\",\"三点\"],\"label\":2}\n"
                "{\"question\":\"几点？\",\"options\":[\"1\",\"0\"],\"label\":\"0\"}");
    REQUIRE(set != NULL);
    eng_example row;
    eng_dataset_row(set, 0, &row, NULL);
    CHECK_INT(eng_dataset_get_info(set)->type, ENG_CHOICE);
    CHECK_INT(eng_dataset_get_info(set)->labels, 0);
    CHECK_INT(row.label, 2);
    CHECK_INT(row.input.n_options, 3);
    CHECK_STR(label(set, 0), "三点");
    eng_dataset_row(set, 1, &row, NULL);
    CHECK_INT(row.label, 1); /* a string is an option's text first, an index second */
    eng_dataset_free(set);

    set = jsonl("{\"context\":\"他今年到北京\",\"question\":\"到哪？\",\"answer\":\"北京\","
                "\"answer_start\":4}\n"
                "{\"context\":\"他今年到北京\",\"question\":\"到哪？\",\"answer\":\"北京\"}\n"
                "{\"context\":\"他今年到北京\",\"question\":\"谁？\",\"answer\":\"\","
                "\"answer_start\":-1}");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->type, ENG_EXTRACTIVE);
    CHECK_INT(eng_dataset_get_info(set)->rows, 3);
    eng_dataset_row(set, 1, &row, NULL);
    CHECK_INT(row.answer_start, 4);
    CHECK(label(set, 1) == NULL);
    eng_dataset_row(set, 2, &row, NULL);
    CHECK_INT(row.answer.len, 0);
    eng_dataset_free(set);
}

static void chat_rows(void)
{
    eng_dataset *set = jsonl("{\"messages\":[{\"role\":\"system\",\"content\":\"判断\"},"
                             "{\"role\":\"user\",\"content\":\"快递慢\"},{\"role\":\"assistant\","
                             "\"content\":\"负面\"}]}\n"
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"快\"},"
                             "{\"role\":\"user\",\"content\":\"快\"}]}\n"
                             "{\"messages\":[{\"role\":\"assistant\",\"content\":\"快\"},"
                             "{\"role\":\"user\",\"content\":\"快\"}]}\n"
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"快\"}]}\n"
                             "{\"messages\":[{\"role\":\"tool\",\"content\":\"快\"}]}\n"
                             "{\"messages\":\"快\"}\n{\"messages\":[5]}");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 1);
    CHECK_INT(eng_dataset_get_info(set)->bad_rows, 6);
    CHECK_STR(field(set, 0, "text"), "快递慢");
    CHECK_STR(field(set, 0, "system"), "判断");
    CHECK_STR(label(set, 0), "负面");
    CHECK_STR(errors[0].pointer, "/messages/1");
    CHECK_STR(errors[3].pointer, "/messages/0");
    eng_dataset_free(set);
}

static void csv_rows(void)
{
    eng_dataset *set = csv("\xEF\xBB\xBFtext, label ,note\r\n"
                           "\"逗号, \"\"引号\"\"\n换行\",好,x\r\n"
                           "5\" 屏,差,\r\n"
                           "\r\n"
                           "少一栏,好\r\n"
                           "\"坏\"引号,好,y\r\n"
                           "末行,差,\"z\"");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 3);
    CHECK_STR(field(set, 0, "text"), "逗号, \"引号\"\n换行");
    CHECK_STR(label(set, 0), "好");
    CHECK_STR(field(set, 1, "text"), "5\" 屏");
    CHECK_STR(field(set, 2, "note"), "z");
    CHECK_INT(n_errors, 2);
    CHECK_INT(errors[0].line, 6); /* the quoted line end counts */
    CHECK_INT(errors[1].line, 7);
    eng_dataset_free(set);

    set = csv("question,options,label\n哪个？,甲|乙|丙,丙\n哪个？,甲|乙,1\n哪个？,甲,0\n");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->type, ENG_CHOICE);
    CHECK_INT(eng_dataset_get_info(set)->rows, 2);
    CHECK_STR(label(set, 0), "丙");
    CHECK_STR(label(set, 1), "乙");
    CHECK_STR(errors[0].pointer, "/options");
    eng_dataset_free(set);

    set = csv("context,question,answer,answer_start\n到北京,到哪,北京,1\n到北京,到哪,北京,0\n"
              "到北京,到哪,,\n到北京,到哪,北京,x\n");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 2);
    CHECK_STR(errors[0].pointer, "/answer_start");
    CHECK(strstr(errors[0].text, "it is at 1") != NULL);
    eng_dataset_free(set);
}

static void a_stray_quote_loses_one_record_only(void)
{
    eng_dataset *set = csv("text,label\n\"没有收尾,好\n第二,差\n第三,好\n");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 2);
    CHECK_INT(errors[0].line, 2);
    CHECK(strstr(errors[0].text, "never closed") != NULL);
    eng_dataset_free(set);
}

/* A bad row in line 2 beside a good one: pointer and a word of the reason. */
static void refused(const char *row, const char *pointer, const char *word)
{
    char text[8192];
    snprintf(text, sizeof text, "{\"text\":\"好\",\"label\":\"甲\"}\n%s\n", row);
    eng_dataset *set = jsonl(text);
    if (set == NULL || n_errors != 1) {
        fprintf(stderr, "%s: %zu errors; %s\n", row, n_errors, err.text);
        CHECK(set != NULL && n_errors == 1);
        eng_dataset_free(set);
        return;
    }
    CHECK_INT(errors[0].line, 2);
    CHECK_STR(errors[0].pointer, pointer);
    if (strstr(errors[0].text, word) == NULL) {
        TEST_FAIL_("%s: \"%s\" does not say \"%s\"", row, errors[0].text, word);
    }
    eng_dataset_free(set);
}

static void bad_rows(void)
{
    refused("{\"text\":\"x\"}", "/label", "missing");
    refused("{\"text\":\"x\",\"label\":\"\"}", "/label", "empty");
    refused("{\"text\":\"x\",\"label\":\" 甲\"}", "/label", "blanks");
    refused("{\"text\":\"x\",\"label\":true}", "/label", "boolean");
    refused("{\"text\":\"x\",\"label\":1.5}", "/label", "number");
    refused("{\"text\":\"x\",\"label\":null}", "/label", "null");
    refused("{\"text\":\"x\",\"label\":[\"甲\"]}", "/label", "array");
    refused("{\"text\":\"\",\"label\":\"甲\"}", "/text", "empty");
    refused("{\"text\":5,\"label\":\"甲\"}", "/text", "integer");
    refused("{\"body\":\"x\",\"label\":\"甲\"}", "", "no known shape");
    refused("{\"text\":\"a\",\"text\":\"b\",\"label\":\"甲\"}", "", "duplicate");
    refused("{\"text\":\"a\",\"label\":\"甲\"} {}", "", "JSON");
    refused("{\"text\":\"a\",\"label\":\"甲\"", "", "JSON");
    refused("[1,2]", "", "array");
    refused("null", "", "JSON");
    refused("{\"text\":\"\\u0000\",\"label\":\"甲\"}", "", "JSON");
    refused("{\"text\":\"\\ud800\",\"label\":\"甲\"}", "", "JSON");
    refused("{\"text\":\"\xff\",\"label\":\"甲\"}", "", "UTF-8 at byte 10");
    refused("{\"text\":\"\xed\xa0\x80\",\"label\":\"甲\"}", "", "UTF-8");
    refused("{\"text\":\"a\",\"label\":\"甲\",\"x\":[[[[[[[[[[1]]]]]]]]]]}", "", "nested");
    refused("{\"messages\":[],\"text\":\"a\"}", "/messages", "beside");
    refused("{\"question\":\"q\",\"options\":\"ab\",\"label\":0}", "/options", "array");
    refused("{\"question\":\"q\",\"options\":[\"a\",3],\"label\":0}", "/options/1", "string");
}

static void bad_rows_of_one_type(void)
{
    eng_dataset *set = jsonl("{\"question\":\"q\",\"options\":[\"a\",\"b\"],\"label\":0}\n"
                             "{\"question\":\"q\",\"options\":[\"a\",\"b\"],\"label\":2}\n"
                             "{\"question\":\"q\",\"options\":[\"a\",\"b\"],\"label\":-1}\n"
                             "{\"question\":\"q\",\"options\":[\"a\",\"\"],\"label\":0}\n"
                             "{\"question\":\"q\",\"options\":[\"a\",\"a\"],\"label\":\"a\"}\n"
                             "{\"question\":\"q\",\"options\":[\"a\",\"b\"]}\n"
                             "{\"options\":[\"a\",\"b\"],\"label\":99999999999}");
    REQUIRE(set != NULL);
    CHECK_INT(n_errors, 6);
    CHECK_STR(errors[0].pointer, "/label");
    CHECK_STR(errors[2].pointer, "/options/1");
    CHECK(strstr(errors[3].text, "2 options") != NULL);
    CHECK_STR(errors[5].pointer, "/question");
    eng_dataset_free(set);

    set = jsonl("{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"b\"}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"a\"}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"c\"}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"c\",\"answer_start\":0}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"b\",\"answer_start\":3}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"b\",\"answer_start\":1e300}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":\"b\",\"answer_start\":1.5}\n"
                "{\"context\":\"\",\"question\":\"q\",\"answer\":\"b\",\"answer_start\":0}\n"
                "{\"context\":\"aab\",\"question\":\"q\",\"answer\":7}");
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 1);
    CHECK_INT(n_errors, 8);
    CHECK(strstr(errors[0].text, "more than once") != NULL);
    CHECK(strstr(errors[1].text, "does not occur") != NULL);
    eng_dataset_free(set);
}

static void mixed_and_empty_files_fail(void)
{
    CHECK(jsonl("{\"text\":\"a\",\"label\":\"x\"}\n"
                "{\"text_a\":\"a\",\"text_b\":\"b\",\"label\":\"x\"}") == NULL);
    CHECK(err.status == ENG_EFORMAT && strstr(err.text, "line 2") != NULL);
    CHECK(jsonl("") == NULL && err.status == ENG_EFORMAT);
    CHECK(jsonl("\n\n  \n") == NULL && err.status == ENG_EFORMAT);
    CHECK(jsonl("x\n") == NULL && strstr(err.text, "line 1") != NULL);
    CHECK(csv("") == NULL);
    CHECK(csv("text,label\n") == NULL);
    CHECK(csv("text;label\na;b\n") == NULL && strcmp(err.field, "header") == 0);
    CHECK(csv("text,text\na,b\n") == NULL && strstr(err.text, "twice") != NULL);
    CHECK(csv("text,\na,b\n") == NULL && strstr(err.text, "no name") != NULL);
    CHECK(csv("text,\"label\na,b\n") == NULL);
    CHECK(parse_n("\xff\xfe{\0}\0", 6, ENG_ROWS_JSONL, NULL) == NULL &&
          strstr(err.text, "UTF-16") != NULL);
    CHECK(parse_n("text,label\na\0,b\n", 16, ENG_ROWS_CSV, NULL) == NULL &&
          strstr(err.text, "NUL") != NULL);
}

static void an_asked_type_frees_the_fields(void)
{
    eng_task_type pair = ENG_PAIR;
    const char *text = "{\"question\":\"q\",\"answer\":\"r\",\"label\":\"x\"}\n"
                       "{\"label\":\"x\"}\n";
    eng_dataset *set = parse_n(text, strlen(text), ENG_ROWS_JSONL, &pair);
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->type, ENG_PAIR);
    CHECK_STR(field(set, 0, "answer"), "r");
    CHECK_INT(n_errors, 1);
    eng_dataset_free(set);
}

/* Text grown by parts; the tests below need files too long to write out. */
static char *big;
static size_t big_len, big_room;

static void add(const char *part)
{
    size_t len = strlen(part);
    if (big_len + len + 1 > big_room) {
        big_room = (big_len + len + 1) * 2;
        char *grown = realloc(big, big_room);
        if (grown == NULL) {
            abort();
        }
        big = grown;
    }
    memcpy(big + big_len, part, len + 1);
    big_len += len;
}

static void long_rows_are_bad_rows(void)
{
    big_len = 0;
    add("{\"text\":\"好\",\"label\":\"甲\"}\n{\"text\":\"");
    for (size_t i = 0; i < 400000; i++) {
        add("长");
    }
    add("\",\"label\":\"甲\"}\n{\"text\":\"好\",\"label\":\"乙\"}\n");
    eng_dataset *set = jsonl(big);
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, 2);
    CHECK(n_errors == 1 && strstr(errors[0].text, "1048576") != NULL);
    eng_dataset_free(set);
}

static void too_many_labels_rows_and_errors(void)
{
    char row[128];
    big_len = 0;
    for (int i = 0; i < ENG_MAX_LABELS + 60; i++) {
        snprintf(row, sizeof row, "{\"text\":\"x\",\"label\":\"l%d\"}\n", i);
        add(row);
    }
    eng_dataset *set = jsonl(big);
    REQUIRE(set != NULL);
    CHECK_INT(eng_dataset_get_info(set)->rows, ENG_MAX_LABELS);
    CHECK_INT(eng_dataset_get_info(set)->bad_rows, 60);
    CHECK_INT(n_errors, ENG_MAX_ROW_ERRORS);
    eng_dataset_free(set);

    big_len = 0;
    for (int i = 0; i < 100001; i++) {
        add("{\"text\":\"x\",\"label\":\"l\"}\n");
    }
    CHECK(jsonl(big) == NULL && err.status == ENG_ELIMIT && strstr(err.text, "100000") != NULL);

    big_len = 0;
    add("{\"text\":\"x\",\"label\":\"l\"");
    for (int i = 0; i < ENG_MAX_FIELDS; i++) {
        snprintf(row, sizeof row, ",\"f%d\":\"v\"", i);
        add(row);
    }
    add("}");
    CHECK(jsonl(big) == NULL && strstr(err.text, "16 text fields") != NULL);
}

static void deep_json_is_a_bad_row(void)
{
    big_len = 0;
    add("{\"text\":\"x\",\"label\":\"l\"}\n");
    for (int i = 0; i < 10000; i++) {
        add("[");
    }
    eng_dataset *set = jsonl(big);
    REQUIRE(set != NULL);
    CHECK(n_errors == 1 && errors[0].line == 2);
    eng_dataset_free(set);
}

/* Every prefix of a file ends in a set or an error, never in anything else (run under ASan). */
static void every_prefix_is_survived(void)
{
    static const char text[] = "text,label,options\r\n\"甲\"\"\n乙\",好,\"a|b\"\r\n,,\n\"x\"y,z";
    static const char rows[] =
        "{\"context\":\"他到北京\",\"question\":\"?\",\"answer\":\"北京\",\"answer_start\":2}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\"}]}";
    for (size_t i = 0; i < sizeof text; i++) {
        eng_dataset_free(parse_n(text, i, ENG_ROWS_CSV, NULL));
        eng_dataset_free(parse_n(text, i, ENG_ROWS_JSONL, NULL));
    }
    for (size_t i = 0; i < sizeof rows; i++) {
        eng_dataset_free(parse_n(rows, i, ENG_ROWS_JSONL, NULL));
        eng_dataset_free(parse_n(rows, i, ENG_ROWS_CSV, NULL));
    }
}

int main(void)
{
    TESTS_BEGIN;
    RUN(classification_rows);
    RUN(other_shapes);
    RUN(chat_rows);
    RUN(csv_rows);
    RUN(a_stray_quote_loses_one_record_only);
    RUN(bad_rows);
    RUN(bad_rows_of_one_type);
    RUN(mixed_and_empty_files_fail);
    RUN(an_asked_type_frees_the_fields);
    RUN(long_rows_are_bad_rows);
    RUN(too_many_labels_rows_and_errors);
    RUN(deep_json_is_a_bad_row);
    RUN(every_prefix_is_survived);
    free(big);
    TESTS_END;
}
