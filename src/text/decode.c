/* Ids to text, whole and streaming. Both run one state machine, so the concatenation of what a stream hands out is
 * the whole text by construction.
 *
 * The decoder steps of tokenizer.json fall into three kinds: those that look at one token (replace, strip, WordPiece),
 * ByteFallback, which turns a run of byte tokens into characters when the whole run is valid UTF-8 and into one U+FFFD
 * a byte when not, and those after Fuse, which look at the whole text. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/parts.h"

#include <stdlib.h>
#include <string.h>

struct sl_decoder {
    const sl_tokenizer *tokenizer;
    bool skip_special;
    bool byte_level;
    size_t fallback;     /* index of the ByteFallback step; the number of steps when there is none */
    size_t strip_at;     /* index of the strip step after Fuse; the number of steps when there is none */
    size_t strip_left;   /* of its characters, how many are still to be taken off */
    size_t n_tokens;     /* before ByteFallback, so far */
    size_t n_texts;      /* after it */
    sl_buffer run;       /* byte tokens in a row, or an incomplete character */
    sl_buffer held;      /* BPE's suffix: the last token is not known to be the last yet */
    sl_buffer piece, other;
};

/* ---------------------------------------------------------------- single tokens */

static bool replace_all(sl_buffer *out, const char *text, size_t length, const sl_decode_step *step) {
    for (size_t i = 0; i < length;) {
        const char *hit =
            step->pattern_length ? memmem(text + i, length - i, step->pattern, step->pattern_length) : NULL;
        size_t end = hit ? (size_t)(hit - text) : length;
        sl_buffer_append(out, text + i, end - i);
        if (hit) sl_buffer_append(out, step->content, step->content_length);
        i = hit ? end + step->pattern_length : end;
    }
    return !out->failed;
}

static size_t count_leading(const char *text, size_t length, const sl_decode_step *step, size_t most) {
    size_t n = 0, at = 0;
    if (!step->content_length) return 0;
    while (n < most && length - at >= step->content_length && !memcmp(text + at, step->content, step->content_length)) {
        at += step->content_length;
        n++;
    }
    return n;
}

static bool strip_token(sl_buffer *out, const char *text, size_t length, const sl_decode_step *step) {
    size_t n = step->content_length, from = count_leading(text, length, step, step->start) * n, to = length;
    for (size_t k = 0; n && k < step->stop && to >= from + n && !memcmp(text + to - n, step->content, n); k++) to -= n;
    return sl_buffer_append(out, text + from, to - from);
}

/* WordPiece's clean-up of English, in its order: each pair is replaced everywhere in the token. */
static const char *const cleanups[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},     {" ,", ","},
                                          {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
                                          {" 's", "'s"},   {" 've", "'ve"}, {" 're", "'re"}};

static bool wordpiece_token(sl_decoder *decoder, const sl_decode_step *step, bool first) {
    sl_buffer *piece = &decoder->piece, *other = &decoder->other;
    other->length = 0;
    size_t n = step->pattern_length;
    bool continues = n && piece->length >= n && !memcmp(piece->data, step->pattern, n);
    if (!first && !continues) sl_buffer_putc(other, ' ');
    size_t skip = continues && !first ? n : 0;
    sl_buffer_append(other, piece->data + skip, piece->length - skip);
    if (other->failed) return false;
    for (size_t i = 0; step->cleanup && i < sizeof cleanups / sizeof *cleanups; i++) {
        sl_decode_step pair = {.pattern = cleanups[i][0], .content = cleanups[i][1],
                               .pattern_length = strlen(cleanups[i][0]), .content_length = strlen(cleanups[i][1])};
        if (!memmem(other->data, other->length, pair.pattern, pair.pattern_length)) continue;
        piece->length = 0;
        if (!replace_all(piece, other->data, other->length, &pair)) return false;
        sl_buffer swapped = *piece;
        *piece = *other;
        *other = swapped;
    }
    sl_buffer swapped = *piece;
    *piece = *other;
    *other = swapped;
    return true;
}

