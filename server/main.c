/* main.c: the executable. Finds the subcommand in the table and runs it. */
#include "server/commands/commands.h"

#include <stdio.h>
#include <string.h>

static void print_help(void)
{
    printf("mp2 - one frozen backbone, any number of tasks, each a route of eight numbers\n\n"
           "usage: mp2 COMMAND [OPTIONS]      mp2 COMMAND --help\n\n");
    for (size_t i = 0; i < commands_count; i++) {
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    for (size_t i = 0; i < commands_count; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return usage_error("unknown command \"%s\"", argv[1]);
}
