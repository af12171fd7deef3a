/* test_stats.c: quantiles of a histogram, worked out by hand. */
#include "server/stats.h"
#include "tests/unit/test.h"

static const double bounds[] = {1, 2, 4, 8};

static void expect(const uint64_t counts[5], double q, double want)
{
    CHECK_NEAR(stats_quantile(bounds, counts, 4, q), want, 1e-12);
}

static void quantiles(void)
{
    const uint64_t none[5] = {0}, first[5] = {10, 0, 0, 0, 0}, even[5] = {10, 10, 10, 10, 0};
    const uint64_t above[5] = {1, 0, 0, 0, 9}, gap[5] = {5, 0, 0, 5, 0};
    CHECK(isnan(stats_quantile(bounds, none, 4, 0.5)));
    expect(first, 0.5, 0.5);
    expect(first, 1.0, 1.0);
    expect(even, 0.25, 1.0);
    expect(even, 0.5, 2.0);
    expect(even, 0.625, 3.0); /* half of the bucket from 2 to 4 */
    expect(even, 1.0, 8.0);
    expect(above, 0.99, 8.0); /* above the last bound it is not known better */
    expect(gap, 0.5, 1.0);
    expect(gap, 0.75, 6.0); /* half of the bucket from 4 to 8 */
}

int main(void)
{
    TESTS_BEGIN;
    RUN(quantiles);
    TESTS_END;
}
