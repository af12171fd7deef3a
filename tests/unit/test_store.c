/* test_store.c: the store's tenants, keys, tasks, versions and files: what they keep, what they
 * refuse, and that one tenant never sees another's. */
#include "tests/unit/store_test.h"

static void tenants(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    store_tenant tenant;
    int64_t again = 7;
    int64_t id = test_tenant(s, "acme");
    FAILS(store_tenant_create(s, "acme", NULL, 1, &again, &err), STORE_EEXISTS);
    CHECK_INT(again, 0);
    CHECK(strstr(err.text, "acme") != NULL);
    FAILS(store_tenant_create(s, "", NULL, 1, &again, &err), STORE_EINVAL);
    CHECK_STR(err.field, "name");
    FAILS(store_tenant_create(s, "b", "{not json", 1, &again, &err), STORE_EINVAL);
    OK(store_tenant_update(s, id, "{\"weight\":2}", 99, &err));
    OK(store_tenant_find(s, "acme", mem, &tenant, &err));
    CHECK_INT(tenant.id, id);
    CHECK_STR(tenant.settings, "{\"weight\":2}");
    CHECK_INT(tenant.disabled, 99);
    OK(store_tenant_get(s, id, mem, &tenant, &err));
    CHECK_STR(tenant.name, "acme");
    FAILS(store_tenant_get(s, 12345, mem, &tenant, &err), STORE_ENOTFOUND);
    CHECK(tenant.name == NULL);
    FAILS(store_tenant_update(s, 12345, NULL, 0, &err), STORE_ENOTFOUND);
    store_mem_free(mem);
    close_fresh(s);
}

static void tenant_pages(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        test_tenant(s, name);
    }
    store_page page = {.limit = 2, .oldest_first = true};
    store_tenant *items;
    size_t n;
    bool more;
    OK(store_tenant_list(s, &page, mem, &items, &n, &more, &err));
    CHECK_INT(n, 2);
    CHECK(more);
    CHECK_STR(items[1].name, "t1");
    page.after = "t3";
    OK(store_tenant_list(s, &page, mem, &items, &n, &more, &err));
    CHECK_INT(n, 1);
    CHECK(!more);
    page.after = "nobody";
    FAILS(store_tenant_list(s, &page, mem, &items, &n, &more, &err), STORE_ENOTFOUND);
    CHECK_INT(n, 0);
    page.limit = 0;
    FAILS(store_tenant_list(s, &page, mem, &items, &n, &more, &err), STORE_EINVAL);
    page.limit = STORE_MAX_PAGE + 1;
    FAILS(store_tenant_list(s, &page, mem, &items, &n, &more, &err), STORE_EINVAL);
    store_mem_free(mem);
    close_fresh(s);
}

struct seen_keys {
    int n;
    uint32_t scopes;
    char tenant[32];
};

static bool see_key(void *arg, const store_key *key, const store_tenant *tenant)
{
    struct seen_keys *seen = arg;
    seen->n++;
    seen->scopes |= key->scopes;
    snprintf(seen->tenant, sizeof seen->tenant, "%s", tenant->name);
    return seen->n < 2;
}

static void keys(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b");
    store_key key = {.id = "k1", .tenant = a, .scopes = STORE_SCOPE_PREDICT, .created = 3};
    memset(key.hash, 1, sizeof key.hash);
    OK(store_key_create(s, &key, &err));
    FAILS(store_key_create(s, &key, &err), STORE_EEXISTS);
    key.id = "k2";
    FAILS(store_key_create(s, &key, &err), STORE_EEXISTS); /* the hash */
    memset(key.hash, 2, sizeof key.hash);
    key.tenant = 999;
    FAILS(store_key_create(s, &key, &err), STORE_ENOTFOUND);
    key.tenant = b;
    key.scopes = STORE_SCOPE_ADMIN;
    key.label = "laptop";
    OK(store_key_create(s, &key, &err));
    store_page page = {.limit = 10};
    store_key *items;
    size_t n;
    bool more;
    FAILS(store_key_revoke(s, a, "k2", 50, &err), STORE_ENOTFOUND);
    OK(store_key_revoke(s, b, "k2", 50, &err));
    OK(store_key_revoke(s, b, "k2", 60, &err));
    OK(store_key_touch(s, b, "k2", 70, &err));
    OK(store_key_list(s, b, &page, mem, &items, &n, &more, &err));
    REQUIRE(n == 1);
    CHECK_STR(items[0].label, "laptop");
    CHECK_INT(items[0].revoked, 50);
    CHECK_INT(items[0].last_used, 70);
    CHECK_INT(items[0].hash[31], 2);
    struct seen_keys seen = {0};
    OK(store_keys_load(s, see_key, &seen, &err));
    CHECK_INT(seen.n, 2);
    CHECK_INT(seen.scopes, STORE_SCOPE_PREDICT | STORE_SCOPE_ADMIN);
    CHECK_STR(seen.tenant, "b");
    store_mem_free(mem);
    close_fresh(s);
}

