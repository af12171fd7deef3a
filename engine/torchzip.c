#include "engine/status.h"
#include "engine/weights_impl.h"
bool torchzip_is(const struct mapfile *map)
{
    const unsigned char *b = mapfile_slice(map, 0, 4);
    return b != NULL && load_u32(b) == 0x04034b50u;
}
eng_status torchzip_read(const struct mapfile *map, struct weights *weights, eng_error *err)
{
    (void)map;
    return fail(err, ENG_EUNSUPPORTED, "", "%s: PyTorch zip files are not read yet",
                weights_file(weights));
}
