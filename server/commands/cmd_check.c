/* cmd_check.c: `mp2 check`: is this database, is this model directory, whole and ours? */
#include "engine/engine.h"
#include "server/commands/admin_db.h"
#include "server/commands/commands.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: mp2 check [--db FILE] [--model DIR] [--json]\n\n"
    "database  whose it is, its schema, integrity of every page and index, references; also\n"
    "          beside a running server\n"
    "model     names, shapes and values of the weights (none may be infinite or no number),\n"
    "          vocabulary, every bank in the directory, fingerprints\n\n"
    "Without --db and --model both defaults are checked. Exit code 0: all is well; 1: something "
    "is\n"
    "wrong, and said; 3: there is nothing to check at that place.\n";

struct report {
    json_t *subjects; /* [{"subject", "path", "ok", "checks": [{"name", "ok", "detail"}]}] */
    json_t *checks;   /* of the present subject */
    bool ok, missing;
};

static void begin(struct report *report, const char *subject, const char *path)
{
    report->checks = json_array();
    json_array_append_new(report->subjects, json_pack("{s:s, s:s, s:O}", "subject", subject, "path",
                                                      path, "checks", report->checks));
    json_decref(report->checks);
}

static void note(struct report *report, const char *name, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void note(struct report *report, const char *name, bool ok, const char *format, ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    report->ok = report->ok && ok;
    json_array_append_new(report->checks,
                          json_pack("{s:s, s:b, s:s}", "name", name, "ok", ok, "detail", detail));
}

/* ---- database -------------------------------------------------------------------------------- */

static void check_open_database(struct report *report, store *s)
{
    store_error err = {0};
    store_report about;
    store_mem *mem = store_mem_new();
    store_status status = mem != NULL ? store_describe(s, mem, &about, &err) : STORE_ENOMEM;
    if (status == STORE_OK) {
        note(report, "identity", true, "application id 0x%" PRIx64 ", schema %" PRId64 " of %d%s",
             (uint64_t)about.application, about.version, store_schema_version(),
             about.version < store_schema_version() ? "; the next start migrates it" : "");
        note(report, "file", true, "%" PRId64 " pages of %" PRId64 " bytes, journal %s",
             about.pages, about.page_size, about.journal != NULL ? about.journal : "?");
        note(report, "contents", true,
             "%" PRId64 " tenants, %" PRId64 " keys, %" PRId64 " tasks, %" PRId64
             " versions, %" PRId64 " files, %" PRId64 " jobs, %" PRId64 " events, %" PRId64
             " audit rows",
             about.tenants, about.keys, about.tasks, about.versions, about.files, about.jobs,
             about.events, about.audit);
    } else {
        note(report, "contents", false, "%s", err.text);
    }
    store_mem_free(mem);
    status = store_check(s, true, &err);
    note(report, "integrity", status == STORE_OK, "%s",
         status == STORE_OK ? "pages, indexes and references are whole" : err.text);
}

static void check_database(struct report *report, const struct admin_args *args)
{
    char path[PATH_MAX];
    int code = EXIT_DONE;
    store *s = NULL;
    store_error err = {0};
    if (!admin_path(args, path, sizeof path, &code)) {
        report->ok = false;
        return;
    }
    begin(report, "database", path);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        report->missing = true;
        note(report, "identity", false, "there is no database that can be read");
        return;
    }
    fclose(file);
    if (store_open_reader(path, &s, &err) != STORE_OK) {
        note(report, "identity", false, "%s", err.text);
        return;
    }
    check_open_database(report, s);
    store_close(s);
}

/* ---- model ------------------------------------------------------------------------------------- */

static bool is_bank(const char *name)
{
    static const char end[] = ".bank.safetensors";
    size_t len = strlen(name), tail = sizeof end - 1;
    return len > tail && strcmp(name + len - tail, end) == 0;
}

static void check_bank(struct report *report, const eng_model *model, const char *dir,
                       const char *name)
{
    char path[PATH_MAX], title[300];
    eng_bank *bank = NULL;
    eng_error err = {0};
    snprintf(title, sizeof title, "bank %.255s", name);
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path) {
        note(report, title, false, "the name is too long");
    } else if (eng_bank_open(model, path, false, &bank, &err) != ENG_OK) {
        note(report, title, false, "%s", err.text);
    } else {
        const eng_bank_info *info = eng_bank_get_info(bank);
        note(report, title, true,
             "%zu modules over %zu layers, %zu prompt tokens, %zu rows, fingerprint %s",
             info->modules, info->layers, info->prompt_tokens, info->rows, info->fingerprint);
    }
    eng_bank_free(bank);
}

static void check_banks(struct report *report, const eng_model *model, const char *dir)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, NULL, alphasort);
    size_t found = 0;
    for (int i = 0; i < n; i++) {
        if (is_bank(entries[i]->d_name)) {
            check_bank(report, model, dir, entries[i]->d_name);
            found++;
        }
        free(entries[i]);
    }
    free(entries);
    if (found == 0) {
        note(report, "banks", false, "no file NAME.bank.safetensors: nothing can be served");
    }
}

static void check_model(struct report *report, const char *dir)
{
    eng_model *model = NULL;
    eng_error err = {0};
    begin(report, "model", dir);
    eng_status status = eng_model_open(dir, &model, &err);
    if (status != ENG_OK) {
        report->missing = report->missing || status == ENG_ENOTFOUND;
        note(report, "weights", false, "%s", err.text);
        return;
    }
    const eng_model_info *info = eng_model_get_info(model);
    note(report, "weights", true,
         "%zu layers, width %zu, %" PRIu64 " parameters (%s), all finite, fingerprint %s",
         info->layers, info->hidden, info->parameters, info->dtype, info->fingerprint);
    note(report, "vocabulary", info->has_vocab, info->has_vocab ? "%zu words" : "none: no texts",
         info->vocab);
    check_banks(report, model, dir);
    eng_model_free(model);
}

/* ---- the whole --------------------------------------------------------------------------------- */

static void print_text(const struct report *report)
{
    json_t *subject, *check;
    size_t i, k;
    json_array_foreach(report->subjects, i, subject)
    {
        printf("%s %s\n", json_string_value(json_object_get(subject, "subject")),
               json_string_value(json_object_get(subject, "path")));
        json_array_foreach(json_object_get(subject, "checks"), k, check)
        {
            printf("  %-6s %-24s %s\n",
                   json_is_true(json_object_get(check, "ok")) ? "ok" : "FAILED",
                   json_string_value(json_object_get(check, "name")),
                   json_string_value(json_object_get(check, "detail")));
        }
    }
}

int cmd_check(int argc, char **argv)
{
    struct admin_args args;
    int code = EXIT_DONE;
    if (!admin_parse(argc, argv, help, ADMIN_MODEL, false, &args, &code)) {
        return code;
    }
    if (args.n_words > 0) {
        return usage_error("\"%s\" is one word too many", args.words[0]);
    }
    struct report report = {.subjects = json_array(), .ok = true};
    if (args.db != NULL || args.model == NULL) {
        check_database(&report, &args);
    }
    if (args.model != NULL || args.db == NULL) {
        const char *dir = default_model_dir(args.model);
        if (dir != NULL) {
            check_model(&report, dir);
        } else {
            report.missing = true;
        }
    }
    if (args.json) {
        admin_print_json(json_pack("{s:b, s:O}", "ok", report.ok, "checked", report.subjects));
    } else {
        print_text(&report);
    }
    json_decref(report.subjects);
    return report.missing ? EXIT_NO_INPUT : report.ok ? EXIT_DONE : EXIT_FAILED;
}