static bool replace_regex(sl_decoder *decoder, const sl_decode_step *step) {
    sl_normalize_step replace = {.kind = SL_NORMALIZE_REPLACE, .regex = step->regex, .content = step->content,
                                 .content_length = step->content_length};
    return sl_normalize(&replace, NULL, decoder->piece.data, decoder->piece.length, &decoder->other, NULL) == SLLM_OK;
}

/* One step on decoder->piece; `first`: it is the first token that the step sees. */
static bool run_token_step(sl_decoder *decoder, const sl_decode_step *step, bool first) {
    sl_buffer *piece = &decoder->piece, *other = &decoder->other;
    switch (step->kind) {
    case SL_DECODE_WORDPIECE: return wordpiece_token(decoder, step, first);
    case SL_DECODE_REPLACE:
        other->length = 0;
        if (!(step->regex ? replace_regex(decoder, step) : replace_all(other, piece->data, piece->length, step)))
            return false;
        break;
    case SL_DECODE_STRIP:
        other->length = 0;
        if (!strip_token(other, piece->data, piece->length, step)) return false;
        break;
    case SL_DECODE_METASPACE: {
        /* In the first token the marks go, all of them; elsewhere each is a blank. */
        sl_decode_step blank = {.pattern = step->pattern, .pattern_length = step->pattern_length, .content = " ",
                                .content_length = first && step->prepend ? 0 : 1};
        other->length = 0;
        if (!replace_all(other, piece->data, piece->length, &blank)) return false;
        break;
    }
    default: return true;
    }
    if (!other->data && !sl_buffer_append(other, "", 0)) return false;
    sl_buffer swapped = *piece;
    *piece = *other;
    *other = swapped;
    return true;
}

/* ---------------------------------------------------------------- the machine */

/* The text is final but for the strip at its beginning. */
static bool emit(sl_decoder *decoder, const char *text, size_t length, sl_buffer *out) {
    if (!length) return true;
    if (decoder->strip_left) {
        const sl_decode_step *strip = &decoder->tokenizer->decode[decoder->strip_at];
        size_t n = count_leading(text, length, strip, decoder->strip_left), bytes = n * strip->content_length;
        decoder->strip_left = bytes == length ? decoder->strip_left - n : 0;
        text += bytes;
        length -= bytes;
    }
    return sl_buffer_append(out, text, length);
}

/* Runs the steps [from, to) on decoder->piece. */
static bool run_steps(sl_decoder *decoder, size_t from, size_t to, bool first) {
    for (size_t i = from; i < to; i++)
        if (i != decoder->strip_at && !run_token_step(decoder, &decoder->tokenizer->decode[i], first)) return false;
    return true;
}

/* decoder->piece is behind ByteFallback: through the steps that follow. */
static bool emit_piece(sl_decoder *decoder, sl_buffer *out) {
    if (!run_steps(decoder, decoder->fallback + 1, decoder->tokenizer->n_decode, decoder->n_texts == 0)) return false;
    decoder->n_texts++;
    return emit(decoder, decoder->piece.data, decoder->piece.length, out);
}

static bool emit_text(sl_decoder *decoder, const char *text, size_t length, sl_buffer *out) {
    decoder->piece.length = 0;
    return sl_buffer_append(&decoder->piece, text, length) && emit_piece(decoder, out);
}

static bool end_run(sl_decoder *decoder, sl_buffer *out) {
    sl_buffer *run = &decoder->run;
    bool ok = true;
    if (!run->length) return true;
    if (decoder->byte_level) {
        sl_buffer text = {0};
        ok = sl_utf8_append_lossy(&text, run->data, run->length) && emit(decoder, text.data, text.length, out);
        sl_buffer_free(&text);
    } else if (sl_utf8_is_valid(run->data, run->length)) {
        ok = emit_text(decoder, run->data, run->length, out);
    } else {
        for (size_t i = 0; ok && i < run->length; i++) ok = emit_text(decoder, "\xEF\xBF\xBD", 3, out);
    }
    run->length = 0;
    return ok;
}

