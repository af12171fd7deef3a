/* textstream.h (private): pieces of text files, in an order that mixes them, without end.
 *
 * The files, one after another, are divided into lanes of about equal size; each lane is read from
 * beginning to end, line by line, and again. A piece is (a part of) one line, so pieces have mixed
 * lengths. The whole state is one offset a lane: saved and put back, the pieces go on as they were.
 * One thread at a time.
 */
#ifndef ENGINE_TEXTSTREAM_H
#define ENGINE_TEXTSTREAM_H

#include "engine/mapfile.h"
#include "engine/tokenizer.h"

#define TEXT_MAX_LANES 32

struct textstream {
    struct mapfile *maps;
    char **paths;
    size_t *starts; /* (files + 1) offset of each file's first byte */
    size_t files, lanes;
    uint64_t at[TEXT_MAX_LANES]; /* the state */
    uint64_t passes;             /* times any lane began again */
    struct token_list tokens;    /* scratch */
};

/* Maps the files. ENG_EFORMAT when there is no text in them, and mapfile_open's errors. At most
 * max_lanes lanes; textstream_fini frees, also after a failure. */
ENG_MUST_CHECK eng_status textstream_init(struct textstream *stream, const char *const *files,
                                          size_t n, size_t max_lanes, eng_error *err);
void textstream_fini(struct textstream *stream);
/* To the beginning. */
void textstream_rewind(struct textstream *stream);
size_t textstream_bytes(const struct textstream *stream);

/* The next piece of `lane` (of the one behind it when a lane has none): 1 to `limit` ids. ENG_EFORMAT
 * names the file and line that is not UTF-8. */
ENG_MUST_CHECK eng_status textstream_next(struct textstream *stream,
                                          const struct tokenizer *tokenizer, size_t lane,
                                          size_t limit, int32_t *ids, size_t *n, eng_error *err);

#endif
