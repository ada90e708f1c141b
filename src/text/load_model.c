/* SentencePiece's tokenizer.model: a protocol buffer whose fields are those of sentencepiece_model.proto. */
#include "base/error.h"
#include "base/utf8.h"
#include "text/load_files.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- protocol buffers */

typedef struct reader {
    const unsigned char *at, *end;
} reader;

typedef struct field {
    uint32_t number, wire; /* wire: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes */
    uint64_t value;        /* varint; four or eight bytes, little-endian */
    reader bytes;
} field;

static bool read_varint(reader *r, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end) return false;
        unsigned char byte = *r->at++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* The next field; false at the end, or (with *broken) where the bytes are no fields. */
static bool read_field(reader *r, field *f, bool *broken) {
    uint64_t key, n;
    if (r->at == r->end) return false;
    *broken = true;
    if (!read_varint(r, &key) || key >> 3 == 0 || key >> 3 > 0x1FFFFFFF) return false;
    *f = (field){.number = (uint32_t)(key >> 3), .wire = (uint32_t)(key & 7)};
    switch (f->wire) {
    case 0:
        if (!read_varint(r, &f->value)) return false;
        break;
    case 2:
        if (!read_varint(r, &n) || n > (uint64_t)(r->end - r->at)) return false;
        f->bytes = (reader){r->at, r->at + n};
        r->at += n;
        break;
    case 1:
    case 5:
        n = f->wire == 1 ? 8 : 4;
        if (n > (uint64_t)(r->end - r->at)) return false;
        memcpy(&f->value, r->at, n);
        r->at += n;
        break;
    default: return false;
    }
    *broken = false;
    return true;
}

/* ---------------------------------------------------------------- the model's messages */

typedef struct spec {
    uint64_t model_type; /* 1 Unigram, 2 BPE, 3 word, 4 char */
    bool byte_fallback, dummy_prefix, collapse, escape, suffix_blanks;
    int32_t unk, bos, eos, pad;
    reader charsmap;
} spec;

static bool read_trainer(reader r, spec *s) {
    field f;
    bool broken = false;
    while (read_field(&r, &f, &broken)) {
        switch (f.number) {
        case 3: s->model_type = f.value; break;
        case 24: s->suffix_blanks = f.value; break;
        case 35: s->byte_fallback = f.value; break;
        case 40: s->unk = (int32_t)f.value; break;
        case 41: s->bos = (int32_t)f.value; break;
        case 42: s->eos = (int32_t)f.value; break;
        case 43: s->pad = (int32_t)f.value; break;
        }
    }
    return !broken;
}

static bool read_normalizer(reader r, spec *s) {
    field f;
    bool broken = false;
    while (read_field(&r, &f, &broken)) {
        switch (f.number) {
        case 2: s->charsmap = f.bytes; break;
        case 3: s->dummy_prefix = f.value; break;
        case 4: s->collapse = f.value; break;
        case 5: s->escape = f.value; break;
        }
    }
    return !broken;
}

static bool read_piece(reader r, reader *text, float *score, int *type) {
    field f;
    bool broken = false;
    *text = (reader){0};
    *score = 0;
    *type = SL_TOKEN_NORMAL;
    while (read_field(&r, &f, &broken)) {
        if (f.number == 1 && f.wire == 2) *text = f.bytes;
        if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(score, &bits, 4);
        }
        if (f.number == 3) *type = f.value >= 1 && f.value <= 6 ? (int)f.value : SL_TOKEN_NORMAL;
    }
    return !broken && text->at && *score == *score;
}

