/* test_store_jobs.c: jobs in the store: allowed moves, leases, publishing as one step, recovery. */
#include "tests/unit/store_test.h"

struct fixture {
    store *s;
    store_mem *mem;
    store_error err;
    int64_t a, b;
};

static struct fixture set_up(void)
{
    struct fixture f = {.s = open_fresh(NULL), .mem = store_mem_new()};
    f.a = test_tenant(f.s, "a");
    f.b = test_tenant(f.s, "b");
    test_file(f.s, f.a, "file-a");
    test_file(f.s, f.b, "file-b");
    return f;
}

static void tear_down(struct fixture *f)
{
    store_error err = {0};
    OK(store_check(f->s, true, &err));
    store_mem_free(f->mem);
    close_fresh(f->s);
}

static void make_job(struct fixture *f, int64_t tenant, const char *id)
{
    store_error err = {0};
    store_job job = test_job(tenant, id, tenant == f->a ? "file-a" : "file-b");
    OK(store_job_create(f->s, &job, &err));
}

static store_job_status status_of(struct fixture *f, int64_t tenant, const char *id)
{
    store_error err = {0};
    store_job job;
    OK(store_job_get(f->s, tenant, id, f->mem, &job, &err));
    return job.status;
}

static void create_and_read(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job = test_job(f.a, "j1", "file-a"), got;
    job.metadata = "{\"team\":\"red\"}";
    job.request_hash = "h1";
    OK(store_job_create(f.s, &job, &err));
    FAILS(store_job_create(f.s, &job, &err), STORE_EEXISTS);
    job.id = "j2";
    job.training_file = "file-b"; /* another tenant's */
    FAILS(store_job_create(f.s, &job, &err), STORE_ENOTFOUND);
    CHECK_STR(err.field, "training_file");
    job.training_file = "file-a";
    job.validation_file = "file-none";
    FAILS(store_job_create(f.s, &job, &err), STORE_ENOTFOUND);
    CHECK_STR(err.field, "validation_file");
    job.validation_file = NULL;
    job.task = 4711;
    FAILS(store_job_create(f.s, &job, &err), STORE_ENOTFOUND);
    job.task = 0;
    job.status = STORE_JOB_SUCCEEDED;
    FAILS(store_job_create(f.s, &job, &err), STORE_EINVAL);
    job.status = STORE_JOB_QUEUED;
    job.spec = "{";
    FAILS(store_job_create(f.s, &job, &err), STORE_EINVAL);
    CHECK_STR(err.field, "spec");
    OK(store_job_get(f.s, f.a, "j1", f.mem, &got, &err));
    CHECK(got.seed == UINT64_MAX);
    CHECK_INT(got.status, STORE_JOB_QUEUED);
    CHECK_INT(got.task, 0);
    FAILS(store_job_get(f.s, f.b, "j1", f.mem, &got, &err), STORE_ENOTFOUND);
    OK(store_job_find_request(f.s, f.a, "h1", 20, f.mem, &got, &err));
    CHECK_STR(got.id, "j1");
    FAILS(store_job_find_request(f.s, f.a, "h1", 21, f.mem, &got, &err), STORE_ENOTFOUND);
    FAILS(store_job_find_request(f.s, f.b, "h1", 0, f.mem, &got, &err), STORE_ENOTFOUND);
    tear_down(&f);
}