static void tasks(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b"), id = 0, other = 0;
    store_task task = test_task(a, "评论");
    store_version version = test_version("import");
    OK(store_task_create(s, &task, &version, &id, &err));
    FAILS(store_task_create(s, &task, NULL, &other, &err), STORE_EEXISTS);
    CHECK_INT(other, 0);
    task.tenant = b;
    OK(store_task_create(s, &task, NULL, &other, &err)); /* names are per tenant */
    store_task got;
    OK(store_task_find(s, a, "评论", mem, &got, &err));
    CHECK_INT(got.id, id);
    CHECK_INT(got.current, 1);
    CHECK_STR(got.labels, "[\"好\",\"坏\"]");
    CHECK(got.text_template == NULL);
    FAILS(store_task_get(s, b, id, mem, &got, &err), STORE_ENOTFOUND);
    store_task_change change = {.text_template = "“{text}”选项："};
    OK(store_task_update(s, a, id, &change, 77, &err));
    FAILS(store_task_update(s, b, id, &change, 77, &err), STORE_ENOTFOUND);
    OK(store_task_get(s, a, id, mem, &got, &err));
    CHECK_STR(got.text_template, "“{text}”选项：");
    CHECK_STR(got.name, "评论");
    CHECK_INT(got.updated, 77);
    store_mem_free(mem);
    close_fresh(s);
}

static void soft_delete(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), first = 0, second = 0;
    store_task task = test_task(a, "t"), got;
    store_version version = test_version("import");
    OK(store_task_create(s, &task, &version, &first, &err));
    OK(store_task_delete(s, a, first, 100, &err));
    FAILS(store_task_delete(s, a, first, 100, &err), STORE_ENOTFOUND);
    FAILS(store_task_find(s, a, "t", mem, &got, &err), STORE_ENOTFOUND);
    OK(store_task_create(s, &task, NULL, &second, &err));
    CHECK(second > first);
    FAILS(store_task_restore(s, a, first, 101, &err), STORE_EEXISTS);
    store_task_change rename = {.name = "t2"};
    OK(store_task_update(s, a, second, &rename, 102, &err));
    OK(store_task_restore(s, a, first, 103, &err));
    OK(store_task_find(s, a, "t", mem, &got, &err));
    CHECK_INT(got.id, first);
    CHECK_INT(got.current, 1);
    rename.name = "t";
    FAILS(store_task_update(s, a, second, &rename, 104, &err), STORE_EEXISTS);
    size_t removed = 9;
    OK(store_task_delete(s, a, first, 200, &err));
    OK(store_tasks_purge(s, 200, 10, &removed, &err));
    CHECK_INT(removed, 0);
    OK(store_tasks_purge(s, 201, 10, &removed, &err));
    CHECK_INT(removed, 1);
    FAILS(store_task_get(s, a, first, mem, &got, &err), STORE_ENOTFOUND);
    OK(store_check(s, true, &err));
    store_mem_free(mem);
    close_fresh(s);
}

/* Lists every page of a query and writes the names one after the other. */
static void all_names(store *s, int64_t tenant, store_task_query query, char *out, size_t size)
{
    store_mem *mem = store_mem_new();
    store_error err = {0};
    bool more = true;
    char after[64];
    out[0] = '\0';
    while (more) {
        store_task *items;
        size_t n;
        OK(store_task_list(s, tenant, &query, mem, &items, &n, &more, &err));
        CHECK(n <= query.page.limit);
        for (size_t i = 0; i < n; i++) {
            size_t used = strlen(out);
            snprintf(out + used, size - used, "%s ", items[i].name);
        }
        if (n == 0) {
            break;
        }
        if (query.by_name) {
            snprintf(after, sizeof after, "%s", items[n - 1].name);
        } else {
            snprintf(after, sizeof after, "%lld", (long long)items[n - 1].id);
        }
        query.page.after = after;
    }
    store_mem_free(mem);
}

