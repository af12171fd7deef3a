/* log.h: one line an event, on stderr, as key=value or JSON.
 *
 *     struct log_line line;
 *     log_begin(&line, LOG_INFO, "request");
 *     log_text(&line, "id", request_id(req));
 *     log_number(&line, "status", 200);
 *     log_end(&line);
 *
 * Never bodies, keys or prompts. Threads: any; log_open and log_close at start and end. Between them
 * lines are written by a thread of their own, so that a stuck stderr holds up nobody: when its buffer
 * is full, lines are dropped and counted.
 */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_line {
    size_t len;
    bool off;  /* below the level */
    bool json; /* the form it began with: a reload may change it meanwhile */
    char text[1024];
};

/* Before log_open lines go straight to stderr, level info. */
void log_open(enum log_level level, bool json);
void log_set(enum log_level level, bool json); /* any thread, at any time */
void log_close(void);
uint64_t log_dropped(void);

void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_text(struct log_line *line, const char *key, const char *value); /* NULL: left out */
void log_number(struct log_line *line, const char *key, int64_t value);
void log_real(struct log_line *line, const char *key, double value);
void log_end(struct log_line *line);

/* A line with one text. */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