static void pages_and_metadata(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    static const char *const metadata[] = {"{\"team\":\"red\",\"n\":\"1\"}", NULL,
                                           "{\"team\":\"blue\"}", "{\"team\":\"red\"}"};
    for (size_t i = 0; i < 4; i++) {
        char id[8];
        snprintf(id, sizeof id, "j%zu", i);
        store_job job = test_job(f.a, id, "file-a");
        job.metadata = metadata[i];
        OK(store_job_create(f.s, &job, &err));
    }
    make_job(&f, f.b, "other");
    store_page page = {.limit = 3};
    store_job *items;
    size_t n;
    bool more;
    OK(store_job_list(f.s, f.a, NULL, &page, f.mem, &items, &n, &more, &err));
    CHECK(n == 3 && more && strcmp(items[0].id, "j3") == 0);
    page.after = "j1";
    OK(store_job_list(f.s, f.a, NULL, &page, f.mem, &items, &n, &more, &err));
    CHECK(n == 1 && !more && strcmp(items[0].id, "j0") == 0);
    page.after = "other";
    FAILS(store_job_list(f.s, f.a, NULL, &page, f.mem, &items, &n, &more, &err), STORE_ENOTFOUND);
    page.after = NULL;
    OK(store_job_list(f.s, f.a, "{\"team\":\"red\"}", &page, f.mem, &items, &n, &more, &err));
    CHECK(n == 2 && strcmp(items[1].id, "j0") == 0);
    OK(store_job_list(f.s, f.a, "{\"team\":\"red\",\"n\":\"1\"}", &page, f.mem, &items, &n, &more,
                      &err));
    CHECK_INT(n, 1);
    FAILS(store_job_list(f.s, f.a, "{", &page, f.mem, &items, &n, &more, &err), STORE_EINVAL);
    int64_t counts[STORE_JOB_STATUSES];
    OK(store_job_counts(f.s, f.a, counts, &err));
    CHECK_INT(counts[STORE_JOB_QUEUED], 4);
    OK(store_job_counts(f.s, 0, counts, &err));
    CHECK_INT(counts[STORE_JOB_QUEUED], 5);
    tear_down(&f);
}

static void claims_take_turns(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    FAILS(store_job_claim(f.s, "w", 1, 2, f.mem, &job, &err), STORE_ENOTFOUND);
    make_job(&f, f.a, "a1");
    make_job(&f, f.a, "a2");
    make_job(&f, f.b, "b1");
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    CHECK_STR(job.id, "a1");
    CHECK_INT(job.status, STORE_JOB_RUNNING);
    CHECK_INT(job.started, 100);
    CHECK_INT(job.attempts, 1);
    OK(store_job_claim(f.s, "w", 101, 201, f.mem, &job, &err));
    CHECK_STR(job.id, "b1"); /* a has one running already */
    OK(store_job_claim(f.s, "w", 102, 202, f.mem, &job, &err));
    CHECK_STR(job.id, "a2");
    FAILS(store_job_claim(f.s, "w", 103, 203, f.mem, &job, &err), STORE_ENOTFOUND);
    FAILS(store_file_delete(f.s, f.a, "file-a", &err), STORE_ESTATE);
    tear_down(&f);
}

/* A tenant that has as many running as it may is passed over, whoever waited longer. */
static void a_tenant_runs_no_more_than_its_limit(void)
{
    store_error err = {0};
    store_job job;
    struct fixture f = set_up();
    make_job(&f, f.a, "a1");
    make_job(&f, f.a, "a2");
    make_job(&f, f.a, "a3");
    OK(store_tenant_update(f.s, f.a, "{\"quotas\":{\"running_jobs\":1}}", 0, &err));
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    FAILS(store_job_claim(f.s, "w", 101, 201, f.mem, &job, &err), STORE_ENOTFOUND);
    make_job(&f, f.b, "b1");
    make_job(&f, f.b, "b2");
    OK(store_job_claim(f.s, "w", 102, 202, f.mem, &job, &err));
    CHECK_STR(job.id, "b1"); /* no limit of its own, nor of the server's */
    OK(store_job_claim(f.s, "w", 103, 203, f.mem, &job, &err));
    CHECK_STR(job.id, "b2");
    OK(store_tenant_update(f.s, f.a, "{\"quotas\":{\"running_jobs\":0}}", 0, &err));
    OK(store_job_claim(f.s, "w", 104, 204, f.mem, &job, &err));
    CHECK_STR(job.id, "a2");
    OK(store_tenant_update(f.s, f.a, NULL, 0, &err));
    OK(store_job_claim(f.s, "w", 105, 205, f.mem, &job, &err));
    CHECK_STR(job.id, "a3");
    tear_down(&f);
}

