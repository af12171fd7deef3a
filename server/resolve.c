/* resolve.c: from the name in a request to a version to compute with.
 *
 *     reviews, acme/reviews          the task's current version
 *     reviews@3, ft:boot:acme:x:12-3 that version, whatever the alias says
 *
 * The current version is in memory. A pinned one that is not current is read from the store on its first
 * use and kept with the registry's recent pins. A version with a tuned prompt waits for that (prompts.c).
 */
#include "server/fault.h"
#include "server/prompts.h"
#include "server/tasks.h"

#include <stdlib.h>
#include <string.h>

const char *task_own_name(struct request *req, const char *text)
{
    const char *slash = strchr(text, '/');
    const char *tenant = request_tenant_name(req);
    if (slash == NULL) {
        return text;
    }
    size_t len = (size_t)(slash - text);
    return strlen(tenant) == len && memcmp(tenant, text, len) == 0 ? slash + 1 : NULL;
}

void reply_no_task(struct request *req, const char *text, const char *pointer)
{
    const struct registry *registry = request_server(req)->registry;
    const char *name = task_own_name(req, text);
    const char *nearest =
        name != NULL ? registry_nearest(registry, request_tenant(req), name) : NULL;
    if (nearest != NULL && strcmp(nearest, name) != 0) {
        reply_problem(req, 404, "task_not_found", pointer,
                      "there is no task \"%.256s\"; the nearest of yours is \"%s\"", text, nearest);
    } else {
        reply_problem(req, 404, "task_not_found", pointer,
                      "there is no task \"%.256s\"; GET /v1/tasks lists yours", text);
    }
}

/* ---- versions that are not current ----------------------------------------------------------- */

struct pinned_look {
    char *text;
    const char *pointer;
    int64_t tenant, task, number;
    void (*then)(struct request *req, struct version *version, void *arg);
    void *arg;
    store_mem *mem;
    store_task row;
    store_version version;
    store_status status;
    store_error err;
};

static void read_pinned(void *arg, store *reader)
{
    struct pinned_look *look = arg;
    look->status = STORE_ENOMEM;
    look->mem = store_mem_new();
    if (look->mem == NULL || reader == NULL) {
        return;
    }
    look->status =
        store_task_get(reader, look->tenant, look->task, look->mem, &look->row, &look->err);
    if (look->status == STORE_OK && look->row.deleted != 0) {
        look->status = STORE_ENOTFOUND;
    }
    if (look->status == STORE_OK) {
        look->status = store_version_get(reader, look->tenant, look->task, look->number, look->mem,
                                         &look->version, &look->err);
    }
}

static void bind_and_go(struct request *req, struct registry *registry,
                        const struct version *current, const char *pointer,
                        void (*then)(struct request *req, struct version *version, void *arg),
                        void *arg)
{
    struct version *version = NULL;
    eng_error err;
    eng_status status = registry_bind(registry, current, &version, &err);
    if (status != ENG_OK) {
        reply_eng_error(req, status, &err, pointer);
    } else {
        prompts_ready(req, version, then, arg);
    }
}

static void pinned_is_read(struct request *req, void *arg)
{
    struct pinned_look *look = arg;
    struct registry *registry = request_server(req)->registry;
    const struct version *version = NULL;
    eng_error err;
    eng_status status = ENG_OK;
    if (look->status == STORE_OK && !request_is_over(req)) {
        status = tasks_pin(registry, &look->row, &look->version, &version, &err);
    }
    if (look->status == STORE_ENOTFOUND) {
        reply_no_task(req, look->text, look->pointer);
    } else if (look->status != STORE_OK) {
        reply_store_error(req, look->status, &look->err);
    } else if (status != ENG_OK) {
        reply_eng_error(req, status, &err, look->pointer);
    } else if (version != NULL) {
        bind_and_go(req, registry, version, look->pointer, look->then, look->arg);
    }
    store_mem_free(look->mem);
    look->mem = NULL;
}

static void look_up_pinned(struct request *req, const struct pinned_look *wanted)
{
    struct pinned_look *look = request_alloc(req, sizeof *look);
    char *text = request_printf(req, "%s", wanted->text);
    const char *pointer = NULL;
    if (wanted->pointer != NULL) {
        pointer = request_printf(req, "%s", wanted->pointer);
    }
    if (look == NULL || text == NULL || (pointer == NULL && wanted->pointer != NULL)) {
        reply_no_memory(req);
        return;
    }
    *look = *wanted;
    look->text = text;
    look->pointer = pointer;
    request_offload(req, read_pinned, pinned_is_read, look);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* "reviews@3" into the task and 3. False: not of this form, or no such task. */
static bool find_pinned_name(const struct registry *registry, int64_t tenant, const char *name,
                             struct reg_task_view *view, int64_t *number)
{
    const char *at = strrchr(name, '@');
    char *end = NULL;
    if (at == NULL || at[1] < '1' || at[1] > '9' || strlen(at) > 16) {
        return false;
    }
    *number = strtoll(at + 1, &end, 10);
    return *end == '\0' && registry_find(registry, tenant, name, (size_t)(at - name), view);
}

void task_resolve(struct request *req, const char *text, const char *pointer,
                  void (*then)(struct request *req, struct version *version, void *arg), void *arg)
{
    struct registry *registry = request_server(req)->registry;
    int64_t tenant = request_tenant(req), task = 0, number = 0;
    struct reg_task_view view;
    const char *name = task_own_name(req, text);
    bool found = false;
    if (strncmp(text, "ft:", 3) == 0) {
        found = ft_parse(text, request_tenant_name(req), &task, &number) &&
                registry_find_id(registry, tenant, task, &view);
    } else if (name != NULL) {
        found = registry_find(registry, tenant, name, strlen(name), &view) ||
                find_pinned_name(registry, tenant, name, &view, &number);
    }
    if (!found) {
        reply_no_task(req, text, pointer);
        return;
    }
    request_note_task(req, view.id);
    const struct version *version = view.current;
    if (number != 0 && number != version->number) {
        version = registry_find_pin(registry, view.id, number);
    }
    if (version != NULL) {
        bind_and_go(req, registry, version, pointer, then, arg);
        return;
    }
    look_up_pinned(req, &(struct pinned_look){.text = (char *)(uintptr_t)text,
                                              .pointer = pointer,
                                              .tenant = tenant,
                                              .task = view.id,
                                              .number = number,
                                              .then = then,
                                              .arg = arg});
}
