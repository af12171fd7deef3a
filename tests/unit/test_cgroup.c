/* test_cgroup.c: limits of control groups, read from a made-up tree. */
#include "server/cgroup.h"
#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0);
    if (file != NULL) {
        fclose(file);
    }
}

static void begin(const char *self)
{
    snprintf(root, sizeof root, "/tmp/mp2-cgroup-XXXXXX");
    CHECK(mkdtemp(root) != NULL);
    put("self", self);
}

static struct cgroup_limits read_all(void)
{
    char self[128], command[160];
    struct cgroup_limits limits = {9, 9};
    snprintf(self, sizeof self, "%s/self", root);
    cgroup_read(root, self, &limits);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    CHECK(system(command) == 0);
    return limits;
}

static void version_2(void)
{
    begin("0::/app.slice/mp2.service\n");
    put("app.slice/mp2.service/cpu.max", "150000 100000\n");
    put("app.slice/mp2.service/memory.max", "max\n");
    put("app.slice/memory.max", "536870912\n");
    put("app.slice/cpu.max", "max 100000\n");
    struct cgroup_limits limits = read_all();
    CHECK_NEAR(limits.cpus, 1.5, 1e-9);
    CHECK_INT(limits.memory, 536870912); /* of the group above */
}

static void the_least_holds(void)
{
    begin("0::/a/b\n");
    put("a/b/cpu.max", "800000 100000\n");
    put("a/cpu.max", "200000 100000\n");
    put("a/b/memory.max", "1000\n");
    put("a/memory.max", "2000\n");
    struct cgroup_limits limits = read_all();
    CHECK_NEAR(limits.cpus, 2, 1e-9);
    CHECK_INT(limits.memory, 1000);
}

/* In a container: the host's path, of which only the root is there. */
static void container(void)
{
    begin("0::/docker/0123456789abcdef\n");
    put("cpu.max", "50000 100000\n");
    put("memory.max", "268435456\n");
    struct cgroup_limits limits = read_all();
    CHECK_NEAR(limits.cpus, 0.5, 1e-9);
    CHECK_INT(limits.memory, 268435456);
}

static void version_1(void)
{
    begin("7:pids:/x\n4:cpu,cpuacct:/x\n3:memory:/x\n");
    put("cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n");
    put("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    put("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("memory/x/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("memory/memory.limit_in_bytes", "1073741824\n");
    struct cgroup_limits limits = read_all();
    CHECK_NEAR(limits.cpus, 3, 1e-9);
    CHECK_INT(limits.memory, 1073741824);
}

static void nothing_and_nonsense(void)
{
    struct cgroup_limits limits;
    cgroup_read("/nonexistent", "/nonexistent/self", &limits);
    CHECK(limits.cpus == 0 && limits.memory == 0);
    begin("0::/../../etc\nrubbish\n::\n");
    put("cpu.max", "lots of it\n");
    put("memory.max", "12 elephants\n");
    limits = read_all();
    CHECK(limits.cpus == 0 && limits.memory == 0);
}

static void threads(void)
{
    struct cgroup_limits none = {0, 0}, half = {0.5, 0}, more = {2.9, 0}, many = {64, 0};
    CHECK_INT(cgroup_threads(0, 8, &none), 8);
    CHECK_INT(cgroup_threads(0, 8, &half), 1);
    CHECK_INT(cgroup_threads(0, 8, &more), 2);
    CHECK_INT(cgroup_threads(0, 8, &many), 8);
    CHECK_INT(cgroup_threads(5, 8, &half), 5); /* who says so gets it */
    CHECK_INT(cgroup_threads(0, 0, &none), 1);
}

int main(void)
{
    TESTS_BEGIN;
    RUN(version_2);
    RUN(the_least_holds);
    RUN(container);
    RUN(version_1);
    RUN(nothing_and_nonsense);
    RUN(threads);
    TESTS_END;
}