/* Counts the pieces and reads the two specifications. */
static sllm_status scan_model(reader all, spec *s, int32_t *n_pieces, sllm_error *error) {
    field f;
    bool broken = false, ok = true;
    *n_pieces = 0;
    while (ok && read_field(&all, &f, &broken)) {
        if (f.wire != 2) continue;
        if (f.number == 1) (*n_pieces)++;
        if (f.number == 2) ok = read_trainer(f.bytes, s);
        if (f.number == 3) ok = read_normalizer(f.bytes, s);
        if (*n_pieces > INT32_MAX / 8) ok = false;
    }
    if (broken || !ok || *n_pieces == 0) return sl_fail(error, SLLM_ERROR_FORMAT, "this is not a SentencePiece model");
    if (s->model_type != 1 && s->model_type != 2)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED,
                       "SentencePiece model type %llu is not supported (Unigram and BPE are)",
                       (unsigned long long)s->model_type);
    if (s->suffix_blanks) return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "treat_whitespace_as_suffix is not supported");
    int32_t *ids[] = {&s->unk, &s->bos, &s->eos, &s->pad};
    for (int i = 0; i < 4; i++)
        if (*ids[i] < 0 || *ids[i] >= *n_pieces) *ids[i] = -1;
    return SLLM_OK;
}

static sllm_status load_pieces(sl_tokenizer *tokenizer, reader all, sllm_error *error) {
    field f;
    bool broken = false;
    for (int32_t id = 0; read_field(&all, &f, &broken);) {
        if (f.number != 1 || f.wire != 2) continue;
        reader text;
        float score;
        int type;
        if (!read_piece(f.bytes, &text, &score, &type))
            return sl_fail(error, SLLM_ERROR_FORMAT, "SentencePiece model: piece %d is damaged", id);
        size_t length = (size_t)(text.end - text.at);
        if (!sl_vocab_set(&tokenizer->vocab, id, (const char *)text.at, length, type, score))
            return sl_fail_memory(error, "the vocabulary", length);
        if (type == SL_TOKEN_USER && length && sl_utf8_is_valid((const char *)text.at, length)) {
            if (!sl_trie_add(&tokenizer->bpe.user, (const char *)text.at, length, id))
                return sl_fail_memory(error, "the vocabulary", length);
            tokenizer->bpe.has_user = true;
        }
        if (type == SL_TOKEN_CONTROL || type == SL_TOKEN_UNKNOWN) {
            sllm_status status = sl_added_add(tokenizer, (sl_added){.id = id, .special = true}, error);
            if (status != SLLM_OK) return status;
        }
        id++;
    }
    return SLLM_OK;
}

static sllm_status add_normalizer(sl_tokenizer *tokenizer, const spec *s, sllm_error *error) {
    sl_normalize_step step = {.kind = SL_NORMALIZE_SENTENCEPIECE,
                              .dummy_prefix = s->dummy_prefix,
                              .collapse = s->collapse,
                              .escape = s->escape,
                              .keep = tokenizer->bpe.has_user ? &tokenizer->bpe.user : NULL};
    size_t n = (size_t)(s->charsmap.end - s->charsmap.at);
    if (n) {
        unsigned char *copy = sl_arena_alloc(&tokenizer->arena, n);
        if (!copy) return sl_fail_memory(error, "the character map", n);
        memcpy(copy, s->charsmap.at, n);
        sllm_status status = sl_charsmap_open(copy, n, &step.charsmap, error);
        if (status != SLLM_OK) return status;
    }
    return sl_add_normalize(tokenizer, step, error);
}

/* What tokenizer_config.json says about adding tokens; without it, BPE models begin with BOS (Llama, Mistral, Gemma)
 * and Unigram models end with EOS (T5). */
static void add_affixes(sl_tokenizer *tokenizer, const sl_tokenizer_settings *settings) {
    bool bos = tokenizer->kind == SL_MODEL_SPM, eos = !bos;
    sl_tokenizer_apply_settings(tokenizer, settings);
    if (settings->config) {
        sl_json_bool(sl_json_get(settings->config, "add_bos_token"), &bos);
        sl_json_bool(sl_json_get(settings->config, "add_eos_token"), &eos);
    }
    if (bos && tokenizer->special[SL_SPECIAL_BOS] >= 0)
        tokenizer->prefix[tokenizer->n_prefix++] = tokenizer->special[SL_SPECIAL_BOS];
    if (eos && tokenizer->special[SL_SPECIAL_EOS] >= 0)
        tokenizer->suffix[tokenizer->n_suffix++] = tokenizer->special[SL_SPECIAL_EOS];
}