static void leases(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_wish wish = STORE_CANCEL;
    make_job(&f, f.a, "a1");
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_heartbeat(f.s, "a1", "w", 300, 55, &wish, &err));
    CHECK_INT(wish, STORE_GO_ON);
    FAILS(store_job_heartbeat(f.s, "a1", "thief", 300, 55, &wish, &err), STORE_ESTATE);
    OK(store_job_get(f.s, f.a, "a1", f.mem, &job, &err));
    CHECK_INT(job.lease_until, 300);
    CHECK_INT(job.trained_tokens, 55);
    FAILS(store_job_release(f.s, "a1", "thief", &err), STORE_ESTATE);
    OK(store_job_release(f.s, "a1", "w", &err));
    OK(store_job_get(f.s, f.a, "a1", f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_QUEUED);
    CHECK_INT(job.attempts, 0);
    CHECK(job.lease_owner == NULL);
    OK(store_job_claim(f.s, "w2", 100, 200, f.mem, &job, &err));
    FAILS(store_job_heartbeat(f.s, "a1", "w", 300, 55, &wish, &err), STORE_ESTATE);
    int64_t step = 0;
    store_blob state;
    FAILS(store_job_checkpoint(f.s, "a1", "w", 3, (store_blob){"x", 1}, 1, &err), STORE_ESTATE);
    OK(store_job_checkpoint(f.s, "a1", "w2", 3, (store_blob){"abc", 3}, 1, &err));
    OK(store_job_checkpoint(f.s, "a1", "w2", 4, (store_blob){"abcd", 4}, 2, &err));
    OK(store_job_get_checkpoint(f.s, "a1", f.mem, &step, &state, &err));
    CHECK(step == 4 && state.len == 4 && memcmp(state.data, "abcd", 4) == 0);
    OK(store_job_finish(f.s, "a1", "w2", STORE_JOB_FAILED, "{\"code\":\"x\"}", NULL, 60, NULL, 400,
                        &err));
    FAILS(store_job_get_checkpoint(f.s, "a1", f.mem, &step, &state, &err), STORE_ENOTFOUND);
    OK(store_job_get(f.s, f.a, "a1", f.mem, &job, &err));
    CHECK_STR(job.error, "{\"code\":\"x\"}");
    CHECK_INT(job.finished, 400);
    OK(store_file_delete(f.s, f.a, "file-a", &err));
    tear_down(&f);
}

