/* fuzz_config.c: config.json; what is accepted must keep every promise of config.h. */
#include "engine/config.h"
#include "engine/params.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct encoder_params *params = calloc(1, sizeof *params);
    bool positions_from_file = false;
    eng_error err = {0};
    if (params == NULL) {
        return 0;
    }
    eng_status status =
        config_parse((const char *)data, size, "fuzz", params, &positions_from_file, &err);
    if (status != ENG_OK && err.text[0] == '\0') {
        abort();
    }
    if (status == ENG_OK) {
        if (params->layers == 0 || params->layers > ENG_MAX_LAYERS || params->heads == 0 ||
            params->hidden % params->heads != 0 || params->hidden > CONFIG_MAX_HIDDEN ||
            !(params->epsilon >= 0) || !params_shape(params) || params_total(params) == 0) {
            abort();
        }
    }
    free(params);
    return 0;
}