static void task_pages(void)
{
    static const char *const names[] = {"beta", "alpha", "新闻", "al", "alps", "zeta"};
    store *s = open_fresh(NULL);
    store_error err = {0};
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b"), id = 0, last = 0;
    for (size_t i = 0; i < 6; i++) {
        store_task task = test_task(a, names[i]);
        OK(store_task_create(s, &task, NULL, &last, &err));
        task.tenant = b;
        OK(store_task_create(s, &task, NULL, &id, &err));
    }
    OK(store_task_delete(s, a, last, 5, &err));
    char got[256];
    store_task_query query = {.page = {.limit = 2, .oldest_first = true}};
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "beta alpha 新闻 al alps ");
    query.page.oldest_first = false;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "alps al 新闻 alpha beta ");
    query.by_name = true;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "新闻 beta alps alpha al ");
    query.page.oldest_first = true;
    query.prefix = "al";
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "al alpha alps ");
    query.prefix = "新";
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "新闻 ");
    query = (store_task_query){.page = {.limit = 5}, .by_change = true, .deleted = true};
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "zeta ");
    query = (store_task_query){.page = {.limit = 5}, .by_name = true, .type = "choice"};
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "");
    query.by_name = false;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "");
    query.type = test_task(a, "any").type;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "alps al 新闻 alpha beta ");
    /* By the last change; of those that changed together by number. */
    store_task found;
    store_mem *mem = store_mem_new();
    OK(store_task_find(s, a, "alpha", mem, &found, &err));
    OK(store_task_update(s, a, found.id, &(store_task_change){.metadata = "{}"}, 900, &err));
    query = (store_task_query){.page = {.limit = 2, .oldest_first = true}, .by_change = true};
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "beta 新闻 al alps alpha ");
    query.page.oldest_first = false;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "alpha alps al 新闻 beta ");
    /* Deleted ones: the last deletion first, also of one name. */
    OK(store_task_delete(s, a, found.id, 901, &err));
    query.deleted = true;
    all_names(s, a, query, got, sizeof got);
    CHECK_STR(got, "alpha zeta ");
    FAILS(store_task_find_deleted(s, a, "beta", mem, &found, &err), STORE_ENOTFOUND);
    OK(store_task_find_deleted(s, a, "alpha", mem, &found, &err));
    OK(store_task_restore(s, a, found.id, 902, &err));
    FAILS(store_task_find_deleted(s, a, "alpha", mem, &found, &err), STORE_ENOTFOUND);
    store_mem_free(mem);
    close_fresh(s);
}

struct seen_tasks {
    int n, with_version;
};

static bool see_task(void *arg, const store_task *task, const store_version *current)
{
    struct seen_tasks *seen = arg;
    seen->n++;
    if (current != NULL) {
        seen->with_version++;
        CHECK_INT(current->number, task->current);
        CHECK_INT(current->route.len, sizeof test_route);
        CHECK_STR(current->bank_fingerprint, "bank-1");
    }
    return true;
}

static void versions(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b"), id = 0, number = 0;
    store_task task = test_task(a, "t"), got_task;
    store_version version = test_version("route"), got;
    OK(store_task_create(s, &task, &version, &id, &err));
    version.prompt = (store_blob){"PROMPT", 6};
    version.answer_length = (store_blob){"LENGTHS", 8};
    version.label_scaling = (store_blob){"NUMBERS", 8};
    OK(store_version_add(s, a, id, &version, false, &number, &err));
    CHECK_INT(number, 2);
    FAILS(store_version_add(s, b, id, &version, false, &number, &err), STORE_ENOTFOUND);
    CHECK_INT(number, 0);
    OK(store_task_get(s, a, id, mem, &got_task, &err));
    CHECK_INT(got_task.current, 1);
    OK(store_task_set_current(s, a, id, 2, 9, &err));
    FAILS(store_task_set_current(s, a, id, 3, 9, &err), STORE_ENOTFOUND);
    FAILS(store_task_set_current(s, b, id, 1, 9, &err), STORE_ENOTFOUND);
    OK(store_task_get(s, a, id, mem, &got_task, &err));
    CHECK_INT(got_task.current, 2);
    OK(store_version_get(s, a, id, 2, mem, &got, &err));
    CHECK(got.has_prompt && !got.has_head);
    CHECK(got.answer_length.len == 8 && memcmp(got.answer_length.data, "LENGTHS", 8) == 0);
    CHECK(got.label_scaling.len == 8 && memcmp(got.label_scaling.data, "NUMBERS", 8) == 0);
    OK(store_version_get(s, a, id, 1, mem, &got, &err));
    CHECK(got.answer_length.data == NULL && got.label_scaling.data == NULL);
    OK(store_version_get(s, a, id, 2, mem, &got, &err));
    CHECK(memcmp(got.route.data, test_route, sizeof test_route) == 0);
    CHECK_STR(got.metrics, "{\"accuracy\":0.5}");
    FAILS(store_version_get(s, b, id, 2, mem, &got, &err), STORE_ENOTFOUND);
    store_blob prompt, head;
    OK(store_version_blobs(s, a, id, 2, mem, &prompt, &head, &err));
    CHECK(prompt.len == 6 && memcmp(prompt.data, "PROMPT", 6) == 0 && head.data == NULL);
    OK(store_version_blobs(s, a, id, 1, mem, &prompt, &head, &err));
    CHECK(prompt.data == NULL);
    store_page page = {.limit = 1};
    store_version *items;
    size_t n;
    bool more;
    OK(store_version_list(s, a, id, &page, mem, &items, &n, &more, &err));
    CHECK(n == 1 && more && items[0].number == 2);
    page.after = "2";
    OK(store_version_list(s, a, id, &page, mem, &items, &n, &more, &err));
    CHECK(n == 1 && !more && items[0].number == 1);
    version.bank = NULL;
    FAILS(store_version_add(s, a, id, &version, true, &number, &err), STORE_EINVAL);
    version.bank = "shallow";
    version.route = (store_blob){0}; /* the average */
    OK(store_version_add(s, a, id, &version, false, &number, &err));
    OK(store_version_get(s, a, id, number, mem, &got, &err));
    CHECK_INT(got.route.len, 0);
    task.name = "empty";
    OK(store_task_create(s, &task, NULL, &number, &err));
    struct seen_tasks seen = {0};
    OK(store_tasks_load(s, see_task, &seen, &err));
    CHECK_INT(seen.n, 2);
    CHECK_INT(seen.with_version, 1);
    store_mem_free(mem);
    close_fresh(s);
}