static void cancelling(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_wish wish = STORE_GO_ON;
    int64_t task = 0, number = 0;
    make_job(&f, f.a, "waiting");
    FAILS(store_job_cancel(f.s, f.b, "waiting", 9, f.mem, &job, &err), STORE_ENOTFOUND);
    OK(store_job_cancel(f.s, f.a, "waiting", 9, f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_CANCELLED);
    CHECK_INT(job.finished, 9);
    FAILS(store_job_cancel(f.s, f.a, "waiting", 9, f.mem, &job, &err), STORE_ESTATE);
    CHECK(job.id == NULL);
    make_job(&f, f.a, "running");
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_cancel(f.s, f.a, "running", 9, f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_RUNNING);
    CHECK(job.cancel_requested);
    OK(store_job_heartbeat(f.s, "running", "w", 300, 55, &wish, &err));
    CHECK_INT(wish, STORE_CANCEL);
    store_task made = test_task(f.a, "unused");
    store_version version = test_version("route");
    FAILS(store_job_publish(f.s, "running", "w", &made, &version, NULL, NULL, 1, NULL, 500, &task,
                            &number, &err),
          STORE_ESTATE);
    OK(store_job_finish(f.s, "running", "w", STORE_JOB_CANCELLED, NULL, NULL, 60, NULL, 400, &err));
    CHECK_INT(status_of(&f, f.a, "running"), STORE_JOB_CANCELLED);
    FAILS(store_job_finish(f.s, "running", "w", STORE_JOB_SUCCEEDED, NULL, NULL, 0, NULL, 1, &err),
          STORE_EINVAL);
    tear_down(&f);
}

static void publishing(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_task made = test_task(f.a, "ignored"), task;
    store_version version = test_version("route"), got;
    store_event event = {
        .created = 501, .level = "info", .type = "message", .message = "完成", .data = "{}"};
    int64_t id = 0, number = 0;
    make_job(&f, f.a, "ft:one");
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    FAILS(store_job_publish(f.s, "ft:one", "x", &made, &version, NULL, "{}", 7, &event, 500, &id,
                            &number, &err),
          STORE_ESTATE);
    FAILS(store_job_publish(f.s, "ft:one", "w", &made, &version, NULL, "not json", 7, &event, 500,
                            &id, &number, &err),
          STORE_EINVAL);
    FAILS(store_task_find(f.s, f.a, "ft:one", f.mem, &task, &err), STORE_ENOTFOUND);
    OK(store_job_publish(f.s, "ft:one", "w", &made, &version, NULL, "{\"ok\":1}", 7, &event, 500,
                         &id, &number, &err));
    OK(store_task_find(f.s, f.a, "ft:one", f.mem, &task, &err));
    CHECK(task.id == id && task.current == 1 && number == 1);
    OK(store_version_get(f.s, f.a, id, 1, f.mem, &got, &err));
    CHECK_STR(got.job, "ft:one");
    OK(store_job_get(f.s, f.a, "ft:one", f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_SUCCEEDED);
    CHECK_INT(job.task, id);
    CHECK_INT(job.version, 1);
    CHECK_INT(job.trained_tokens, 7);
    store_job next = test_job(f.a, "j2", "file-a");
    next.task = id;
    OK(store_job_create(f.s, &next, &err));
    FAILS(store_task_delete(f.s, f.a, id, 600, &err), STORE_ESTATE);
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_publish(f.s, "j2", "w", NULL, &version, NULL, NULL, 7, NULL, 700, &id, &number,
                         &err));
    CHECK_INT(number, 2);
    OK(store_task_get(f.s, f.a, id, f.mem, &task, &err));
    CHECK_INT(task.current, 2);
    OK(store_task_delete(f.s, f.a, id, 800, &err));
    size_t removed = 0;
    OK(store_tasks_purge(f.s, 900, 5, &removed, &err));
    OK(store_job_get(f.s, f.a, "j2", f.mem, &job, &err));
    CHECK_INT(job.task, 0); /* the history stays, the link goes */
    tear_down(&f);
}

/* Two jobs for one new task: the second becomes its next version, unless it asks something else. */
static void publishing_the_same_new_task(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_task made = test_task(f.a, "ignored"), task;
    store_version version = test_version("route");
    int64_t first = 0, second = 0, number = 0;
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "j%d", i);
        job = test_job(f.a, id, "file-a");
        job.task_name = "both";
        OK(store_job_create(f.s, &job, &err));
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    }
    OK(store_job_publish(f.s, "j0", "w", &made, &version, NULL, NULL, 1, NULL, 500, &first, &number,
                         &err));
    OK(store_job_publish(f.s, "j1", "w", &made, &version, NULL, NULL, 1, NULL, 500, &second,
                         &number, &err));
    CHECK(first == second && number == 2);
    made.labels = "[\"x\",\"y\"]";
    FAILS(store_job_publish(f.s, "j2", "w", &made, &version, NULL, NULL, 1, NULL, 500, &second,
                            &number, &err),
          STORE_EEXISTS);
    OK(store_task_get(f.s, f.a, first, f.mem, &task, &err));
    CHECK_INT(task.current, 2);
    tear_down(&f);
}

