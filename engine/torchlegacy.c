#include "engine/status.h"
#include "engine/weights_impl.h"
bool torchlegacy_is(const struct mapfile *map)
{
    (void)map;
    return false;
}
eng_status torchlegacy_read(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    (void)map;
    return fail(err, ENG_EUNSUPPORTED, "", "%s: legacy PyTorch files are not read yet",
                weights_file(weights));
}