/* Byte-level: what is complete goes out, an unfinished character waits. */
static bool push_bytes(sl_decoder *decoder, const char *bytes, size_t length, sl_buffer *out) {
    sl_buffer *run = &decoder->run;
    if (!run->length && sl_utf8_is_valid(bytes, length)) return emit(decoder, bytes, length, out);
    if (!sl_buffer_append(run, bytes, length)) return false;
    size_t whole = run->length - sl_utf8_incomplete(run->data, run->length);
    sl_buffer text = {0};
    bool ok = !whole || (sl_utf8_append_lossy(&text, run->data, whole) && emit(decoder, text.data, text.length, out));
    sl_buffer_free(&text);
    if (!ok) return false;
    memmove(run->data, run->data + whole, run->length - whole);
    run->length -= whole;
    return true;
}

static bool push_token(sl_decoder *decoder, int32_t id, sl_buffer *out) {
    const sl_tokenizer *tokenizer = decoder->tokenizer;
    const sl_vocab *vocab = &tokenizer->vocab;
    int type = vocab->types[id];
    if (type == SL_TOKEN_ABSENT) return true;
    sl_span span = decoder->byte_level ? vocab->pieces[id] : vocab->texts[id];
    const char *text = vocab->pool.data + span.offset;
    if (decoder->byte_level) {
        decoder->n_tokens++;
        return push_bytes(decoder, text, span.length, out);
    }
    sl_buffer *piece = &decoder->piece, whole = {0};
    bool fallback = decoder->fallback < tokenizer->n_decode;
    piece->length = 0;
    if (!sl_utf8_append_lossy(piece, text, span.length) || !sl_buffer_reserve(piece, 0) || /* data is there if empty */
        !run_steps(decoder, 0, decoder->fallback, decoder->n_tokens == 0))
        return false;
    decoder->n_tokens++;
    int byte = fallback ? sl_byte_of_token(piece->data, piece->length) : -1;
    if (byte >= 0) return sl_buffer_putc(&decoder->run, (char)byte);
    if (!decoder->run.length)
        return fallback ? emit_piece(decoder, out) : emit(decoder, piece->data, piece->length, out);
    /* The run before it goes first, through the same buffers. */
    bool ok = sl_buffer_append(&whole, piece->data, piece->length) && end_run(decoder, out) &&
              emit_text(decoder, whole.data, whole.length, out);
    sl_buffer_free(&whole);
    return ok;
}

/* BPE's suffix becomes a blank, but not in the last token: each token waits for the next. */
static bool push_suffixed(sl_decoder *decoder, int32_t id, const sl_decode_step *step, sl_buffer *out) {
    sl_span span = decoder->tokenizer->vocab.texts[id];
    sl_buffer *held = &decoder->held;
    sl_decode_step blank = *step;
    blank.content = " ";
    blank.content_length = 1;
    decoder->other.length = 0;
    if (!replace_all(&decoder->other, held->data ? held->data : "", held->length, &blank) ||
        !emit(decoder, decoder->other.data ? decoder->other.data : "", decoder->other.length, out)) return false;
    held->length = 0;
    return sl_buffer_append(held, decoder->tokenizer->vocab.pool.data + span.offset, span.length);
}

static bool push(sl_decoder *decoder, int32_t id, sl_buffer *out) {
    const sl_tokenizer *tokenizer = decoder->tokenizer;
    if (decoder->skip_special && tokenizer->added.special[id]) return true;
    if (tokenizer->n_decode && tokenizer->decode[0].kind == SL_DECODE_BPE)
        return push_suffixed(decoder, id, &tokenizer->decode[0], out);
    /* No decoder: tokens with a blank between them, as the reference joins them. */
    if (tokenizer->n_decode == 0 && decoder->n_tokens && !emit(decoder, " ", 1, out)) return false;
    return push_token(decoder, id, out);
}

