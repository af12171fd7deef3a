/* config.h: every setting of the server, in ONE list.
 *
 * A setting has one name in three spellings: `max_json` in a file, MP2_MAX_JSON in the environment,
 * --max-json on the command line. Later ones win: defaults, file, environment, command line. Kinds:
 *   text     as it stands
 *   count    a whole number
 *   bytes    a whole number with K, M or G (1024)
 *   time     a whole number with ms, s, m, h or d; kept in milliseconds
 *   flag     yes or no
 * A text with choices is a `text` whose help ends in "[a|b|c]"; others are refused.
 *
 * A row is LIVE when SIGHUP may change it in a running server: whoever uses it reads it each time. The
 * rows marked X are read once, at start.
 *
 * To use a new setting: add a row here, and run `mp2 serve --print-config > conf/mp2.conf`.
 *
 * Threads. Read-only once loaded; a reload makes a new one.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* kind, name, default, least, most (0, 0 for text), help */
#define CONFIG_LIST(X, LIVE)                                                                       \
    X(text, db, "data/mp2.db", 0, 0, "database file; its directory is made when missing (0700)")   \
    X(text, listen, "127.0.0.1:8080", 0, 0,                                                        \
      "address and port; port 0 takes a free one; [::1]:8080 for IPv6")                            \
    X(text, model, "", 0, 0, "model directory; empty: the embedded model")                         \
    X(text, bank, "", 0, 0, "bank file; empty: the first bank of the model directory")             \
    X(text, weights, "f32", 0, 0,                                                                  \
      "form of the weights in memory; f16 takes half of it and rounds them [f32|f16]")             \
    X(count, threads, "0", 0, 1024, "compute threads; 0: one a core")                              \
    X(text, admin_key_file, "", 0, 0,                                                              \
      "where the first admin key of an empty database is written (0600, must not exist); empty: "  \
      "it is printed")                                                                             \
    X(text, backup_dir, "", 0, 0,                                                                  \
      "directory for POST /v1/admin/backup; empty: no backups over HTTP")                          \
    LIVE(time, backup_timeout, "1h", 1000, 86400000, "for a backup to be made")                    \
    X(flag, core_dumps, "no", 0, 0,                                                                \
      "whether a crash may leave a core file, which holds texts of tenants")                       \
    X(text, sync, "full", 0, 0,                                                                    \
      "what an acknowledged write survives: power loss (full) or a crash of mp2 (normal) "         \
      "[full|normal]")                                                                             \
    LIVE(text, log_level, "info", 0, 0, "least level of log lines [debug|info|warn|error]")        \
    LIVE(text, log_format, "text", 0, 0, "form of log lines [text|json]")                          \
    LIVE(flag, access_log, "yes", 0, 0,                                                            \
         "a log line for each request; errors of ours are always logged")                          \
    X(count, max_connections, "1000", 1, 100000, "connections open at once; others wait")          \
    LIVE(count, max_connections_per_ip, "0", 0, 100000,                                            \
         "connections of one address (IPv6: of one /64); 0: no limit")                             \
    LIVE(count, max_requests_per_ip, "0", 0, 10000000,                                             \
         "requests a minute of one address (IPv6: of one /64); then 429; 0: no limit")             \
    LIVE(text, trusted_proxies, "", 0, 0,                                                          \
         "addresses and networks of proxies whose X-Forwarded-For is believed, such as "           \
         "10.0.0.0/8, ::1; without it the limits above count a proxy as one client")               \
    LIVE(text, cors_origins, "", 0, 0,                                                             \
         "origins whose pages may call this server, such as https://app.example.com, "             \
         "https://admin.example.com:8443; * for all; empty: none")                                 \
    LIVE(text, tls_certificate, "", 0, 0,                                                          \
         "PEM file with the certificate and its chain; empty: plain HTTP")                         \
    LIVE(text, tls_key, "", 0, 0,                                                                  \
         "PEM file with its private key; nobody but the owner and group may read it")              \
    X(bytes, connection_memory, "32K", 8192, 1048576,                                              \
      "memory of a connection: bounds request line and headers")                                   \
    LIVE(count, max_inflight, "1024", 1, 1000000, "requests at work at once; others get 503")      \
    LIVE(bytes, max_json, "1M", 1024, 67108864, "a JSON body")                                     \
    LIVE(count, max_json_tokens, "100000", 100, 10000000,                                          \
         "brackets, commas and colons in a JSON body")                                             \
    LIVE(bytes, json_offload, "64K", 1024, 67108864,                                               \
         "JSON bodies above this are parsed off the loop")                                         \
    LIVE(bytes, max_upload, "16M", 1024, 1073741824, "an uploaded file, form and all")             \
    LIVE(bytes, max_body_memory, "256M", 1048576, 1099511627776, "all bodies held at once")        \
    LIVE(bytes, request_memory, "4M", 65536, 1073741824, "working memory of one request")          \
    LIVE(time, headers_timeout, "10s", 100, 3600000, "for the headers of a request to arrive")     \
    LIVE(time, body_timeout, "5m", 100, 86400000, "for a body to arrive")                          \
    LIVE(bytes, body_min_rate, "512", 0, 1073741824,                                               \
         "least bytes a second of a body after the first five seconds; 0: no least")               \
    LIVE(time, request_timeout, "60s", 10, 3600000, "for an answer to be made; then 504")          \
    LIVE(time, reply_timeout, "2m", 100, 86400000, "for an answer to be read by its client")       \
    X(time, idle_timeout, "75s", 100, 86400000, "a kept connection without a request")             \
    X(count, max_streams, "512", 1, 100000, "event streams open at once; others get 503")          \
    X(count, max_tenant_streams, "256", 1, 100000, "event streams of one tenant; others get 429")  \
    X(bytes, stream_buffer, "32K", 1024, 16777216, "bytes waiting for a slow reader of a stream")  \
    X(time, event_ping, "15s", 50, 600000, "silence after which a stream of events sends a ping")  \
    LIVE(time, drain_timeout, "30s", 0, 3600000, "for what is in flight when the server stops")    \
    LIVE(time, drain_delay, "0", 0, 600000,                                                        \
         "between /readyz turning 503 and closing the door, for load balancers")                   \
    X(count, workers, "2", 1, 16, "threads for parsing, validation and reading the database")      \
    X(count, worker_queue, "256", 1, 100000, "pieces of work that may wait for a worker")          \
    X(count, store_queue, "1024", 1, 1000000, "writes that may wait for the store thread")         \
    X(count, store_group, "64", 1, 10000, "writes of one transaction")                             \
    X(time, store_group_wait, "2ms", 0, 1000, "how long a transaction gathers writes")             \
    LIVE(count, max_inputs, "256", 1, 100000, "inputs of one prediction request")                  \
    LIVE(bytes, max_text, "1M", 64, 67108864, "a text of an input")                                \
    X(count, batch_tokens, "8192", 64, 1048576, "most tokens of a batch; sizes the workspace")     \
    X(count, batch_sequences, "256", 1, 65536, "most inputs of a batch")                           \
    X(time, batch_time, "20ms", 0, 10000,                                                          \
      "what a batch should take to compute, a quarter of it while several tenants ask; its "       \
      "tokens are measured at start; 0: batch_tokens")                                             \
    X(time, warmup_timeout, "10s", 0, 600000, "at most, for measuring and warming up at start")    \
    X(count, queue_requests, "4096", 1, 10000000, "predictions waiting or computing; then 503")    \
    X(count, queue_tokens, "1000000", 1024, 1000000000, "their tokens, as estimated; then 503")    \
    X(bytes, queue_bytes, "256M", 65536, 1099511627776, "their texts; then 503")                   \
    X(bytes, prompt_cache, "256M", 0, 1099511627776,                                               \
      "tuned prompts in memory; those in use stay; raised to what one takes")                      \
    X(count, job_threads, "1", 0, 64, "jobs that train at once; 0: this server runs none")         \
    LIVE(count, job_attempts, "3", 1, 100, "times a job is started when crashes cut it off")       \
    X(time, job_checkpoint, "5s", 50, 3600000,                                                     \
      "between two stored states of a running job: what a crash may cost it")                      \
    X(bytes, job_checkpoint_bytes, "256M", 1024, 1073741824,                                       \
      "largest state that is stored; a job with a larger one starts anew after a crash")           \
    X(time, keep_jobs, "0", 0, 31536000000,                                                        \
      "how long a job that has ended is kept; its versions stay; 0: for ever")                     \
    X(time, keep_events, "0", 0, 31536000000,                                                      \
      "how long the events of a job that has ended are kept; 0: as long as the job")               \
    X(time, keep_files, "0", 0, 31536000000,                                                       \
      "how long a file is kept that no open job reads; 0: for ever")                               \
    X(time, job_lease, "60s", 1000, 3600000,                                                       \
      "how long a running job counts as alive without a sign of life")                             \
    LIVE(count, max_queued_jobs, "100", 1, 1000000, "jobs of one tenant that wait")                \
    LIVE(count, tenant_requests_per_minute, "0", 0, 1000000000,                                    \
         "requests of a tenant; 0: no limit. A tenant may have limits of its own (quotas)")        \
    LIVE(count, tenant_tokens_per_minute, "0", 0, 1000000000000,                                   \
         "tokens a tenant has computed; 0: no limit")                                              \
    LIVE(count, tenant_concurrent, "0", 0, 1000000, "requests of a tenant at work; 0: no limit")   \
    LIVE(count, tenant_stored_examples, "1000000", 0, 1000000000000,                               \
         "rows in all files of a tenant; 0: no limit")                                             \
    X(count, tenant_running_jobs, "0", 0, 1000000,                                                 \
      "jobs of a tenant that run at once; 0: no limit")                                            \
    LIVE(count, max_evaluate_rows, "10000", 1, 10000000, "rows of one evaluation")                 \
    LIVE(time, evaluate_timeout, "10m", 1000, 86400000, "for an evaluation to end; then 504")      \
    LIVE(time, task_retention, "30d", 0, 315360000000, "how long a deleted task can be restored")  \
    LIVE(count, max_tenants, "100000", 1, 10000000, "tenants of this server")                      \
    LIVE(count, max_keys, "1000000", 1, 100000000, "keys of this server")