static void files(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b");
    static const char bytes[] = "{\"text\":\"\0好\"}\n";
    store_file file = {.id = "file-1",
                       .tenant = a,
                       .filename = "好.jsonl",
                       .purpose = "fine-tune",
                       .status = "processed",
                       .details = "{\"rows\":1}",
                       .created = 5};
    memset(file.sha256, 9, sizeof file.sha256);
    OK(store_file_create(s, &file, (store_blob){bytes, sizeof bytes}, &err));
    FAILS(store_file_create(s, &file, (store_blob){bytes, 1}, &err), STORE_EEXISTS);
    test_file(s, a, "file-2");
    test_file(s, b, "file-3");
    store_file got;
    store_blob data;
    OK(store_file_get(s, a, "file-1", mem, &got, &err));
    CHECK_STR(got.filename, "好.jsonl");
    CHECK_INT(got.bytes, sizeof bytes);
    CHECK_INT(got.sha256[0], 9);
    FAILS(store_file_get(s, b, "file-1", mem, &got, &err), STORE_ENOTFOUND);
    OK(store_file_data(s, a, "file-1", mem, &data, &err));
    CHECK(data.len == sizeof bytes && memcmp(data.data, bytes, sizeof bytes) == 0);
    FAILS(store_file_data(s, b, "file-1", mem, &data, &err), STORE_ENOTFOUND);
    store_page page = {.limit = 5};
    store_file *items;
    size_t n;
    bool more;
    OK(store_file_list(s, a, NULL, &page, mem, &items, &n, &more, &err));
    CHECK(n == 2 && !more && strcmp(items[0].id, "file-2") == 0);
    OK(store_file_list(s, a, "assistants", &page, mem, &items, &n, &more, &err));
    CHECK_INT(n, 0);
    page.after = "file-3"; /* another tenant's is as good as none */
    FAILS(store_file_list(s, a, NULL, &page, mem, &items, &n, &more, &err), STORE_ENOTFOUND);
    int64_t count = 0, total = 0;
    OK(store_file_totals(s, a, &count, &total, &err));
    CHECK_INT(count, 2);
    CHECK_INT(total, sizeof bytes + 3);
    FAILS(store_file_delete(s, b, "file-1", &err), STORE_ENOTFOUND);
    OK(store_file_delete(s, a, "file-1", &err));
    FAILS(store_file_data(s, a, "file-1", mem, &data, &err), STORE_ENOTFOUND);
    OK(store_check(s, true, &err));
    store_mem_free(mem);
    close_fresh(s);
}

static void empty_and_large_files(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a");
    store_file file = {
        .id = "e", .tenant = a, .filename = "e", .purpose = "p", .status = "processed"};
    store_blob got;
    OK(store_file_create(s, &file, (store_blob){NULL, 0}, &err));
    OK(store_file_data(s, a, "e", mem, &got, &err));
    CHECK_INT(got.len, 0);
    size_t size = (size_t)5 << 20;
    unsigned char *big = malloc(size);
    REQUIRE(big != NULL);
    for (size_t i = 0; i < size; i++) {
        big[i] = (unsigned char)(i * 7 >> 3);
    }
    file.id = "big";
    OK(store_file_create(s, &file, (store_blob){big, size}, &err));
    OK(store_file_data(s, a, "big", mem, &got, &err));
    CHECK(got.len == size && memcmp(got.data, big, size) == 0);
    free(big);
    store_mem_free(mem);
    close_fresh(s);
}