static void events(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    make_job(&f, f.a, "j1");
    make_job(&f, f.a, "j2");
    int64_t seq[4];
    for (int i = 0; i < 4; i++) {
        store_event event = {
            .created = i, .level = "info", .type = "metrics", .message = "step", .data = "{}"};
        OK(store_event_add(f.s, f.a, i == 2 ? "j2" : "j1", &event, &seq[i], &err));
        CHECK(i == 0 || seq[i] > seq[i - 1]);
    }
    store_event event = {.level = "info", .type = "message", .message = "x", .data = "[1,"};
    FAILS(store_event_add(f.s, f.a, "j1", &event, NULL, &err), STORE_EINVAL);
    event.data = NULL;
    FAILS(store_event_add(f.s, f.b, "j1", &event, NULL, &err), STORE_ENOTFOUND);
    store_page page = {.limit = 2};
    store_event *items;
    size_t n;
    bool more;
    OK(store_event_list(f.s, f.a, "j1", &page, f.mem, &items, &n, &more, &err));
    CHECK(n == 2 && more && items[0].seq == seq[3]);
    char after[24];
    snprintf(after, sizeof after, "%lld", (long long)seq[0]);
    page = (store_page){.after = after, .limit = 9, .oldest_first = true};
    OK(store_event_list(f.s, f.a, "j1", &page, f.mem, &items, &n, &more, &err));
    CHECK(n == 2 && !more && items[0].seq == seq[1] && items[1].seq == seq[3]);
    FAILS(store_event_list(f.s, f.b, "j1", &page, f.mem, &items, &n, &more, &err), STORE_ENOTFOUND);
    page.after = "abc";
    FAILS(store_event_list(f.s, f.a, "j1", &page, f.mem, &items, &n, &more, &err), STORE_ENOTFOUND);
    tear_down(&f);
}

