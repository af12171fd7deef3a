/* slice.h: how long a thread computes before Linux looks whether others wait. */
#ifndef SERVER_SLICE_H
#define SERVER_SLICE_H

/* Asks the system to let the calling thread begin soon after it wakes, in return for going on only briefly:
 * for the threads a prediction passes through, beside threads that compute for long. Without effect before
 * Linux 6.12, and where it is not allowed. */
void slice_brief(void);

#endif