/* Unigram models decode as T5's tokenizer.json does; BPE models as SentencePiece: one blank is taken off the beginning,
 * and all of them where the normaliser leaves none there. */
static sllm_status add_decoder(sl_tokenizer *tokenizer, const spec *s, sllm_error *error) {
    sl_decode_step blank = {.kind = SL_DECODE_METASPACE, .pattern = "\xE2\x96\x81", .pattern_length = 3,
                            .prepend = s->dummy_prefix};
    sl_decode_step strip = {.kind = SL_DECODE_STRIP, .content = " ", .content_length = 1,
                            .start = s->collapse ? INT32_MAX : s->dummy_prefix};
    if (s->model_type == 1 && !s->byte_fallback) return sl_add_decode(tokenizer, blank, error);
    blank.kind = SL_DECODE_REPLACE;
    blank.content = " ";
    blank.content_length = 1;
    sllm_status status = sl_add_decode(tokenizer, blank, error);
    if (status == SLLM_OK && s->byte_fallback)
        status = sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_BYTE_FALLBACK}, error);
    if (status == SLLM_OK) status = sl_add_decode(tokenizer, (sl_decode_step){.kind = SL_DECODE_FUSE}, error);
    if (status == SLLM_OK && strip.start) status = sl_add_decode(tokenizer, strip, error);
    return status;
}

static sllm_status load(sl_tokenizer *tokenizer, const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                        sllm_error *error) {
    const unsigned char *bytes = (const unsigned char *)files->text.data;
    reader all = {bytes, bytes + files->text.length};
    spec s = {.model_type = 1,
              .dummy_prefix = true,
              .collapse = true,
              .escape = true,
              .unk = 0,
              .bos = 1,
              .eos = 2,
              .pad = -1};
    int32_t n;
    sllm_status status = scan_model(all, &s, &n, error);
    if (status == SLLM_OK) status = sl_vocab_init(&tokenizer->vocab, n, true, error);
    if (status == SLLM_OK) status = load_pieces(tokenizer, all, error);
    if (status != SLLM_OK) return status;
    tokenizer->special[SL_SPECIAL_UNK] = s.unk;
    tokenizer->special[SL_SPECIAL_BOS] = s.bos;
    tokenizer->special[SL_SPECIAL_EOS] = s.eos;
    tokenizer->special[SL_SPECIAL_PAD] = s.pad;
    status = add_normalizer(tokenizer, &s, error);
    if (status == SLLM_OK) status = sl_vocab_index(&tokenizer->vocab, SL_SPELLING_SENTENCE, NULL, error);
    if (status != SLLM_OK) return status;
    if (s.model_type == 2) {
        tokenizer->kind = SL_MODEL_SPM;
        tokenizer->bpe.by_score = tokenizer->bpe.fuse_unk = true;
        tokenizer->bpe.byte_fallback = s.byte_fallback;
        tokenizer->bpe.unk = s.unk;
        status = sl_bpe_prepare(tokenizer, error);
    } else {
        tokenizer->kind = SL_MODEL_UNIGRAM;
        tokenizer->unigram.unk = s.unk;
        tokenizer->unigram.byte_fallback = s.byte_fallback;
        status = sl_unigram_prepare(tokenizer, error);
    }
    if (status == SLLM_OK) status = sl_added_index(tokenizer, error);
    if (status == SLLM_OK) status = add_decoder(tokenizer, &s, error);
    if (status != SLLM_OK) return status;
    add_affixes(tokenizer, settings);
    return sl_tokenizer_finish(tokenizer, error);
}

sllm_status sl_load_sentencepiece(const sl_tokenizer_files *files, const sl_tokenizer_settings *settings,
                                  sl_tokenizer **tokenizer, sllm_error *error) {
    sl_tokenizer *made = sl_tokenizer_new(error);
    if (!made) return SLLM_ERROR_MEMORY;
    sllm_status status = load(made, files, settings, error);
    if (status == SLLM_OK) *tokenizer = made;
    else sl_tokenizer_free(made);
    return status;
}
