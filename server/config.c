/* config.c: one table made from CONFIG_LIST; everything else walks it. */
#include "server/config.h"

#include "server/address.h"
#include "server/cors.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_text, KIND_count, KIND_bytes, KIND_time, KIND_flag };

struct setting {
    enum kind kind;
    const char *name;
    size_t offset;
    const char *text; /* default */
    uint64_t least, most;
    bool live;
    const char *help;
};

static const struct setting settings[] = {
#define CONFIG_FIXED(kind, name, text, least, most, help)                                          \
    {KIND_##kind, #name, offsetof(struct config, name), text, least, most, false, help},
#define CONFIG_LIVE(kind, name, text, least, most, help)                                           \
    {KIND_##kind, #name, offsetof(struct config, name), text, least, most, true, help},
    CONFIG_LIST(CONFIG_FIXED, CONFIG_LIVE)
#undef CONFIG_FIXED
#undef CONFIG_LIVE
};
#define SETTINGS (sizeof settings / sizeof settings[0])

struct unit {
    const char *suffix;
    uint64_t factor;
};
static const struct unit byte_units[] = {
    {"", 1}, {"K", 1024}, {"M", 1024 * 1024}, {"G", 1024 * 1024 * 1024}, {NULL, 0}};
static const struct unit time_units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                         {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(enum kind kind)
{
    return kind == KIND_bytes ? byte_units : kind == KIND_time ? time_units : no_units;
}

static const char *shape_of(enum kind kind)
{
    return kind == KIND_bytes  ? "a whole number with K, M or G"
           : kind == KIND_time ? "a whole number with ms, s, m, h or d"
                               : "a whole number";
}

static void *member(struct config *config, const struct setting *setting)
{
    return (char *)config + setting->offset;
}

/* False: not a number with one of the units. "0" needs none. */
static bool parse_number(const char *text, const struct unit *units, uint64_t *out)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    if (number == 0 && *end == '\0') {
        *out = 0;
        return true;
    }
    for (; units->suffix != NULL; units++) {
        if (strcmp(end, units->suffix) == 0) {
            return !__builtin_mul_overflow((uint64_t)number, units->factor, out);
        }
    }
    return false;
}

/* The number with the largest unit that divides it. */
static void print_number(char *text, size_t size, enum kind kind, uint64_t number)
{
    const struct unit *best = units_of(kind);
    for (const struct unit *unit = best; unit->suffix != NULL; unit++) {
        if (number % unit->factor == 0) {
            best = unit;
        }
    }
    snprintf(text, size, "%llu%s", (unsigned long long)(number / best->factor), best->suffix);
}

/* What a text must be beyond being one of its choices. */
static const struct {
    const char *name;
    bool (*ok)(const char *value, char *why, size_t size);
} text_checks[] = {{"listen", address_listen_ok},
                   {"trusted_proxies", address_networks_ok},
                   {"cors_origins", cors_origins_ok}};

static bool check_text(const struct setting *setting, const char *value,
                       char why[CONFIG_ERROR_SIZE])
{
    for (size_t i = 0; i < sizeof text_checks / sizeof text_checks[0]; i++) {
        if (strcmp(text_checks[i].name, setting->name) == 0) {
            return text_checks[i].ok(value, why, CONFIG_ERROR_SIZE);
        }
    }
    return true;
}

/* Choices are the words of a help that ends in "[a|b|c]". */
static bool is_choice(const char *help, const char *value)
{
    const char *list = strrchr(help, '[');
    size_t len = strlen(help);
    if (list == NULL || help[len - 1] != ']') {
        return true;
    }
    size_t want = strlen(value);
    for (const char *word = list + 1; *word != '\0';) {
        size_t n = strcspn(word, "|]");
        if (n == want && memcmp(word, value, n) == 0) {
            return true;
        }
        word += n + 1;
    }
    return false;
}

static bool set_text(struct config *config, const struct setting *setting, const char *value,
                     char why[CONFIG_ERROR_SIZE])
{
    if (!is_choice(setting->help, value)) {
        snprintf(why, CONFIG_ERROR_SIZE, "%s is one of %s, got \"%.64s\"", setting->name,
                 strrchr(setting->help, '['), value);
        return false;
    }
    if (!check_text(setting, value, why)) {
        return false;
    }
    char *copy = strdup(value);
    if (copy == NULL) {
        snprintf(why, CONFIG_ERROR_SIZE, "out of memory");
        return false;
    }
    const char **at = member(config, setting);
    free((char *)*at);
    *at = copy;
    return true;
}

static bool set_flag(struct config *config, const struct setting *setting, const char *value,
                     char why[CONFIG_ERROR_SIZE])
{
    bool yes = strcmp(value, "yes") == 0;
    if (!yes && strcmp(value, "no") != 0) {
        snprintf(why, CONFIG_ERROR_SIZE, "%s is yes or no, got \"%.64s\"", setting->name, value);
        return false;
    }
    *(bool *)member(config, setting) = yes;
    return true;
}

static bool set_number(struct config *config, const struct setting *setting, const char *value,
                       char why[CONFIG_ERROR_SIZE])
{
    uint64_t number = 0;
    bool ok = parse_number(value, units_of(setting->kind), &number);
    if (!ok || number < setting->least || number > setting->most) {
        char least[32], most[32];
        print_number(least, sizeof least, setting->kind, setting->least);
        print_number(most, sizeof most, setting->kind, setting->most);
        snprintf(why, CONFIG_ERROR_SIZE, "%s is %s from %s to %s, got \"%.64s\"", setting->name,
                 shape_of(setting->kind), least, most, value);
        return false;
    }
    if (setting->kind == KIND_time) {
        *(int64_t *)member(config, setting) = (int64_t)number;
    } else {
        *(uint64_t *)member(config, setting) = number;
    }
    return true;
}

static bool set(struct config *config, const struct setting *setting, const char *value,
                char why[CONFIG_ERROR_SIZE])
{
    switch (setting->kind) {
    case KIND_text:
        return set_text(config, setting, value, why);
    case KIND_flag:
        return set_flag(config, setting, value, why);
    default:
        return set_number(config, setting, value, why);
    }
}

/* Letters that differ at the same place, and in length: enough to find a slip of the finger. */
static size_t difference(const char *a, const char *b)
{
    size_t n = 0, front = 0, la = strlen(a), lb = strlen(b), back = 0;
    while (front < la && front < lb && a[front] == b[front]) {
        front++;
    }
    while (back < la - front && back < lb - front && a[la - 1 - back] == b[lb - 1 - back]) {
        back++;
    }
    n = (la > lb ? la : lb) - front - back;
    return n;
}

static const struct setting *find(const char *name)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        if (strcmp(settings[i].name, name) == 0) {
            return &settings[i];
        }
    }
    return NULL;
}

