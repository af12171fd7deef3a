/* version.c: forms, interned; versions, counted; and where routes were learnt.
 *
 * A form is found by a hash over all it asks and compared in full, so that a million sentiment tasks
 * hold one form and compile it once. It is compiled under a mutex by whoever needs it first, and read
 * without one afterwards. Inline tasks would lose their form with every request: the last few stay.
 */
#include "server/registry_parts.h"

#include "server/fault.h"

#include <math.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

/* ---- where a route was learnt -------------------------------------------------------------- */

static const eng_bank *find_bank(const struct registry *registry, const char *model,
                                 const char *bank)
{
    if (strcmp(model, eng_model_get_info(registry->model)->fingerprint) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < registry->n_banks; i++) {
        if (strcmp(bank, eng_bank_get_info(registry->banks[i])->fingerprint) == 0) {
            return registry->banks[i];
        }
    }
    return NULL;
}

static const struct base *intern_base(struct registry *registry, const reg_publication *pub)
{
    const char *model = pub->model_fingerprint, *bank = pub->bank_fingerprint;
    if (model == NULL) {
        model = eng_model_get_info(registry->model)->fingerprint;
    }
    if (bank == NULL) {
        bank = eng_bank_get_info(registry->banks[0])->fingerprint;
    }
    struct base_node *node = registry->bases;
    while (node != NULL &&
           (strcmp(node->base.model, model) != 0 || strcmp(node->base.bank_print, bank) != 0)) {
        node = node->next;
    }
    if (node != NULL) {
        return &node->base;
    }
    node = calloc(1, sizeof *node);
    if (node == NULL) {
        return NULL;
    }
    snprintf(node->base.model, sizeof node->base.model, "%s", model);
    snprintf(node->base.bank_print, sizeof node->base.bank_print, "%s", bank);
    node->base.bank = find_bank(registry, model, bank);
    node->next = registry->bases;
    registry->bases = node;
    registry->bytes += sizeof *node + MALLOC_OVERHEAD;
    return &node->base;
}

/* ---- forms --------------------------------------------------------------------------------- */

static uint64_t hash_text(uint64_t hash, eng_text text)
{
    hash = hash_bytes(hash, &text.len, sizeof text.len);
    return hash_bytes(hash, text.data, text.len);
}

static uint64_t hash_spec(const eng_task_spec *spec, const eng_bank *bank)
{
    const unsigned char head[] = {(unsigned char)spec->type,
                                  (unsigned char)spec->may_have_no_answer};
    uint64_t hash = hash_bytes((uint64_t)(uintptr_t)bank, head, sizeof head);
    hash = hash_text(hash, spec->text_template);
    for (size_t i = 0; i < spec->n_labels; i++) {
        hash = hash_text(hash, spec->labels[i]);
    }
    return hash;
}

