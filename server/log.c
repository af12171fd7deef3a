/* log.c: lines built on the caller's stack, written by one thread from a ring of bytes.
 *
 * Text is escaped byte by byte: quotes, backslashes and control bytes cannot end a field or forge a
 * line, whatever a client sends. A line that is too long is cut, never split.
 */
#include "server/log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES (256 * 1024)
#define TAIL_ROOM  8 /* for closing marks of a line that was cut */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static struct {
    _Atomic int level;
    atomic_bool json;
    _Atomic uint64_t dropped;

    pthread_mutex_t lock; /* covers the rest */
    pthread_cond_t work;
    pthread_t thread;
    bool open, stopping;
    char *ring;
    size_t head, used;
} log_state = {
    .level = LOG_INFO, .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

static void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, bytes, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        bytes += n;
        len -= (size_t)n;
    }
}

static void *write_lines(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&log_state.lock);
    while (true) {
        while (log_state.used == 0 && !log_state.stopping) {
            pthread_cond_wait(&log_state.work, &log_state.lock);
        }
        if (log_state.used == 0) {
            break;
        }
        size_t piece = RING_BYTES - log_state.head;
        piece = piece < log_state.used ? piece : log_state.used;
        const char *from = log_state.ring + log_state.head;
        pthread_mutex_unlock(&log_state.lock);
        write_all(from, piece);
        pthread_mutex_lock(&log_state.lock);
        log_state.head = (log_state.head + piece) % RING_BYTES;
        log_state.used -= piece;
    }
    pthread_mutex_unlock(&log_state.lock);
    return NULL;
}

void log_set(enum log_level level, bool json)
{
    log_state.level = (int)level;
    log_state.json = json;
}

void log_open(enum log_level level, bool json)
{
    log_set(level, json);
    pthread_mutex_lock(&log_state.lock);
    log_state.ring = malloc(RING_BYTES);
    log_state.stopping = false;
    log_state.open =
        log_state.ring != NULL && pthread_create(&log_state.thread, NULL, write_lines, NULL) == 0;
    pthread_mutex_unlock(&log_state.lock);
}

void log_close(void)
{
    pthread_mutex_lock(&log_state.lock);
    bool was_open = log_state.open;
    log_state.stopping = true;
    log_state.open = false;
    pthread_cond_signal(&log_state.work);
    pthread_mutex_unlock(&log_state.lock);
    if (was_open) {
        pthread_join(log_state.thread, NULL);
    }
    free(log_state.ring);
    log_state.ring = NULL;
}

uint64_t log_dropped(void)
{
    return log_state.dropped;
}

static void add_bytes(struct log_line *line, const char *bytes, size_t len)
{
    size_t room = sizeof line->text - TAIL_ROOM - line->len;
    len = len < room ? len : room;
    memcpy(line->text + line->len, bytes, len);
    line->len += len;
}

static void add_text(struct log_line *line, const char *text)
{
    add_bytes(line, text, strlen(text));
}

static void add_escaped(struct log_line *line, const char *text)
{
    add_bytes(line, "\"", 1);
    for (; *text != '\0' && line->len + TAIL_ROOM + 8 < sizeof line->text; text++) {
        unsigned char c = (unsigned char)*text;
        char code[8];
        if (c == '"' || c == '\\') {
            snprintf(code, sizeof code, "\\%c", c);
        } else if (c < 0x20 || c == 0x7F) {
            snprintf(code, sizeof code, "\\u%04x", c);
        } else {
            snprintf(code, sizeof code, "%c", c);
        }
        add_text(line, code);
    }
    add_bytes(line, "\"", 1);
}

static void add_key(struct log_line *line, const char *key)
{
    if (line->json) {
        add_text(line, line->len > 1 ? "," : "");
        add_escaped(line, key);
        add_text(line, ":");
    } else {
        add_text(line, line->len > 0 ? " " : "");
        add_text(line, key);
        add_text(line, "=");
    }
}

static bool is_bare(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_./:%@+,";
    return text[0] != '\0' && text[strspn(text, plain)] == '\0';
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    if (line->off || value == NULL) {
        return;
    }
    add_key(line, key);
    if (!line->json && is_bare(value)) {
        add_text(line, value);
    } else {
        add_escaped(line, value);
    }
}

void log_number(struct log_line *line, const char *key, int64_t value)
{
    if (line->off) {
        return;
    }
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add_key(line, key);
    add_text(line, text);
}

void log_real(struct log_line *line, const char *key, double value)
{
    if (line->off || !isfinite(value)) {
        return;
    }
    char text[40];
    snprintf(text, sizeof text, "%.6g", value);
    add_key(line, key);
    add_text(line, text);
}

void log_begin(struct log_line *line, enum log_level level, const char *event)
{
    line->len = 0;
    line->off = (int)level < log_state.level;
    line->json = log_state.json;
    if (line->off) {
        return;
    }
    struct timespec now;
    struct tm utc;
    char date[40], stamp[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp, sizeof stamp, "%s.%03dZ", date, (int)(now.tv_nsec / 1000000));
    add_text(line, line->json ? "{" : "");
    log_text(line, "time", stamp);
    log_text(line, "level", level_names[level]);
    log_text(line, "event", event);
}

/* False: no writer thread. */
static bool hand_over(const struct log_line *line)
{
    pthread_mutex_lock(&log_state.lock);
    bool open = log_state.open;
    if (open && line->len > RING_BYTES - log_state.used) {
        log_state.dropped++;
    } else if (open) {
        size_t at = (log_state.head + log_state.used) % RING_BYTES;
        size_t first = RING_BYTES - at < line->len ? RING_BYTES - at : line->len;
        memcpy(log_state.ring + at, line->text, first);
        memcpy(log_state.ring, line->text + first, line->len - first);
        log_state.used += line->len;
        pthread_cond_signal(&log_state.work);
    }
    pthread_mutex_unlock(&log_state.lock);
    return open;
}

void log_end(struct log_line *line)
{
    if (line->off) {
        return;
    }
    if (line->json) {
        line->text[line->len++] = '}';
    }
    line->text[line->len++] = '\n';
    if (!hand_over(line)) {
        write_all(line->text, line->len);
    }
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    struct log_line line;
    char text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_begin(&line, level, event);
    log_text(&line, "text", text);
    log_end(&line);
}