static bool finish(sl_decoder *decoder, sl_buffer *out) {
    const sl_tokenizer *tokenizer = decoder->tokenizer;
    if (decoder->held.length) {
        sl_decode_step none = tokenizer->decode[0];
        none.content = "";
        none.content_length = 0;
        decoder->other.length = 0;
        if (!replace_all(&decoder->other, decoder->held.data, decoder->held.length, &none) ||
            !emit(decoder, decoder->other.data ? decoder->other.data : "", decoder->other.length, out)) return false;
        decoder->held.length = 0;
    }
    return end_run(decoder, out);
}

/* ---------------------------------------------------------------- interface */

static void decoder_init(sl_decoder *decoder, const sl_tokenizer *tokenizer, bool skip_special) {
    *decoder = (sl_decoder){.tokenizer = tokenizer, .skip_special = skip_special};
    decoder->fallback = decoder->strip_at = tokenizer->n_decode;
    bool fused = false;
    for (size_t i = 0; i < tokenizer->n_decode; i++) {
        sl_decode_kind kind = tokenizer->decode[i].kind;
        if (kind == SL_DECODE_BYTE_LEVEL) decoder->byte_level = true;
        if (kind == SL_DECODE_BYTE_FALLBACK) decoder->fallback = i;
        if (kind == SL_DECODE_STRIP && fused) decoder->strip_at = i;
        fused = fused || kind == SL_DECODE_FUSE;
    }
    if (decoder->strip_at < tokenizer->n_decode) decoder->strip_left = tokenizer->decode[decoder->strip_at].start;
}

static void decoder_free(sl_decoder *decoder) {
    sl_buffer_free(&decoder->run);
    sl_buffer_free(&decoder->held);
    sl_buffer_free(&decoder->piece);
    sl_buffer_free(&decoder->other);
}

static sllm_status check_id(const sl_tokenizer *tokenizer, int32_t id, sllm_error *error) {
    if (id >= 0 && id < tokenizer->vocab.size) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "token id %d is outside the vocabulary (0..%d)", id,
                   tokenizer->vocab.size - 1);
}

sllm_status sl_tokenizer_decode(const sl_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                                sl_buffer *out, sllm_error *error) {
    for (size_t i = 0; i < n; i++) {
        sllm_status status = check_id(tokenizer, ids[i], error);
        if (status != SLLM_OK) return status;
    }
    sl_decoder decoder;
    decoder_init(&decoder, tokenizer, skip_special);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = push(&decoder, ids[i], out);
    ok = ok && finish(&decoder, out) && sl_buffer_append(out, "", 0);
    decoder_free(&decoder);
    return ok ? SLLM_OK : sl_fail_memory(error, "decoding tokens", n);
}

sllm_status sl_decoder_new(const sl_tokenizer *tokenizer, bool skip_special, sl_decoder **decoder, sllm_error *error) {
    *decoder = malloc(sizeof **decoder);
    if (!*decoder) return sl_fail_memory(error, "a decoder", sizeof **decoder);
    decoder_init(*decoder, tokenizer, skip_special);
    return SLLM_OK;
}

sllm_status sl_decoder_push(sl_decoder *decoder, int32_t id, sl_buffer *out, sllm_error *error) {
    sllm_status status = check_id(decoder->tokenizer, id, error);
    if (status != SLLM_OK) return status;
    return push(decoder, id, out) ? SLLM_OK : sl_fail_memory(error, "decoding a token", 0);
}

sllm_status sl_decoder_finish(sl_decoder *decoder, sl_buffer *out, sllm_error *error) {
    return finish(decoder, out) ? SLLM_OK : sl_fail_memory(error, "decoding tokens", 0);
}

void sl_decoder_reset(sl_decoder *decoder) {
    const sl_tokenizer *tokenizer = decoder->tokenizer;
    bool skip_special = decoder->skip_special;
    decoder_free(decoder);
    decoder_init(decoder, tokenizer, skip_special);
}

void sl_decoder_free(sl_decoder *decoder) {
    if (!decoder) return;
    decoder_free(decoder);
    free(decoder);
}
