/* parts.c: THE table of the server's parts, in the order they start (server.h). */
#include "server/backup.h"
#include "server/jobs.h"
#include "server/openapi.h"
#include "server/server.h"
#include "server/serving.h"
#include "server/stats.h"
#include "server/upkeep.h"

const struct server_part server_parts[] = {
    {"registry", registry_part_start, NULL, NULL, NULL},
    {"batcher", batcher_part_start, NULL, batcher_part_idle, batcher_part_stop},
    {"jobs", jobs_part_start, jobs_part_drain, jobs_part_idle, jobs_part_stop},
    {"upkeep", upkeep_part_start, NULL, NULL, upkeep_part_stop},
    {"stats", stats_part_start, NULL, NULL, stats_part_stop},
    {"openapi", openapi_part_start, NULL, NULL, openapi_part_stop},
    {"backup", NULL, backup_part_drain, backup_part_idle, backup_part_stop},
};
const size_t server_parts_count = sizeof server_parts / sizeof server_parts[0];
