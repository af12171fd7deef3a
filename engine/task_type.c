/* task_type.c: the four kinds of task and their names, in one table. */
#include "engine/engine.h"

#include <string.h>

static const char *const names[] = {[ENG_CLASSIFICATION] = "classification",
                                    [ENG_PAIR] = "pair",
                                    [ENG_CHOICE] = "choice",
                                    [ENG_EXTRACTIVE] = "extractive"};
static const size_t count = sizeof names / sizeof names[0];

const char *eng_task_type_name(eng_task_type type)
{
    return (size_t)type < count ? names[type] : "unknown";
}

bool eng_task_type_parse(const char *name, eng_task_type *type)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            *type = (eng_task_type)i;
            return true;
        }
    }
    return false;
}
