/* ep_similar.c: GET /v1/tasks/{task}/similar: whose route mixes the modules most alike.
 *
 *     ŵ = mix of a route (engine.h)      x = ŵ - 1/K, a layer at a time: what it does differently
 *     similarity = cosine of x and y     from -1 to 1; a route of average alone resembles only its like
 *
 * A worker walks the tenant's tasks in the database, where routes are; a tenant with a million of them
 * keeps it busy for about a second and no one else waits. Routes of other banks mean nothing here and
 * are passed over.
 */
#include "server/endpoints.h"
#include "server/task_call.h"
#include "server/workers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST      100
#define NAME_SIZE (STORE_MAX_NAME + 1)

struct neighbour {
    char name[NAME_SIZE];
    bool of_bank;
    double similarity;
    float *route; /* (route_len) of search.routes */
};

struct search {
    struct task_call *call;
    const eng_bank *bank;
    const eng_bank_info *info;
    const char *model; /* fingerprint */
    size_t limit, n;
    struct neighbour *found; /* (limit), most alike first */
    float *routes;           /* (limit, route_len) */
    float *mine, *other;     /* (layers, modules): x and y */
    float *route;            /* (route_len) */
    bool bad_route;
};

static void release(struct search *search)
{
    free(search->found);
    free(search->routes);
    free(search->mine);
    free(search->other);
    free(search->route);
}

static bool allocate(struct search *search)
{
    size_t width = search->info->layers * search->info->modules, len = search->info->route_len;
    search->found = calloc(search->limit, sizeof *search->found);
    search->routes = calloc(search->limit, len * sizeof(float));
    search->mine = calloc(width, sizeof(float));
    search->other = calloc(width, sizeof(float));
    search->route = calloc(len, sizeof(float));
    return search->found != NULL && search->routes != NULL && search->mine != NULL &&
           search->other != NULL && search->route != NULL;
}

/* x of a route. */
static void describe(const struct search *search, const float *route, float *x)
{
    size_t n = search->info->layers * search->info->modules;
    eng_route_mix(search->bank, route, x);
    for (size_t i = 0; i < n; i++) {
        x[i] -= 1.0F / (float)search->info->modules;
    }
}

#define SAME_AS_NONE 1e-12 /* squared length of the average's x, rounding aside */

static double cosine(const struct search *search)
{
    size_t n = search->info->layers * search->info->modules;
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        xy += (double)search->mine[i] * (double)search->other[i];
        xx += (double)search->mine[i] * (double)search->mine[i];
        yy += (double)search->other[i] * (double)search->other[i];
    }
    if (xx < SAME_AS_NONE || yy < SAME_AS_NONE) {
        return xx < SAME_AS_NONE && yy < SAME_AS_NONE ? 1 : 0;
    }
    return xy / sqrt(xx * yy);
}

/* Keeps the candidate search->route when it is among the best so far; of equals the first one. */
static void consider(struct search *search, const char *name, bool of_bank)
{
    describe(search, search->route, search->other);
    double similarity = cosine(search);
    size_t at = search->n;
    while (at > 0 && search->found[at - 1].similarity < similarity) {
        at--;
    }
    if (at == search->limit) {
        return;
    }
    bool full = search->n == search->limit;
    size_t last = full ? search->n - 1 : search->n;
    float *room =
        full ? search->found[last].route : search->routes + search->n * search->info->route_len;
    memmove(&search->found[at + 1], &search->found[at], (last - at) * sizeof search->found[0]);
    search->n = last + 1;
    search->found[at] = (struct neighbour){.of_bank = of_bank, .similarity = similarity};
    search->found[at].route = room;
    snprintf(search->found[at].name, NAME_SIZE, "%s", name);
    memcpy(room, search->route, search->info->route_len * sizeof(float));
}

/* The version's route into search->route; an absent one is the average. False: of another bank. */
static bool take_route(struct search *search, const store_version *version)
{
    size_t bytes = search->info->route_len * sizeof(float);
    if (strcmp(version->model_fingerprint, search->model) != 0 ||
        strcmp(version->bank_fingerprint, search->info->fingerprint) != 0 ||
        (version->route.len != 0 && version->route.len != bytes)) {
        return false;
    }
    memset(search->route, 0, bytes);
    if (version->route.len != 0) {
        memcpy(search->route, version->route.data, bytes);
    }
    return true;
}

static bool each_task(void *arg, const store_task *task, const store_version *current)
{
    struct search *search = arg;
    if (current != NULL && task->id != search->call->task.id && take_route(search, current)) {
        consider(search, task->name, false);
    }
    return true;
}

static void look(void *arg, store *reader)
{
    struct search *search = arg;
    struct task_call *call = search->call;
    if (!workers_has_reader(reader, &call->status, &call->err)) {
        return;
    }
    call->status = task_call_read(call, reader, &call->err);
    if (call->status != STORE_OK) {
        return;
    }
    search->bad_route = call->version.number == 0 || !take_route(search, &call->version);
    if (search->bad_route) {
        return;
    }
    describe(search, search->route, search->mine);
    for (size_t row = 0; row < search->info->rows; row++) {
        eng_bank_row(search->bank, row, search->route);
        consider(search, eng_bank_row_name(search->bank, row), true);
    }
    call->status = store_tasks_each(reader, call->tenant, each_task, search, &call->err);
}

static json_t *neighbour_json(const struct search *search, const struct neighbour *one)
{
    json_t *route = json_array();
    for (size_t i = 0; i < search->info->route_len; i++) {
        json_array_append_new(route, json_real((double)one->route[i]));
    }
    return json_pack("{s:s, s:s, s:f, s:o}", "name", one->name, "source",
                     one->of_bank ? "bank" : "task", "similarity", one->similarity, "route", route);
}

static void show(struct request *req, void *arg)
{
    struct search *search = arg;
    json_t *data = NULL;
    if (search->bad_route) {
        reply_problem(req, 409, "mismatch", NULL,
                      "the task has no route of the backbone and bank that run here");
    } else if (!task_call_failed(req, search->call)) {
        data = json_array();
        for (size_t i = 0; i < search->n; i++) {
            json_array_append_new(data, neighbour_json(search, &search->found[i]));
        }
        reply_json(req, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
    }
    release(search);
}

void ep_task_similar(struct request *req)
{
    struct task_call *call = task_call_new(req, true);
    struct search *search = call != NULL ? request_alloc(req, sizeof *search) : NULL;
    uint64_t limit = 0;
    if (call == NULL || !request_query_u64(req, "limit", 1, MOST, 10, &limit)) {
        return;
    }
    if (search == NULL) {
        reply_no_memory(req);
        return;
    }
    *search =
        (struct search){.call = call,
                        .bank = registry_default_bank(call->registry),
                        .model = eng_model_get_info(registry_model(call->registry))->fingerprint,
                        .limit = (size_t)limit};
    search->info = eng_bank_get_info(search->bank);
    if (!allocate(search)) {
        reply_no_memory(req);
        release(search);
    } else if (!request_offload(req, look, show, search)) {
        release(search);
    }
}
