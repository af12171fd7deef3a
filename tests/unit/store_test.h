/* store_test.h: what the store's test programs share: a fresh database in a directory of its own. */
#ifndef TESTS_UNIT_STORE_TEST_H
#define TESTS_UNIT_STORE_TEST_H

#include "store/store.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <unistd.h>

static char test_dir_[64];
static char test_db_[128];

__attribute__((unused)) static const char *fresh_db(void)
{
    snprintf(test_dir_, sizeof test_dir_, "/tmp/mp2-store-XXXXXX");
    if (mkdtemp(test_dir_) == NULL) {
        perror("mkdtemp");
        exit(1);
    }
    snprintf(test_db_, sizeof test_db_, "%s/t.db", test_dir_);
    return test_db_;
}

__attribute__((unused)) static void remove_db(void)
{
    DIR *dir = opendir(test_dir_);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", test_dir_, entry->d_name);
        if (entry->d_name[0] != '.') {
            unlink(path);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    rmdir(test_dir_);
}

/* A fresh, open store; the program ends when there is none. */
__attribute__((unused)) static store *open_fresh(const store_options *options)
{
    store *s = NULL;
    store_error err = {0};
    if (store_open(fresh_db(), options, &s, &err) != STORE_OK) {
        fprintf(stderr, "cannot open a store: %s\n", err.text);
        exit(1);
    }
    return s;
}

__attribute__((unused)) static void close_fresh(store *s)
{
    store_close(s);
    remove_db();
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        store_status status_ = (call);                                                             \
        if (status_ != STORE_OK) {                                                                 \
            TEST_FAIL_("%s is %s: %s", #call, store_status_name(status_), err.text);               \
        }                                                                                          \
    } while (0)
#define FAILS(call, want)                                                                          \
    do {                                                                                           \
        store_status status_ = (call);                                                             \
        if (status_ != (want)) {                                                                   \
            TEST_FAIL_("%s is %s, want %s", #call, store_status_name(status_), #want);             \
        }                                                                                          \
    } while (0)

/* A version with an eight-number route, enough for every test. */
static const float test_route[8] = {0.5f, -1, 2, 0, 1, 1, -3, 4};
__attribute__((unused)) static store_version test_version(const char *method)
{
    return (store_version){.route = {test_route, sizeof test_route},
                           .method = method,
                           .model_fingerprint = "backbone-1",
                           .bank_fingerprint = "bank-1",
                           .bank = "shallow",
                           .metrics = "{\"accuracy\":0.5}",
                           .created = 1000};
}

__attribute__((unused)) static int64_t test_tenant(store *s, const char *name)
{
    int64_t id = 0;
    store_error err = {0};
    OK(store_tenant_create(s, name, NULL, 1, &id, &err));
    return id;
}

__attribute__((unused)) static store_task test_task(int64_t tenant, const char *name)
{
    return (store_task){.tenant = tenant,
                        .name = name,
                        .type = "classification",
                        .labels = "[\"好\",\"坏\"]",
                        .created = 10};
}

__attribute__((unused)) static void test_file(store *s, int64_t tenant, const char *id)
{
    store_error err = {0};
    store_file file = {.id = id,
                       .tenant = tenant,
                       .filename = "rows.jsonl",
                       .purpose = "fine-tune",
                       .status = "processed",
                       .created = 5};
    OK(store_file_create(s, &file, (store_blob){"{}\n", 3}, &err));
}

__attribute__((unused)) static store_job test_job(int64_t tenant, const char *id, const char *file)
{
    return (store_job){.id = id,
                       .tenant = tenant,
                       .status = STORE_JOB_QUEUED,
                       .model = "boot",
                       .spec = "{}",
                       .seed = UINT64_MAX,
                       .training_file = file,
                       .task_name = id,
                       .created = 20};
}

#endif