typedef const char *config_text;
typedef uint64_t config_count;
typedef uint64_t config_bytes;
typedef int64_t config_time; /* milliseconds */
typedef bool config_flag;

struct config {
#define CONFIG_MEMBER(kind, name, text, least, most, help) config_##kind name;
    CONFIG_LIST(CONFIG_MEMBER, CONFIG_MEMBER)
#undef CONFIG_MEMBER
};

enum { CONFIG_ERROR_SIZE = 512 };

/* Defaults. Free with config_free. NULL: out of memory. */
struct config *config_new(void);
void config_free(struct config *config);

/* Each returns false with a sentence that names the setting, its bounds and what was found; a file's
 * also names the file and line. An unknown name suggests the nearest. */
bool config_set(struct config *config, const char *name, const char *value,
                char why[CONFIG_ERROR_SIZE]);
/* Lines "name = value", "# comment", empty ones. */
bool config_read_file(struct config *config, const char *path, char why[CONFIG_ERROR_SIZE]);
/* What no setting can say alone. False: `why` names the settings. */
bool config_check(const struct config *config, char why[CONFIG_ERROR_SIZE]);
/* What a running server takes of a new configuration: `fresh` keeps its own LIVE settings and gets
 * `now`'s others. Names that differ go into `changed` (LIVE) and `kept` (the others), "a, b". False:
 * out of memory. */
bool config_merge(struct config *fresh, const struct config *now, char changed[CONFIG_ERROR_SIZE],
                  char kept[CONFIG_ERROR_SIZE]);
/* Every MP2_NAME of the environment that names a setting. */
bool config_read_env(struct config *config, char why[CONFIG_ERROR_SIZE]);
/* "--max-json 2M" and "--max-json=2M": true when argv[*i] names a setting; *i is moved past its value.
 * When it does but is wrong, `why` is not empty. */
bool config_read_flag(struct config *config, int argc, char **argv, int *i,
                      char why[CONFIG_ERROR_SIZE]);

/* The annotated file with every default, and the list for --help. */
void config_print(FILE *out);
void config_help(FILE *out);

#endif
