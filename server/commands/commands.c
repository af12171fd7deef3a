/* commands.c: THE table of subcommands. */
#include "server/commands/commands.h"

#include <stdio.h>

int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("mp2 %s\n", MP2_VERSION);
    return EXIT_DONE;
}

const struct command commands[] = {
    {"bench", "measure matrix products, forward passes and training steps", cmd_bench},
    {"serve", "serve tasks over HTTP", cmd_serve},
    {"tenant", "make, list, disable and enable tenants", cmd_tenant},
    {"key", "make, list, rotate and revoke keys", cmd_key},
    {"task", "list and show tasks", cmd_task},
    {"job", "list, show and cancel jobs", cmd_job},
    {"audit", "who did what to tenants, keys and the server", cmd_audit},
    {"backup", "copy a database, also while a server runs on it", cmd_backup},
    {"restore", "put a backup in the place of a database", cmd_restore},
    {"check", "is a database, is a model directory, whole?", cmd_check},
    {"convert", "rewrite a model or a prompt bank as safetensors", cmd_convert},
    {"inspect", "look into a model, a text or the network's answer", cmd_inspect},
    {"adapt", "learn a route from labelled rows", cmd_adapt},
    {"pretrain", "learn a vocabulary and a backbone from text, a bank from tasks", cmd_pretrain},
    {"predict", "answer texts with a route or a router row", cmd_predict},
    {"eval", "few-shot evaluation of task folders", cmd_eval},
    {"version", "print the version", cmd_version},
};
const size_t commands_count = sizeof commands / sizeof commands[0];