static void say_unknown(const char *name, char why[CONFIG_ERROR_SIZE])
{
    const struct setting *near = &settings[0];
    for (size_t i = 1; i < SETTINGS; i++) {
        if (difference(name, settings[i].name) < difference(name, near->name)) {
            near = &settings[i];
        }
    }
    snprintf(why, CONFIG_ERROR_SIZE, "no setting is called \"%.64s\"; the nearest is %s", name,
             near->name);
}

bool config_set(struct config *config, const char *name, const char *value,
                char why[CONFIG_ERROR_SIZE])
{
    const struct setting *setting = find(name);
    if (setting == NULL) {
        say_unknown(name, why);
        return false;
    }
    return set(config, setting, value, why);
}

struct config *config_new(void)
{
    struct config *config = calloc(1, sizeof *config);
    char why[CONFIG_ERROR_SIZE];
    for (size_t i = 0; config != NULL && i < SETTINGS; i++) {
        if (!set(config, &settings[i], settings[i].text, why)) {
            config_free(config);
            return NULL;
        }
    }
    return config;
}

void config_free(struct config *config)
{
    for (size_t i = 0; config != NULL && i < SETTINGS; i++) {
        if (settings[i].kind == KIND_text) {
            free(*(char **)member(config, &settings[i]));
        }
    }
    free(config);
}

bool config_check(const struct config *config, char why[CONFIG_ERROR_SIZE])
{
    if ((config->tls_certificate[0] != '\0') != (config->tls_key[0] != '\0')) {
        snprintf(why, CONFIG_ERROR_SIZE,
                 "tls_certificate and tls_key are given together or not at all");
        return false;
    }
    return true;
}

/* ---- reloading ------------------------------------------------------------------------------- */

static bool is_same(const struct setting *setting, const struct config *a, const struct config *b)
{
    const char *at = (const char *)a + setting->offset, *bt = (const char *)b + setting->offset;
    switch (setting->kind) {
    case KIND_text:
        return strcmp(*(char *const *)at, *(char *const *)bt) == 0;
    case KIND_flag:
        return *(const bool *)at == *(const bool *)bt;
    default:
        return memcmp(at, bt, sizeof(uint64_t)) == 0;
    }
}

/* False: out of memory. */
static bool copy_setting(const struct setting *setting, struct config *to,
                         const struct config *from)
{
    const char *source = (const char *)from + setting->offset;
    if (setting->kind == KIND_text) {
        char *copy = strdup(*(char *const *)source);
        if (copy == NULL) {
            return false;
        }
        free(*(char **)member(to, setting));
        *(char **)member(to, setting) = copy;
    } else {
        memcpy(member(to, setting), source,
               setting->kind == KIND_flag ? sizeof(bool) : sizeof(uint64_t));
    }
    return true;
}

static void append_name(char list[CONFIG_ERROR_SIZE], const char *name)
{
    size_t len = strlen(list);
    snprintf(list + len, CONFIG_ERROR_SIZE - len, "%s%s", len > 0 ? ", " : "", name);
}