static void recovery(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_recovered recovered;
    store_wish wish;
    make_job(&f, f.a, "j1");
    make_job(&f, f.a, "j2");
    make_job(&f, f.b, "j3");
    for (int i = 0; i < 3; i++) {
        OK(store_job_claim(f.s, "w", 100, 200 + i, f.mem, &job, &err));
    }
    OK(store_job_cancel(f.s, f.a, "j2", 150, f.mem, &job, &err));
    OK(store_jobs_recover(f.s, 150, 3, "{}", 160, &recovered, &err));
    CHECK_INT(recovered.requeued + recovered.cancelled + recovered.failed, 0);
    OK(store_jobs_recover(f.s, INT64_MAX, 3, "{\"code\":\"crashed\"}", 160, &recovered, &err));
    CHECK_INT(recovered.requeued, 2);
    CHECK_INT(recovered.cancelled, 1);
    CHECK_INT(status_of(&f, f.a, "j2"), STORE_JOB_CANCELLED);
    OK(store_job_pause(f.s, f.b, "j3", f.mem, &job, &err)); /* else it would be its turn */
    for (int attempt = 2; attempt <= 3; attempt++) {
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
        CHECK_STR(job.id, "j1");
        CHECK_INT(job.attempts, attempt);
        FAILS(store_job_heartbeat(f.s, "j1", "old", 1, 1, &wish, &err), STORE_ESTATE);
        OK(store_jobs_recover(f.s, INT64_MAX, 3, "{\"code\":\"crashed\"}", 160, &recovered, &err));
    }
    CHECK_INT(recovered.failed, 1);
    OK(store_job_get(f.s, f.a, "j1", f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_FAILED);
    CHECK_STR(job.error, "{\"code\":\"crashed\"}");
    CHECK_INT(status_of(&f, f.b, "j3"), STORE_JOB_PAUSED);
    tear_down(&f);
}

static void pausing(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_job_status to;
    store_wish wish;
    store_recovered recovered;
    store_event event = {.level = "info", .type = "message", .message = "paused"};
    make_job(&f, f.a, "j1");
    OK(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err)); /* waiting: at once */
    CHECK_INT(job.status, STORE_JOB_PAUSED);
    FAILS(store_job_pause(f.s, f.b, "j1", f.mem, &job, &err), STORE_ENOTFOUND);
    FAILS(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err), STORE_ENOTFOUND);
    OK(store_job_resume(f.s, f.a, "j1", f.mem, &job, &err));
    CHECK_INT(job.status, STORE_JOB_QUEUED);
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err)); /* running: marked */
    CHECK(job.status == STORE_JOB_RUNNING && job.pause_requested);
    OK(store_job_heartbeat(f.s, "j1", "w", 300, 5, &wish, &err));
    CHECK_INT(wish, STORE_PAUSE);
    FAILS(store_job_park(f.s, "j1", "thief", 5, &event, &to, &err), STORE_ESTATE);
    CHECK_STR(err.field, "lease");
    OK(store_job_park(f.s, "j1", "w", 5, &event, &to, &err));
    CHECK_INT(to, STORE_JOB_PAUSED);
    OK(store_job_get(f.s, f.a, "j1", f.mem, &job, &err));
    CHECK(job.status == STORE_JOB_PAUSED && !job.pause_requested && job.attempts == 0);
    OK(store_job_resume(f.s, f.a, "j1", f.mem, &job, &err));
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err));
    OK(store_job_resume(f.s, f.a, "j1", f.mem, &job, &err)); /* before it was seen */
    OK(store_job_park(f.s, "j1", "w", 5, &event, &to, &err));
    CHECK_INT(to, STORE_JOB_QUEUED);
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err));
    OK(store_jobs_recover(f.s, INT64_MAX, 3, "{}", 160, &recovered, &err)); /* a crash meanwhile */
    CHECK_INT(status_of(&f, f.a, "j1"), STORE_JOB_PAUSED);
    OK(store_job_resume(f.s, f.a, "j1", f.mem, &job, &err));
    OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
    OK(store_job_cancel(f.s, f.a, "j1", 9, f.mem, &job, &err));
    OK(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err));
    OK(store_job_heartbeat(f.s, "j1", "w", 300, 5, &wish, &err));
    CHECK_INT(wish, STORE_CANCEL); /* goes before a pause */
    FAILS(store_job_park(f.s, "j1", "w", 5, &event, &to, &err), STORE_ESTATE);
    CHECK_STR(err.field, "status");
    OK(store_job_finish(f.s, "j1", "w", STORE_JOB_CANCELLED, NULL, NULL, 5, NULL, 10, &err));
    FAILS(store_job_pause(f.s, f.a, "j1", f.mem, &job, &err), STORE_ESTATE);
    FAILS(store_job_resume(f.s, f.a, "j1", f.mem, &job, &err), STORE_ESTATE);
    tear_down(&f);
}

/* One tenant's many jobs stand behind another's one after each turn. */
static void turns_go_round(void)
{
    static const char *const order[] = {"a1", "b1", "a2", "b2", "a3", "a4"};
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    make_job(&f, f.a, "a1");
    make_job(&f, f.a, "a2");
    make_job(&f, f.a, "a3");
    make_job(&f, f.a, "a4");
    make_job(&f, f.b, "b1");
    make_job(&f, f.b, "b2");
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
        CHECK_STR(job.id, order[i]);
        OK(store_job_finish(f.s, job.id, "w", STORE_JOB_FAILED, "{}", NULL, 0, NULL, 10, &err));
    }
    tear_down(&f);
}

