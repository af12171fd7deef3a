/* ask_inputs.h (private to ask*.c): reads the inputs of an ask. Encoding thread. */
#ifndef SERVER_ASK_INPUTS_H
#define SERVER_ASK_INPUTS_H

#include "server/ask.h"

/* A prediction's `prepare`. */
bool ask_prepare(struct prediction *prediction);

#endif
