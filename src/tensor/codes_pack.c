/* Codes into blocks: the way back from the unpackers of types_*.c. Layouts are described there. */
#include "tensor/codes.h"
#include "tensor/quantise.h"

static uint8_t low_high(int low, int high) { return (uint8_t)((low & 15) | (high & 15) << 4); }

/* Element i in the low nibble of byte i, element i + 16 in the high one. */
static void set_nibbles(uint8_t *qs, const int8_t *codes, int offset) {
    for (int i = 0; i < 16; i++) qs[i] = low_high(codes[i] + offset, codes[i + 16] + offset);
}

static void set_five_bits(uint8_t *qh, uint8_t *qs, const int8_t *codes, int offset) {
    uint32_t high = 0;
    for (int i = 0; i < 32; i++) high |= (uint32_t)((codes[i] + offset) >> 4 & 1) << i;
    for (int i = 0; i < 4; i++) qh[i] = (uint8_t)(high >> (8 * i));
    set_nibbles(qs, codes, offset);
}

/* `streams` streams of 32 codes, `step` bits each, into the same 32 bytes, which are zero in those bits. */
static void add_streams(uint8_t *out, const int8_t *codes, int streams, int step, int shift, int mask) {
    for (int s = 0; s < streams; s++)
        for (int k = 0; k < 32; k++) out[k] = (uint8_t)(out[k] | (codes[32 * s + k] >> shift & mask) << (step * s));
}

static void set_two_bits(uint8_t *qs, const int8_t *codes, int shift) {
    memset(qs, 0, 64);
    add_streams(qs, codes, 4, 2, shift, 3);
    add_streams(qs + 32, codes + 128, 4, 2, shift, 3);
}

static void set_k_nibbles(uint8_t *qs, const int8_t *codes) {
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 32; k++) qs[32 * i + k] = low_high(codes[64 * i + k], codes[64 * i + 32 + k]);
}

static void set_q3_k(uint8_t *block, const int8_t *codes) {
    int8_t raised[256];
    for (int i = 0; i < 256; i++) raised[i] = (int8_t)(codes[i] + 4);
    memset(block, 0, 32);
    add_streams(block, raised, 8, 1, 2, 1);
    set_two_bits(block + 32, raised, 0);
}

static void set_q6_k(uint8_t *block, const int8_t *codes) {
    int8_t raised[256];
    for (int i = 0; i < 256; i++) raised[i] = (int8_t)(codes[i] + 32);
    for (int half = 0; half < 2; half++)
        for (int k = 0; k < 64; k++)
            block[64 * half + k] = low_high(raised[128 * half + k], raised[128 * half + 64 + k]);
    set_two_bits(block + 128, raised, 4);
}

/* Position of a value in a book of 16; books are in no order that could be searched. */
static int in_book(const int8_t *book, int8_t value) {
    for (int i = 0; i < 16; i++)
        if (book[i] == value) return i;
    return 0;
}

/* The way back through the two books that quantisers write often: position of value - the smallest. */
static const uint8_t iq4_places[241] = {
    [0] = 0, [23] = 1, [44] = 2, [62] = 3, [78] = 4, [92] = 5, [105] = 6, [117] = 7, [128] = 8, [140] = 9, [152] = 10, [165] = 11,
    [180] = 12, [196] = 13, [216] = 14, [240] = 15,
};
static const uint8_t fp4_places[25] = {
    [0] = 15, [4] = 14, [6] = 13, [8] = 12, [9] = 11, [10] = 10, [11] = 9, [12] = 0, [13] = 1, [14] = 2, [15] = 3, [16] = 4, [18] = 5,
    [20] = 6, [24] = 7,
};

static void set_book(uint8_t *qs, const int8_t *codes, const uint8_t *places, int smallest) {
    for (int i = 0; i < 16; i++) qs[i] = low_high(places[codes[i] - smallest], places[codes[i + 16] - smallest]);
}

/* Sixty-four, the first of a pair in the high nibble. */
static void set_pairs(uint8_t *qs, const int8_t *codes, const int8_t *book) {
    for (int i = 0; i < 32; i++) qs[i] = low_high(in_book(book, codes[2 * i + 1]), in_book(book, codes[2 * i]));
}

void sl_block_set_codes(sl_type type, uint8_t *block, const int8_t *codes) {
    switch (type) {
    case SL_Q4_0: set_nibbles(block + 2, codes, 8); break;
    case SL_Q4_1: set_nibbles(block + 4, codes, 0); break;
    case SL_Q5_0: set_five_bits(block + 2, block + 6, codes, 16); break;
    case SL_Q5_1: set_five_bits(block + 4, block + 8, codes, 0); break;
    case SL_Q8_0: memcpy(block + 2, codes, 32); break;
    case SL_Q2_K: set_two_bits(block + 16, codes, 0); break;
    case SL_Q3_K: set_q3_k(block, codes); break;
    case SL_Q4_K: set_k_nibbles(block + 16, codes); break;
    case SL_Q5_K:
        memset(block + 16, 0, 32);
        add_streams(block + 16, codes, 8, 1, 4, 1);
        set_k_nibbles(block + 48, codes);
        break;
    case SL_Q6_K: set_q6_k(block, codes); break;
    case SL_IQ4_NL: set_book(block + 2, codes, iq4_places, -127); break;
    case SL_IQ4_XS:
        for (int g = 0; g < 8; g++) set_book(block + 8 + 16 * g, codes + 32 * g, iq4_places, -127);
        break;
    case SL_MXFP4: set_book(block + 1, codes, fp4_places, -12); break;
    case SL_NF4: set_pairs(block + 4, codes, sl_nf4_codes); break;
    case SL_FP4: set_pairs(block + 4, codes, sl_bnb_fp4_codes); break;
    default: break;
    }
}