static void getting_on_is_forgiven(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    store_recovered recovered;
    int64_t step = 0, bytes = 0, created = 0;
    const store_blob state = {"state", 5};
    make_job(&f, f.a, "j1");
    FAILS(store_job_look_checkpoint(f.s, f.a, "j1", &step, &bytes, &created, &err),
          STORE_ENOTFOUND);
    for (int64_t i = 1; i <= 5; i++) { /* more crashes than attempts, each a step further */
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
        OK(store_job_checkpoint(f.s, "j1", "w", i, state, 100 + i, &err));
        OK(store_jobs_recover(f.s, INT64_MAX, 3, "{}", 160, &recovered, &err));
        CHECK_INT(recovered.requeued, 1);
    }
    OK(store_job_look_checkpoint(f.s, f.a, "j1", &step, &bytes, &created, &err));
    CHECK(step == 5 && bytes == 5 && created == 105);
    FAILS(store_job_look_checkpoint(f.s, f.b, "j1", &step, &bytes, &created, &err),
          STORE_ENOTFOUND);
    for (int i = 0; i < 2; i++) { /* and then no further */
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
        OK(store_job_checkpoint(f.s, "j1", "w", 5, state, 106, &err));
        OK(store_jobs_recover(f.s, INT64_MAX, 3, "{}", 160, &recovered, &err));
    }
    CHECK_INT(recovered.failed, 1);
    tear_down(&f);
}

static void retention(void)
{
    struct fixture f = set_up();
    store_error err = {0};
    store_job job;
    size_t removed = 0;
    store_event event = {.level = "info", .type = "message", .message = "end"};
    static const char *const ids[] = {"j1", "j2", "j3", "open"};
    for (int64_t i = 0; i < 4; i++) {
        make_job(&f, f.a, ids[i]);
        OK(store_job_claim(f.s, "w", 100, 200, f.mem, &job, &err));
        if (i < 3) {
            OK(store_job_finish(f.s, ids[i], "w", STORE_JOB_FAILED, "{}", NULL, 0, &event, i + 1,
                                &err));
        }
    }
    OK(store_events_purge(f.s, 3, 1, &removed, &err));
    CHECK_INT(removed, 1);
    OK(store_events_purge(f.s, 3, 10, &removed, &err));
    CHECK_INT(removed, 1); /* that of j3 ended too late */
    OK(store_jobs_purge(f.s, 3, 10, &removed, &err));
    CHECK_INT(removed, 2);
    FAILS(store_job_get(f.s, f.a, "j1", f.mem, &job, &err), STORE_ENOTFOUND);
    OK(store_job_get(f.s, f.a, "j3", f.mem, &job, &err));
    OK(store_files_purge(f.s, INT64_MAX, 0, 10, &removed, &err));
    CHECK_INT(removed, 1); /* file-b: an open job reads file-a */
    OK(store_job_finish(f.s, "open", "w", STORE_JOB_CANCELLED, NULL, NULL, 0, NULL, 9, &err));
    OK(store_files_purge(f.s, INT64_MAX, 0, 10, &removed, &err));
    CHECK_INT(removed, 1);
    tear_down(&f);
}

static void status_words(void)
{
    store_job_status status;
    CHECK_STR(store_job_status_text(STORE_JOB_VALIDATING), "validating_files");
    CHECK(store_job_status_parse("cancelled", &status) && status == STORE_JOB_CANCELLED);
    CHECK(!store_job_status_parse("gone", &status));
    CHECK(!store_job_status_parse(NULL, &status));
    CHECK(store_job_finished(STORE_JOB_FAILED) && !store_job_finished(STORE_JOB_PAUSED));
    CHECK_STR(store_status_name(STORE_EFULL), "STORE_EFULL");
    CHECK_STR(store_status_name((store_status)999), "STORE_UNKNOWN");
    CHECK_STR(store_status_text(STORE_EBUSY), "in use by another process");
}

int main(void)
{
    TESTS_BEGIN;
    RUN(create_and_read);
    RUN(pages_and_metadata);
    RUN(claims_take_turns);
    RUN(a_tenant_runs_no_more_than_its_limit);
    RUN(leases);
    RUN(cancelling);
    RUN(pausing);
    RUN(turns_go_round);
    RUN(getting_on_is_forgiven);
    RUN(retention);
    RUN(publishing);
    RUN(publishing_the_same_new_task);
    RUN(events);
    RUN(recovery);
    RUN(status_words);
    TESTS_END;
}
