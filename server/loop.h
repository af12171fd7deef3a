/* loop.h: the one loop thread, and how other threads reach it.
 *
 * Threads.   loop_post may be called from any thread; everything else, and every callback, belongs
 *            to the thread that calls loop_run.
 * Lifetime.  loop_new … loop_run … loop_free. What is posted after loop_run has returned runs in
 *            loop_free, so that nothing handed over is ever lost.
 */
#ifndef SERVER_LOOP_H
#define SERVER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct uv_loop_s;

/* A closure to run on the loop. Embedded in the sender's struct: posting never allocates and never
 * fails. The sender keeps it alive until `run` is called, and does not post it twice before that. */
struct loop_task {
    void (*run)(void *arg);
    void *arg;
    struct loop_task *next; /* the loop's */
};

struct loop *loop_new(void); /* NULL: out of memory or descriptors */
void loop_free(struct loop *loop);
/* Returns after loop_stop, when the callbacks of that turn have run. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
void loop_post(struct loop *loop, struct loop_task *task);
bool loop_is_current(const struct loop *loop); /* on the loop thread? */

/* Milliseconds that never go back; any thread. */
int64_t clock_ms(void);
/* Microseconds of the same clock. */
int64_t clock_us(void);
/* Milliseconds since 1970; any thread. For what is stored or shown, never for deadlines. */
int64_t wall_ms(void);

/* For modules of the server that add handles of their own (http, signals). */
struct uv_loop_s *loop_uv(struct loop *loop);

#endif
