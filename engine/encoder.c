/* encoder.c: stub until the forward pass lands. */
#include "engine/encoder.h"
#include "engine/status.h"

#define NOT_YET(err) fail(err, ENG_EUNSUPPORTED, "encoder", "not built yet")

eng_status encoder_prepare(eng_model *model, eng_error *err)
{
    (void)model;
    (void)err;
    return ENG_OK;
}

void encoder_unprepare(eng_model *model)
{
    (void)model;
}

eng_status encoder_tape_new(const eng_model *model, size_t max_tokens, size_t max_sequences,
                            unsigned want, struct encoder_tape **out, eng_error *err)
{
    (void)model;
    (void)max_tokens;
    (void)max_sequences;
    (void)want;
    *out = NULL;
    return NOT_YET(err);
}

void encoder_tape_free(struct encoder_tape *tape)
{
    (void)tape;
}

size_t encoder_tape_bytes(const struct encoder_tape *tape)
{
    (void)tape;
    return 0;
}

eng_status encoder_forward_keep(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                                const eng_sequence *sequences, size_t n, float *start, float *end,
                                eng_error *err)
{
    (void)compute;
    (void)tape;
    (void)who;
    (void)sequences;
    (void)n;
    (void)start;
    (void)end;
    return NOT_YET(err);
}

double encoder_mrc_loss(const eng_sequence *sequences, size_t n, const float *start,
                        const float *end, const size_t *target_start, const size_t *target_end,
                        float *dstart, float *dend)
{
    (void)sequences;
    (void)n;
    (void)start;
    (void)end;
    (void)target_start;
    (void)target_end;
    (void)dstart;
    (void)dend;
    return 0;
}

eng_status encoder_backward(eng_compute *compute, struct encoder_tape *tape, eng_class who,
                            const float *dstart, const float *dend, float *dprompt, eng_error *err)
{
    (void)compute;
    (void)tape;
    (void)who;
    (void)dstart;
    (void)dend;
    (void)dprompt;
    return NOT_YET(err);
}

const float *encoder_head_gradient(const struct encoder_tape *tape, const float **bias)
{
    (void)tape;
    (void)bias;
    return NULL;
}

const float *encoder_gradient(const struct encoder_tape *tape, const char *name, size_t *count)
{
    (void)tape;
    (void)name;
    (void)count;
    return NULL;
}

void encoder_tape_zero(struct encoder_tape *tape)
{
    (void)tape;
}

eng_status eng_workspace_new(const eng_model *model, size_t max_tokens, size_t max_sequences,
                             eng_workspace **out, eng_error *err)
{
    (void)model;
    (void)max_tokens;
    (void)max_sequences;
    *out = NULL;
    return NOT_YET(err);
}

void eng_workspace_free(eng_workspace *workspace)
{
    (void)workspace;
}

size_t eng_workspace_bytes(const eng_workspace *workspace)
{
    (void)workspace;
    return 0;
}

eng_status eng_forward(eng_compute *compute, eng_workspace *workspace, eng_class who,
                       const eng_model *model, const eng_sequence *sequences, size_t n,
                       float *start, float *end, eng_error *err)
{
    (void)compute;
    (void)workspace;
    (void)who;
    (void)model;
    (void)sequences;
    (void)n;
    (void)start;
    (void)end;
    return NOT_YET(err);
}
