/* textstream.c: see textstream.h. Offsets count through all files as if they were one. */
#include "engine/textstream.h"

#include "engine/codepoints.h"
#include "engine/status.h"

#include <stdlib.h>
#include <string.h>

#define LANE_BYTES ((size_t)16 << 10) /* shorter lanes would lose too much at their ends */
#define MAX_SLICE  ((size_t)64 << 10) /* of a line, looked at in one go */

static size_t file_of(const struct textstream *stream, uint64_t at)
{
    size_t f = 0;
    while (f + 1 < stream->files && at >= stream->starts[f + 1]) {
        f++;
    }
    return f;
}

static uint64_t lane_start(const struct textstream *stream, size_t lane)
{
    return (uint64_t)textstream_bytes(stream) / stream->lanes * lane;
}

static uint64_t lane_end(const struct textstream *stream, size_t lane)
{
    return lane + 1 < stream->lanes ? lane_start(stream, lane + 1) : textstream_bytes(stream);
}

static bool at_line_start(const struct textstream *stream, uint64_t at)
{
    size_t f = file_of(stream, at);
    size_t local = (size_t)at - stream->starts[f];
    return local == 0 || stream->maps[f].data[local - 1] == '\n';
}

/* The first beginning of a line at or behind `at`. */
static uint64_t next_line(const struct textstream *stream, uint64_t at)
{
    if (at >= textstream_bytes(stream) || at_line_start(stream, at)) {
        return at;
    }
    size_t f = file_of(stream, at);
    const struct mapfile *map = &stream->maps[f];
    size_t local = (size_t)at - stream->starts[f];
    const unsigned char *end = memchr(map->data + local, '\n', map->size - local);
    return stream->starts[f] + (end != NULL ? (size_t)(end - map->data) + 1 : map->size);
}

void textstream_rewind(struct textstream *stream)
{
    for (size_t lane = 0; lane < stream->lanes; lane++) {
        stream->at[lane] = next_line(stream, lane_start(stream, lane));
    }
    stream->passes = 0;
}

size_t textstream_bytes(const struct textstream *stream)
{
    return stream->starts[stream->files];
}

eng_status textstream_init(struct textstream *stream, const char *const *files, size_t n,
                           size_t max_lanes, eng_error *err)
{
    *stream = (struct textstream){0};
    if (n == 0) {
        return fail(err, ENG_EINVAL, "text", "no text file is given");
    }
    stream->maps = calloc(n, sizeof *stream->maps);
    stream->paths = calloc(n, sizeof *stream->paths);
    stream->starts = calloc(n + 1, sizeof *stream->starts);
    if (stream->maps == NULL || stream->paths == NULL || stream->starts == NULL) {
        return fail_nomem(err, "text");
    }
    for (size_t f = 0; f < n; f++) {
        eng_status status = mapfile_open(files[f], 0, &stream->maps[f], err);
        if (status != ENG_OK) {
            return status;
        }
        stream->files = f + 1;
        stream->paths[f] = strdup(files[f]);
        if (stream->paths[f] == NULL) {
            return fail_nomem(err, "text");
        }
        if (!size_add(stream->starts[f], stream->maps[f].size, &stream->starts[f + 1])) {
            return fail(err, ENG_ELIMIT, "text", "the files are too large together");
        }
    }
    size_t lanes = textstream_bytes(stream) / LANE_BYTES;
    lanes = lanes < max_lanes ? lanes : max_lanes;
    stream->lanes = lanes == 0 ? 1 : lanes < TEXT_MAX_LANES ? lanes : TEXT_MAX_LANES;
    textstream_rewind(stream);
    return ENG_OK;
}

void textstream_fini(struct textstream *stream)
{
    for (size_t f = 0; f < stream->files; f++) {
        mapfile_close(&stream->maps[f]);
        free(stream->paths[f]);
    }
    free(stream->maps);
    free(stream->paths);
    free(stream->starts);
    token_list_fini(&stream->tokens);
    *stream = (struct textstream){0};
}

/* What lies at *at of one line: tokens appended to the scratch list, *at moved behind them. */
static eng_status read_piece(struct textstream *stream, const struct tokenizer *tokenizer,
                             size_t limit, uint64_t *at, eng_error *err)
{
    size_t f = file_of(stream, *at);
    const struct mapfile *map = &stream->maps[f];
    size_t local = (size_t)*at - stream->starts[f], left = map->size - local;
    const unsigned char *end = memchr(map->data + local, '\n', left);
    eng_text line = {(const char *)map->data + local,
                     end != NULL ? (size_t)(end - map->data) - local : left};
    eng_text slice = {line.data, cp_fit(line, MAX_SLICE)};
    stream->tokens.n = 0;
    eng_status status = tokenizer_run_some(tokenizer, slice, limit, &stream->tokens, err);
    if (status != ENG_OK) {
        return status == ENG_EFORMAT ? fail(err, status, "text", "%s: not UTF-8 after byte %zu",
                                            stream->paths[f], local)
                                     : status;
    }
    if (stream->tokens.n >= limit) {
        stream->tokens.n = limit;
        *at += cp_offset(slice, stream->tokens.tokens[limit - 1].end);
    } else {
        *at += slice.len > 0 ? slice.len : 1;
    }
    return ENG_OK;
}

/* One lane: *n stays 0 when all of it holds no token. */
static eng_status next_of_lane(struct textstream *stream, const struct tokenizer *tokenizer,
                               size_t lane, size_t limit, eng_error *err)
{
    uint64_t *at = &stream->at[lane], end = lane_end(stream, lane);
    size_t begun = 0;
    stream->tokens.n = 0;
    while (stream->tokens.n == 0) {
        if (*at >= textstream_bytes(stream) || (*at >= end && at_line_start(stream, *at))) {
            *at = next_line(stream, lane_start(stream, lane));
            stream->passes++;
            if (*at >= end || ++begun == 2) {
                return ENG_OK;
            }
        }
        eng_status status = read_piece(stream, tokenizer, limit, at, err);
        if (status != ENG_OK) {
            return status;
        }
    }
    return ENG_OK;
}

eng_status textstream_next(struct textstream *stream, const struct tokenizer *tokenizer,
                           size_t lane, size_t limit, int32_t *ids, size_t *n, eng_error *err)
{
    for (size_t i = 0; i < stream->lanes; i++) {
        eng_status status = next_of_lane(stream, tokenizer, (lane + i) % stream->lanes, limit, err);
        if (status != ENG_OK) {
            return status;
        }
        if (stream->tokens.n > 0) {
            for (size_t t = 0; t < stream->tokens.n; t++) {
                ids[t] = stream->tokens.tokens[t].id;
            }
            *n = stream->tokens.n;
            return ENG_OK;
        }
    }
    return fail(err, ENG_EFORMAT, "text", "%s%s: there is no text in it", stream->paths[0],
                stream->files > 1 ? " and the other files" : "");
}