static void usage(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b");
    store_usage use = {.day = 100, .requests = 1, .inputs = 2, .tokens = 30};
    OK(store_usage_add(s, a, &use, &err));
    OK(store_usage_add(s, a, &use, &err));
    use.day = 102;
    OK(store_usage_add(s, a, &use, &err));
    use.tokens = 5;
    OK(store_usage_add(s, b, &use, &err));
    store_usage *items;
    size_t n;
    OK(store_usage_list(s, a, 100, 101, mem, &items, &n, &err));
    REQUIRE(n == 1);
    CHECK_INT(items[0].tokens, 60);
    CHECK_INT(items[0].requests, 2);
    OK(store_usage_list(s, b, 0, 3000, mem, &items, &n, &err));
    CHECK(n == 1 && items[0].tokens == 5);
    FAILS(store_usage_list(s, b, 5, 4, mem, &items, &n, &err), STORE_EINVAL);
    FAILS(store_usage_add(s, 999, &use, &err), STORE_ENOTFOUND);
    store_mem_free(mem);
    close_fresh(s);
}

static void idempotency(void)
{
    store *s = open_fresh(NULL);
    store_error err = {0};
    store_mem *mem = store_mem_new();
    int64_t a = test_tenant(s, "a"), b = test_tenant(s, "b");
    store_idem_state state;
    store_reply reply, answer = {200, "application/json", {"{}", 2}};
    OK(store_idem_begin(s, a, "k", "h", 10, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_NEW);
    OK(store_idem_begin(s, a, "k", "h", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_RUNNING);
    OK(store_idem_begin(s, a, "k", "other", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_DIFFERS);
    OK(store_idem_begin(s, b, "k", "other", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_NEW);
    OK(store_idem_finish(s, a, "k", &answer, &err));
    FAILS(store_idem_finish(s, a, "k", &answer, &err), STORE_ESTATE);
    OK(store_idem_begin(s, a, "k", "h", 12, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_DONE);
    CHECK_INT(reply.status, 200);
    CHECK_INT(reply.body.len, 2);
    /* Marked: carried out, so never to be done again, whatever became of the answer. */
    OK(store_idem_begin(s, a, "m", "h", 10, 100, mem, &state, &reply, &err));
    OK(store_idem_mark(s, a, "m", &err));
    OK(store_idem_begin(s, a, "m", "h", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_RUNNING);
    OK(store_idem_purge(s, 0, true, &err)); /* as after a crash */
    OK(store_idem_begin(s, a, "m", "h", 12, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_LOST);
    OK(store_idem_begin(s, a, "m", "other", 12, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_DIFFERS);
    OK(store_idem_begin(s, a, "n", "h", 10, 100, mem, &state, &reply, &err));
    OK(store_idem_mark(s, a, "n", &err));
    OK(store_idem_finish(s, a, "n", &answer, &err));
    OK(store_idem_purge(s, 0, true, &err));
    OK(store_idem_begin(s, a, "n", "h", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_DONE);
    OK(store_idem_begin(s, a, "o", "h", 10, 100, mem, &state, &reply, &err));
    OK(store_idem_mark(s, a, "o", &err));
    OK(store_idem_drop(s, a, "o", &err));
    OK(store_idem_begin(s, a, "o", "h", 11, 100, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_LOST);
    OK(store_idem_begin(s, a, "k", "h", 100, 300, mem, &state, &reply, &err)); /* expired */
    CHECK_INT(state, STORE_IDEM_NEW);
    OK(store_idem_purge(s, 0, true, &err));
    OK(store_idem_begin(s, a, "k", "h2", 101, 300, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_NEW);
    OK(store_idem_drop(s, a, "k", &err));
    OK(store_idem_begin(s, a, "k", "h3", 101, 300, mem, &state, &reply, &err));
    CHECK_INT(state, STORE_IDEM_NEW);
    store_mem_free(mem);
    close_fresh(s);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(tenants);
    RUN(tenant_pages);
    RUN(keys);
    RUN(tasks);
    RUN(soft_delete);
    RUN(task_pages);
    RUN(versions);
    RUN(files);
    RUN(empty_and_large_files);
    RUN(usage);
    RUN(idempotency);
    TESTS_END;
}
