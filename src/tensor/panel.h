/* The layout that quantised weights are multiplied in: panels of 16 rows, interleaved so that a lane of a vector is a
 * row. A product then needs no horizontal sums, every row adds its groups in order, and a panel is one stream of memory.
 *
 * One layout serves every table of kernels and any number of tokens; it is made from the file's rows at first use
 * (pack.h). A panel is the blocks of its 16 rows side by side, one block column after the other (rows past the end of
 * the matrix are zeros); such a block of a type with B columns is
 *
 *     head     scales and minimums of the 16 rows, see sl_panel_form
 *     groups   B / 32 times the codes of 32 columns. A word is 4 neighbouring columns of all 16 rows, 64 bytes: byte
 *              4 * row + column % 4. Word w of the 8 holds columns 4w .. 4w + 3.
 *
 * and the codes of a group, by the bits of a code (code + offset of codes.h; an index where a type has a code book):
 *
 *     8 bits   eight words                                                            512 bytes
 *     4 bits   four times 64 bytes: word w in the low nibbles, word w + 4 in the high   256
 *     5 bits   4 bits as above, then bit w of 64 bytes: bit 4 of word w                 + 64
 *     6 bits   4 bits as above, then twice 64 bytes: bits 2k, 2k + 1 of the i-th are
 *              bits 4 and 5 of word 4i + k                                             + 128
 *     2 bits   twice 64 bytes: bits 2k, 2k + 1 of the i-th are word 4i + k              128
 *     3 bits   2 bits as above, then bit w of 64 bytes: bit 2 of word w                 + 64
 */
#ifndef SL_TENSOR_PANEL_H
#define SL_TENSOR_PANEL_H

#include "tensor/codes.h"

enum { SL_PANEL_ROWS = 16, SL_WORD_BYTES = 4 * SL_PANEL_ROWS };

/* What the head of a block of 16 rows holds; scales are [group][16] where a block has several groups. */
typedef enum sl_panel_head {
    SL_HEAD_NONE,     /* the type has no panel layout: it is multiplied from its rows */
    SL_HEAD_F16,      /* f16 scale[16] */
    SL_HEAD_F16_MIN,  /* f16 scale[16], f16 minimum[16] */
    SL_HEAD_BF16,     /* bf16 scale[16] (a power of two, exact) */
    SL_HEAD_NF4,      /* f32 absmax[16]: scale absmax * SL_NF4_UNIT */
    SL_HEAD_FP4,      /* f32 absmax[16]: scale absmax * SL_FP4_UNIT */
    SL_HEAD_I8,       /* f16 d[16], int8 s[groups][16]: scale d * s */
    SL_HEAD_U8_MIN,   /* f16 d[16], f16 m[16], uint8 s[groups][16], uint8 n[groups][16]: scale d * s, minimum -(m * n) */
    SL_HEAD_U4_MIN,   /* f16 d[16], f16 m[16], uint8 [groups][16]: s in the low nibble, n in the high */
} sl_panel_head;

typedef struct sl_panel_form {
    sl_panel_head head;
    int bits;      /* of a stored code: 2, 3, 4, 5, 6 or 8 */
    int block;     /* columns of a block: 32, 64 or 256 */
    int group;     /* columns that share a scale: 16 or 32 */
    int head_bytes, group_bytes; /* group_bytes: codes of 32 columns */
    const int8_t *book; /* [16] signed values that 4-bit codes stand for, or NULL */
} sl_panel_form;

/* The types with panels. */
#define SL_PANEL_TYPES(X) \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS) X(MXFP4) X(NF4) \
    X(FP4)