bool config_merge(struct config *fresh, const struct config *now, char changed[CONFIG_ERROR_SIZE],
                  char kept[CONFIG_ERROR_SIZE])
{
    changed[0] = kept[0] = '\0';
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        if (is_same(setting, fresh, now)) {
            continue;
        }
        append_name(setting->live ? changed : kept, setting->name);
        if (!setting->live && !copy_setting(setting, fresh, now)) {
            return false;
        }
    }
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        text[--len] = '\0';
    }
    return text;
}

static bool read_line(struct config *config, char *line, char why[CONFIG_ERROR_SIZE])
{
    char *name = trim(line);
    if (name[0] == '\0' || name[0] == '#') {
        return true;
    }
    char *equals = strchr(name, '=');
    if (equals == NULL) {
        snprintf(why, CONFIG_ERROR_SIZE, "a line is \"name = value\", got \"%.64s\"", name);
        return false;
    }
    *equals = '\0';
    return config_set(config, trim(name), trim(equals + 1), why);
}

bool config_read_file(struct config *config, const char *path, char why[CONFIG_ERROR_SIZE])
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(why, CONFIG_ERROR_SIZE, "%.200s: %s", path, strerror(errno));
        return false;
    }
    char line[1024], what[CONFIG_ERROR_SIZE];
    size_t number = 0;
    bool ok = true;
    while (ok && fgets(line, sizeof line, file) != NULL) {
        number++;
        if (strchr(line, '\n') == NULL && !feof(file)) {
            snprintf(what, sizeof what, "a line has at most %zu bytes", sizeof line - 2);
            ok = false;
        } else {
            ok = read_line(config, line, what);
        }
    }
    if (!ok) {
        snprintf(why, CONFIG_ERROR_SIZE, "%.200s:%zu: %.280s", path, number, what);
    } else if (ferror(file)) {
        snprintf(why, CONFIG_ERROR_SIZE, "%.200s: %s", path, strerror(errno));
        ok = false;
    }
    fclose(file);
    return ok;
}

bool config_read_env(struct config *config, char why[CONFIG_ERROR_SIZE])
{
    for (size_t i = 0; i < SETTINGS; i++) {
        char name[64];
        size_t n = (size_t)snprintf(name, sizeof name, "MP2_%s", settings[i].name);
        for (size_t k = 0; k < n; k++) {
            name[k] = (char)toupper((unsigned char)name[k]);
        }
        const char *value = getenv(name);
        char what[CONFIG_ERROR_SIZE];
        if (value != NULL && !set(config, &settings[i], value, what)) {
            snprintf(why, CONFIG_ERROR_SIZE, "environment variable %s: %.400s", name, what);
            return false;
        }
    }
    return true;
}

bool config_read_flag(struct config *config, int argc, char **argv, int *i,
                      char why[CONFIG_ERROR_SIZE])
{
    why[0] = '\0';
    const char *flag = argv[*i];
    size_t len = strcspn(flag, "=");
    char name[64];
    if (strncmp(flag, "--", 2) != 0 || len - 2 >= sizeof name) {
        return false;
    }
    for (size_t k = 0; k < len - 2; k++) {
        name[k] = flag[2 + k];
        if (name[k] == '-') {
            name[k] = '_';
        }
    }
    name[len - 2] = '\0';
    const struct setting *setting = find(name);
    if (setting == NULL) {
        return false;
    }
    if (flag[len] == '=') {
        set(config, setting, flag + len + 1, why);
    } else if (*i + 1 >= argc) {
        snprintf(why, CONFIG_ERROR_SIZE, "%s wants a value", flag);
    } else {
        *i += 1;
        set(config, setting, argv[*i], why);
    }
    *i += 1;
    return true;
}

void config_print(FILE *out)
{
    fputs(
        "# mp2.conf: every setting of `mp2 serve` with its default.\n"
        "#\n"
        "# A setting is also an environment variable (max_json: MP2_MAX_JSON) and an option of\n"
        "# `mp2 serve` (--max-json). Options win over the environment, the environment over this\n"
        "# file. Sizes take K, M, G (1024); times ms, s, m, h, d. Settings marked \"live\" are "
        "read\n"
        "# again on SIGHUP, the others at start only.\n",
        out);
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        fprintf(out, "\n# %s%s", setting->live ? "(live) " : "", setting->help);
        if (setting->kind != KIND_text && setting->kind != KIND_flag) {
            char least[32], most[32];
            print_number(least, sizeof least, setting->kind, setting->least);
            print_number(most, sizeof most, setting->kind, setting->most);
            fprintf(out, " (%s to %s)", least, most);
        }
        fprintf(out, "\n#%s = %s\n", setting->name, setting->text);
    }
}

void config_help(FILE *out)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        char flag[64];
        size_t n = (size_t)snprintf(flag, sizeof flag, "--%s", settings[i].name);
        for (size_t k = 2; k < n; k++) {
            flag[k] = flag[k] == '_' ? '-' : flag[k];
        }
        fprintf(out, "  %-26s %s", flag, settings[i].help);
        fprintf(out, settings[i].text[0] != '\0' ? " (%s)\n" : "%s\n", settings[i].text);
    }
}
