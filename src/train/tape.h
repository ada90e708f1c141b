/* What a forward leaves behind for its backward: a few vectors of every token and block (sl_tape_point), as f32 or bf16. */
#ifndef SL_TRAIN_TAPE_H
#define SL_TRAIN_TAPE_H

#include "model/model.h"

typedef struct sl_tape sl_tape;

/* Room for n_rows tokens. halves: bf16, which is what the products of a quantised model have in exactness anyway. deltas: the
 * outputs of attention's and the feed-forward part's last products are kept (norms behind them, DoRA). */
sllm_status sl_tape_new(const sl_config *config, int n_rows, bool halves, bool deltas, sl_tape **tape, sllm_error *error);
void sl_tape_free(sl_tape *tape); /* NULL is allowed */
uint64_t sl_tape_bytes(const sl_config *config, int n_rows, bool halves, bool deltas);

void sl_tape_begin(sl_tape *tape); /* the next rows recorded are row 0 */
/* sl_forward_params.record; user: the tape. Rows beyond its room are not kept. */
void sl_tape_record(void *tape, sl_tape_point point, int layer, const float *rows, int n, size_t width, size_t stride);
int sl_tape_rows(const sl_tape *tape); /* recorded whole */

size_t sl_tape_width(const sl_tape *tape, sl_tape_point point); /* 0: not kept */
/* Rows [first, first + n) of a point into out, `stride` floats apart. Safe for several threads. */
void sl_tape_read(const sl_tape *tape, sl_tape_point point, int layer, int first, int n, float *out, size_t stride);

#endif