static bool same_text(eng_text a, eng_text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool asks_the_same(const struct form *form, const eng_task_spec *spec, const eng_bank *bank)
{
    if (form->bank != bank || form->type != spec->type ||
        form->may_have_no_answer != spec->may_have_no_answer || form->n_labels != spec->n_labels ||
        !same_text(form->text_template, spec->text_template)) {
        return false;
    }
    for (size_t i = 0; i < spec->n_labels; i++) {
        if (!same_text(form->labels[i], spec->labels[i])) {
            return false;
        }
    }
    return true;
}

static bool grow_forms(struct registry *registry)
{
    size_t n = registry->n_form_buckets == 0 ? 64 : registry->n_form_buckets * 2;
    struct form_node **forms = calloc(n, sizeof(struct form_node *));
    if (forms == NULL) {
        return false;
    }
    for (size_t i = 0; i < registry->n_form_buckets; i++) {
        struct form_node *node = registry->forms[i];
        while (node != NULL) {
            struct form_node *next = node->next;
            node->next = forms[node->hash & (n - 1)];
            forms[node->hash & (n - 1)] = node;
            node = next;
        }
    }
    free(registry->forms);
    registry->forms = forms;
    registry->n_form_buckets = n;
    return true;
}

static eng_text copy_text(char **to, eng_text text)
{
    eng_text copy = {*to, text.len};
    if (text.len > 0) {
        memcpy(*to, text.data, text.len);
    }
    *to += text.len;
    return copy;
}

/* One block: the node, the array of labels, all text. */
static struct form_node *copy_spec(const eng_task_spec *spec, const eng_bank *bank)
{
    size_t size = 0, labels = 0;
    if (!mul_sizes(spec->n_labels, sizeof(eng_text), &labels) ||
        !add_sizes(sizeof(struct form_node) + labels, spec->text_template.len, &size)) {
        return NULL;
    }
    for (size_t i = 0; i < spec->n_labels; i++) {
        if (!add_sizes(size, spec->labels[i].len, &size)) {
            return NULL;
        }
    }
    struct form_node *node = calloc(1, size);
    if (node == NULL) {
        return NULL;
    }
    eng_text *copies = (eng_text *)(node + 1);
    char *text = (char *)(copies + spec->n_labels);
    for (size_t i = 0; i < spec->n_labels; i++) {
        copies[i] = copy_text(&text, spec->labels[i]);
    }
    node->form = (struct form){.type = spec->type,
                               .may_have_no_answer = spec->may_have_no_answer,
                               .n_labels = spec->n_labels,
                               .labels = copies,
                               .text_template = copy_text(&text, spec->text_template),
                               .bank = bank};
    node->bytes = size;
    return node;
}

static struct form_node *intern_form(struct registry *registry, const eng_task_spec *spec,
                                     const eng_bank *bank)
{
    uint64_t hash = hash_spec(spec, bank);
    struct form_node *node = NULL;
    if (registry->n_form_buckets > 0) {
        node = registry->forms[hash & (registry->n_form_buckets - 1)];
    }
    while (node != NULL && (node->hash != hash || !asks_the_same(&node->form, spec, bank))) {
        node = node->next;
    }
    if (node != NULL) {
        node->refs++;
        return node;
    }
    if (registry->n_forms >= registry->n_form_buckets && !grow_forms(registry)) {
        return NULL;
    }
    node = copy_spec(spec, bank);
    if (node == NULL) {
        return NULL;
    }
    node->registry = registry;
    node->refs = 1;
    node->hash = hash;
    node->next = registry->forms[hash & (registry->n_form_buckets - 1)];
    registry->forms[hash & (registry->n_form_buckets - 1)] = node;
    registry->n_forms++;
    registry->bytes += node->bytes + MALLOC_OVERHEAD;
    return node;
}

static void unlist_used(struct registry *registry, struct form_node *node)
{
    if (node->newer != NULL) {
        node->newer->older = node->older;
    } else if (registry->newest_used == node) {
        registry->newest_used = node->older;
    }
    if (node->older != NULL) {
        node->older->newer = node->newer;
    } else if (registry->oldest_used == node) {
        registry->oldest_used = node->newer;
    }
    node->newer = NULL;
    node->older = NULL;
}

static void forget_compiled(struct registry *registry, struct form_node *node)
{
    eng_task *task = atomic_exchange(&node->compiled, NULL);
    if (task != NULL) {
        eng_task_free(task);
        atomic_fetch_sub(&registry->n_compiled, 1);
    }
}

static void drop_form(struct registry *registry, struct form_node *node)
{
    if (node == NULL || --node->refs > 0) {
        return;
    }
    struct form_node **link = &registry->forms[node->hash & (registry->n_form_buckets - 1)];
    while (*link != node) {
        link = &(*link)->next;
    }
    *link = node->next;
    registry->n_forms--;
    registry->bytes -= node->bytes + MALLOC_OVERHEAD;
    unlist_used(registry, node);
    forget_compiled(registry, node);
    free(node);
}

/* ---- which forms stay compiled ------------------------------------------------------------- */

/* Hands out a reference: the form is the one used last. Drops what the longest unused compiled. */
static void use_form(struct registry *registry, struct form_node *node)
{
    node->users++;
    unlist_used(registry, node);
    node->older = registry->newest_used;
    if (node->older != NULL) {
        node->older->newer = node;
    } else {
        registry->oldest_used = node;
    }
    registry->newest_used = node;
    struct form_node *old = registry->oldest_used;
    while (old != NULL && atomic_load(&registry->n_compiled) > MAX_COMPILED) {
        struct form_node *newer = old->newer;
        if (old->users == 0) {
            forget_compiled(registry, old);
            unlist_used(registry, old);
        }
        old = newer;
    }
}

static struct form_node *node_of(struct form *form)
{
    return (struct form_node *)(void *)form; /* the form is the node's first member */
}

eng_status registry_form(struct registry *registry, const eng_task_spec *spec, struct form **out,
                         eng_error *err)
{
    struct form_node *node = intern_form(registry, spec, registry->banks[0]);
    *out = node != NULL ? &node->form : NULL;
    if (node != NULL) {
        use_form(registry, node);
    }
    return node != NULL ? ENG_OK : fault_nomem(err, "task");
}

void form_release(struct registry *registry, struct form *form)
{
    if (form != NULL) {
        node_of(form)->users--;
        drop_form(registry, node_of(form));
    }
}

eng_status form_compile(struct form *form, const eng_task **out, eng_error *err)
{
    struct form_node *node = node_of(form);
    eng_task *task = atomic_load_explicit(&node->compiled, memory_order_acquire);
    eng_status status = ENG_OK;
    *out = task;
    if (task != NULL) {
        return ENG_OK;
    }
    const eng_task_spec spec = {.type = form->type,
                                .text_template = form->text_template,
                                .labels = form->labels,
                                .n_labels = form->n_labels,
                                .may_have_no_answer = form->may_have_no_answer};
    pthread_mutex_lock(&node->registry->compiling);
    task = atomic_load(&node->compiled);
    if (task == NULL) {
        status = eng_task_new(node->registry->model, form->bank, &spec, &task, err);
        atomic_store_explicit(&node->compiled, task, memory_order_release);
        atomic_fetch_add(&node->registry->n_compiled, task != NULL);
    }
    pthread_mutex_unlock(&node->registry->compiling);
    *out = task;
    return status;
}

static void remember_inline(struct registry *registry, struct form_node *node)
{
    for (size_t i = 0; i < RECENT_INLINE; i++) {
        if (registry->recent[i] == node) {
            return;
        }
    }
    drop_form(registry, registry->recent[registry->next_recent]);
    node->refs++;
    registry->recent[registry->next_recent] = node;
    registry->next_recent = (registry->next_recent + 1) % RECENT_INLINE;
}

void forms_fini(struct registry *registry)
{
    for (size_t i = 0; i < RECENT_INLINE; i++) {
        drop_form(registry, registry->recent[i]);
    }
    free(registry->forms);
    while (registry->bases != NULL) {
        struct base_node *next = registry->bases->next;
        free(registry->bases);
        registry->bases = next;
    }
}

/* ---- versions ------------------------------------------------------------------------------ */

static eng_status check_route(const reg_publication *pub, const eng_bank *bank, eng_error *err)
{
    if (bank != NULL && pub->route_len != 0 &&
        pub->route_len != eng_bank_get_info(bank)->route_len) {
        return fault(err, ENG_EINVAL, "route", "a route of bank \"%s\" has %zu numbers, found %zu",
                     eng_bank_get_info(bank)->name, eng_bank_get_info(bank)->route_len,
                     pub->route_len);
    }
    for (size_t i = 0; i < pub->route_len; i++) {
        if (!isfinite(pub->route[i])) {
            return fault(err, ENG_EINVAL, "route", "number %zu of the route is not finite", i);
        }
    }
    return ENG_OK;
}

static bool is_tuned(const struct version *version)
{
    return version->has_prompt || version->has_head;
}

/* Bytes up to the end of the route and of the reading behind it. */
static size_t untuned_bytes(const struct version *version)
{
    size_t floats = (size_t)version->route_len + version->reading_len;
    return sizeof(struct version_node) + floats * sizeof(float);
}

/* Where the tuned part lies behind them. */
static size_t tuned_at(const struct version *version)
{
    size_t end = untuned_bytes(version);
    return (end + alignof(struct tuned) - 1) & ~(alignof(struct tuned) - 1);
}

static size_t version_bytes(const struct version *version)
{
    return is_tuned(version) ? tuned_at(version) + sizeof(struct tuned) : untuned_bytes(version);
}

/* Whether the spec has the form's labels, in whatever order: where each of them stands in the form.
 *   places (labels) overwritten */
static bool places_in(const struct form *form, const eng_task_spec *spec, size_t *places)
{
    for (size_t j = 0; j < spec->n_labels; j++) {
        size_t at = 0;
        while (at < form->n_labels && !same_text(form->labels[at], spec->labels[j])) {
            at++;
        }
        if (at == form->n_labels) {
            return false;
        }
        places[j] = at;
    }
    return true;
}

#define MAX_READING (1 + ENG_MAX_LABELS + ENG_MAX_CROSS_LABELS * ENG_MAX_CROSS_LABELS)

/* The scaling of `like`, its labels in the order of the spec, in `room`; len 0: it has none, or other labels. */
static eng_label_scaling scaling_like(const struct version *like, const eng_task_spec *spec,
                                      float room[MAX_READING])
{
    size_t labels = spec->n_labels, places[ENG_MAX_LABELS];
    const eng_label_scaling from = version_label_scaling(like);
    if (from.len == 0 || like->form->n_labels != labels || !places_in(like->form, spec, places)) {
        return (eng_label_scaling){NULL, 0};
    }
    const float *bias = from.numbers + 1, *cross = bias + labels;
    room[0] = from.numbers[0];
    for (size_t j = 0; j < labels; j++) {
        room[1 + j] = bias[places[j]];
        for (size_t c = 0; c < labels && from.len > 1 + labels; c++) {
            room[1 + labels + j * labels + c] = cross[places[j] * labels + places[c]];
        }
    }
    return (eng_label_scaling){room, from.len};
}

/* The numbers that say how answers are read: of spans the two of their length, of labels their scaling.
 * Borrowed from the publication, or in `room`. */
static const float *reading_of(const reg_publication *pub, float room[MAX_READING], size_t *len)
{
    if (pub->spec->type == ENG_EXTRACTIVE && pub->answer_length.sigma > 0) {
        *len = sizeof pub->answer_length / sizeof(float);
        memcpy(room, &pub->answer_length, sizeof pub->answer_length);
        return room;
    }
    eng_label_scaling scaling =
        pub->like != NULL ? scaling_like(pub->like, pub->spec, room) : pub->label_scaling;
    *len = eng_label_scaling_fits(scaling.len, pub->spec->n_labels) ? scaling.len : 0;
    return scaling.numbers;
}

eng_status version_new(struct registry *registry, const reg_publication *pub, struct version **out,
                       eng_error *err)
{
    *out = NULL;
    const struct base *base = intern_base(registry, pub);
    if (base == NULL) {
        return fault_nomem(err, "task");
    }
    eng_status status = check_route(pub, base->bank, err);
    if (status != ENG_OK) {
        return status;
    }
    float room[MAX_READING];
    size_t reading_len = 0;
    const float *reading = reading_of(pub, room, &reading_len);
    struct form_node *form = intern_form(registry, pub->spec, base->bank);
    if (form == NULL) {
        return fault_nomem(err, "task");
    }
    const struct version like = {
        .form = &form->form,
        .base = base,
        .number = pub->number,
        .route_len = (uint32_t)pub->route_len,
        .has_prompt = pub->like != NULL ? pub->like->has_prompt : pub->has_prompt,
        .has_head = pub->like != NULL ? pub->like->has_head : pub->has_head,
        .reading_len = (uint16_t)reading_len};
    size_t bytes = version_bytes(&like);
    struct version_node *node = calloc(1, bytes);
    if (node == NULL) {
        drop_form(registry, form);
        return fault_nomem(err, "task");
    }
    node->refs = 1;
    node->version = like;
    if (pub->route_len > 0) {
        memcpy(node->version.route, pub->route, pub->route_len * sizeof(float));
    }
    if (reading_len > 0) {
        memcpy(node->version.route + pub->route_len, reading, reading_len * sizeof(float));
    }
    if (is_tuned(&node->version)) {
        *version_tuned(&node->version) = (struct tuned){.tenant = pub->tenant, .task = pub->task};
    }
    registry->bytes += bytes + MALLOC_OVERHEAD;
    *out = &node->version;
    return ENG_OK;
}

static struct version_node *counted(const struct version *version)
{
    return (struct version_node *)(void *)((char *)(uintptr_t)version -
                                           offsetof(struct version_node, version));
}

struct tuned *version_tuned(const struct version *version)
{
    return is_tuned(version)
               ? (struct tuned *)(void *)((char *)counted(version) + tuned_at(version))
               : NULL;
}

const eng_answer_length *version_answer_length(const struct version *version)
{
    return version->form->type == ENG_EXTRACTIVE && version->reading_len > 0
               ? (const eng_answer_length *)(const void *)(version->route + version->route_len)
               : NULL;
}

eng_label_scaling version_label_scaling(const struct version *version)
{
    bool has = version->form->n_labels > 0 && version->reading_len > 0;
    return has ? (eng_label_scaling){version->route + version->route_len, version->reading_len}
               : (eng_label_scaling){NULL, 0};
}

void version_give_prompt(struct version *version, struct prompt *prompt)
{
    struct tuned *tuned = version_tuned(version);
    if (tuned->prompt == NULL) {
        tuned->prompt = prompt;
    } else {
        prompt_release(prompt); /* another request was first */
    }
}

static const struct prompt *held_prompt(const struct version *version)
{
    const struct tuned *tuned = version_tuned(version);
    return tuned != NULL ? tuned->prompt : NULL;
}

const float *version_prompt(const struct version *version)
{
    return held_prompt(version) != NULL ? prompt_floats(held_prompt(version)) : NULL;
}

const float *version_head(const struct version *version)
{
    return held_prompt(version) != NULL ? prompt_head(held_prompt(version)) : NULL;
}

/* The version is handed out once more, or given back. */
static void use_tuned(struct version *version, bool more)
{
    struct tuned *tuned = version_tuned(version);
    if (tuned == NULL) {
        return;
    }
    tuned->users = more ? tuned->users + 1 : tuned->users - 1;
    if (tuned->users == 0 && tuned->prompt != NULL) {
        prompt_release(tuned->prompt);
        tuned->prompt = NULL;
    }
}

void version_drop(struct registry *registry, struct version *version)
{
    if (version == NULL || --counted(version)->refs > 0) {
        return;
    }
    registry->bytes -= version_bytes(version) + MALLOC_OVERHEAD;
    drop_form(registry, node_of(version->form));
    free(counted(version));
}

void version_release(struct registry *registry, struct version *version)
{
    if (version != NULL) {
        use_tuned(version, false);
        node_of(version->form)->users--;
        version_drop(registry, version);
    }
}

/* The mismatch in words: which half of the pair is missing here. */
static eng_status mismatch(const struct registry *registry, const struct base *base, eng_error *err)
{
    const char *mine = eng_model_get_info(registry->model)->fingerprint;
    if (strcmp(base->model, mine) != 0) {
        return fault(
            err, ENG_EMISMATCH, "task",
            "the task was learnt on backbone %.12s, this server runs backbone %.12s; adapt "
            "it again here or start the server with its model",
            base->model, mine);
    }
    return fault(err, ENG_EMISMATCH, "task",
                 "the task was learnt on prompt bank %.12s, which this server has not loaded (it "
                 "has %.12s); adapt it again here or load that bank",
                 base->bank_print, eng_bank_get_info(registry->banks[0])->fingerprint);
}

eng_status registry_bind(struct registry *registry, const struct version *current,
                         struct version **out, eng_error *err)
{
    *out = NULL;
    if (current->base->bank == NULL) {
        return mismatch(registry, current->base, err);
    }
    struct version_node *node = counted(current);
    node->refs++;
    use_form(registry, node_of(node->version.form));
    use_tuned(&node->version, true);
    *out = &node->version;
    return ENG_OK;
}

eng_status registry_inline(struct registry *registry, const reg_publication *pub,
                           struct version **out, eng_error *err)
{
    eng_status status = version_new(registry, pub, out, err);
    if (status == ENG_OK && (*out)->base->bank == NULL) {
        status = mismatch(registry, (*out)->base, err);
        version_drop(registry, *out);
        *out = NULL;
    }
    if (status == ENG_OK) {
        use_form(registry, node_of((*out)->form));
        use_tuned(*out, true);
        if (pub->like != NULL && version_tuned(pub->like) != NULL) {
            struct prompt *prompt = version_tuned(pub->like)->prompt;
            prompt_hold(prompt);
            version_give_prompt(*out, prompt);
        }
        remember_inline(registry, node_of((*out)->form));
    }
    return status;
}

/* ---- pins ---------------------------------------------------------------------------------- */

void drop_pins(struct registry *registry, int64_t task)
{
    for (size_t i = 0; i < MAX_PINS && registry->pins[i].task != 0; i++) {
        struct pin *pin = &registry->pins[i];
        if (pin->version != NULL && (task == 0 || pin->task == task)) {
            version_drop(registry, pin->version);
            pin->version = NULL;
        }
    }
}

const struct version *registry_find_pin(const struct registry *registry, int64_t task,
                                        int64_t number)
{
    for (size_t i = 0; i < MAX_PINS; i++) {
        const struct pin *pin = &registry->pins[i];
        if (pin->version != NULL && pin->task == task && pin->version->number == number) {
            return pin->version;
        }
    }
    return NULL;
}

eng_status registry_pin(struct registry *registry, const reg_publication *pub,
                        const struct version **out, eng_error *err)
{
    struct version *version = NULL;
    *out = registry_find_pin(registry, pub->task, pub->number);
    if (*out != NULL) {
        return ENG_OK;
    }
    eng_status status = version_new(registry, pub, &version, err);
    if (status == ENG_OK) {
        struct pin *pin = &registry->pins[registry->next_pin];
        registry->next_pin = (registry->next_pin + 1) % MAX_PINS;
        version_drop(registry, pin->version); /* places fill in order: the first free one ends */
        *pin = (struct pin){pub->task, version};
        *out = version;
    }
    return status;
}