/* head SL_HEAD_NONE where the type has no panels. The one place that says so; constant for a constant type. */
static inline __attribute__((always_inline)) sl_panel_form sl_panel_form_of(sl_type type) {
    switch (type) {
    case SL_Q4_0: return (sl_panel_form){SL_HEAD_F16, 4, 32, 32, 32, 256, NULL};
    case SL_Q4_1: return (sl_panel_form){SL_HEAD_F16_MIN, 4, 32, 32, 64, 256, NULL};
    case SL_Q5_0: return (sl_panel_form){SL_HEAD_F16, 5, 32, 32, 32, 320, NULL};
    case SL_Q5_1: return (sl_panel_form){SL_HEAD_F16_MIN, 5, 32, 32, 64, 320, NULL};
    case SL_Q8_0: return (sl_panel_form){SL_HEAD_F16, 8, 32, 32, 32, 512, NULL};
    case SL_IQ4_NL: return (sl_panel_form){SL_HEAD_F16, 4, 32, 32, 32, 256, sl_iq4_values};
    case SL_MXFP4: return (sl_panel_form){SL_HEAD_BF16, 4, 32, 32, 32, 256, sl_fp4_values};
    case SL_NF4: return (sl_panel_form){SL_HEAD_NF4, 4, 64, 32, 64, 256, sl_nf4_codes};
    case SL_FP4: return (sl_panel_form){SL_HEAD_FP4, 4, 64, 32, 64, 256, sl_bnb_fp4_codes};
    case SL_Q2_K: return (sl_panel_form){SL_HEAD_U4_MIN, 2, 256, 16, 64 + 256, 128, NULL};
    case SL_Q3_K: return (sl_panel_form){SL_HEAD_I8, 3, 256, 16, 32 + 256, 192, NULL};
    case SL_Q4_K: return (sl_panel_form){SL_HEAD_U8_MIN, 4, 256, 32, 64 + 256, 256, NULL};
    case SL_Q5_K: return (sl_panel_form){SL_HEAD_U8_MIN, 5, 256, 32, 64 + 256, 320, NULL};
    case SL_Q6_K: return (sl_panel_form){SL_HEAD_I8, 6, 256, 16, 32 + 256, 384, NULL};
    case SL_IQ4_XS: return (sl_panel_form){SL_HEAD_I8, 4, 256, 32, 32 + 128, 256, sl_iq4_values};
    default: return (sl_panel_form){SL_HEAD_NONE, 0, 0, 0, 0, 0, NULL};
    }
}

static inline __attribute__((always_inline)) int64_t sl_panel_block_bytes(sl_panel_form f) {
    return f.head_bytes + (int64_t)f.block / 32 * f.group_bytes;
}

/* Bytes that 256 columns of a panel take at most, whatever the type: Q5_1 and Q8_0 with a head to 32 columns. */
enum { SL_PANEL_256 = 8 * (64 + 512) };

/* Bytes of one panel of a matrix of n columns; 0: the type has no panels. */
size_t sl_panel_bytes(sl_type type, int64_t n);

/* Packs rows [0, n_rows), n_rows <= 16, of n columns, `row_bytes` apart in the file's layout, into one panel.
 * In plain C; tables of kernels have faster ones, which write the same bytes. */
void sl_panel_pack(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t n, uint8_t *panel);
/* The head of block column b alone: what faster packers leave to it. */
void sl_panel_pack_head(sl_type type, const uint8_t *rows, size_t row_bytes, int n_rows, int64_t b, uint8_t *head);

/* Groups of 16 with integer scales, and minimums, under one float each: products multiply by the integers first. */
static inline __attribute__((always_inline)) bool sl_panel_has_factors(sl_panel_form f) {
    return f.group == 16 && (f.head == SL_HEAD_I8 || f.head == SL_HEAD_U4_MIN);
}

/* Of such a type, in 32 columns of a row: scale of half h is d * scale[h], its minimum -(m * minimum[h]). */
typedef struct sl_panel_factors {
    float d, m;
    int32_t scale[2], minimum[2]; /* minimum, m: 0 where the type has none */
} sl_panel_factors;
sl_panel_factors sl_panel_factors_of(sl_type type, const uint8_t *block, int group, int row);

/* Codes (as codes.h has them), scales and mins of 32 columns of row `row` of a panel's block; `group` of the block's 32
 * columns. scales and mins [32 / form.group]; mins only where the type has them. */
void sl_panel_unpack(sl_type type, const uint8_t *block, int group, int row, int8_t codes[32], float scales[2],
                     float mins[2]);

/* Row `row` of a panel widened to f32, the bits that the type's to_float gives: out [n]. */
void sl_panel_to_float(sl_type type, const uint8_t *panel, int row, int64_t n, float *out);

#endif
