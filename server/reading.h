/* reading.h: how a version's answers are read from the logits, as JSON: "label_scaling" of tasks with labels,
 * "answer_length" of extractive ones. Any thread.
 */
#ifndef SERVER_READING_H
#define SERVER_READING_H

#include "server/tasks.h"

/* Both members of `object`, which may be absent or null: *length, and *scaling with its numbers in the arena. What
 * is wrong becomes problems. False: the arena is full. */
bool reading_read(struct request *req, const json_t *object, const char *base,
                  eng_answer_length *length, eng_label_scaling *scaling, struct problems *problems);
/* Labels that the "label_scaling" of `object` is of; 0 where there is none. */
size_t reading_labels(const json_t *object);

/* {"mu", "sigma"}, or null when it says nothing. */
json_t *answer_length_json(const eng_answer_length *length);
/* {"scale", "bias": [a number a label], "cross": [[as many] a label] or null}; null when it says nothing. */
json_t *label_scaling_json(const eng_label_scaling *scaling, size_t labels);

#endif
