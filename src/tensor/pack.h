/* Packed copies of a model's quantised matrices (panel.h): made when a matrix is first multiplied, all threads helping,
 * and the file's pages that it was made from given back on the way, so that a model is never in memory twice.
 *
 * The memory of all copies is one region reserved at load; what is not multiplied (experts that are never chosen,
 * embeddings that only look up rows) is not written, though a huge page may hold a part of it. Any number of threads may use the matrices of a packer at once.
 */
#ifndef SL_TENSOR_PACK_H
#define SL_TENSOR_PACK_H

#include "base/pool.h"
#include "tensor/tensor.h"

#include <stdatomic.h>

typedef struct sl_packer sl_packer;

/* One matrix: the whole of a tensor [rows, columns], or one expert of a stack. */
typedef struct sl_packed {
    _Atomic(const uint8_t *) panels; /* NULL: not made yet */
    sl_packer *packer;
    uint8_t *place;                  /* where it goes */
    bool mapped;                     /* the rows lie in a file mapping, whose pages are given back */
} sl_packed;

/* Bytes of the packed form of a matrix; 0 when the type has none (it is then multiplied from its rows). */
uint64_t sl_packed_bytes(sl_type type, int64_t rows, int64_t columns);

/* Two steps: _add every tensor, which sets tensor->packed where its type has panels, then _reserve. A packer that was
 * never reserved, or whose memory was refused, leaves every matrix to be multiplied from its rows. */
sllm_status sl_packer_new(sl_packer **packer, sllm_error *error);
void sl_packer_free(sl_packer *packer); /* NULL is allowed; the tensors' packed copies end with it */
/* `mapped`: the data lies in a read-only file mapping, whose pages may be dropped and read again. */
sllm_status sl_packer_add(sl_packer *packer, sl_tensor *tensor, bool mapped, sllm_error *error);
sllm_status sl_packer_reserve(sl_packer *packer, sllm_error *error);
uint64_t sl_packer_bytes(const sl_packer *packer); /* of all copies, made or not */

/* The panels of w, or of its expert (-1: w is a matrix), made now if need be; NULL: there are none. */
const uint8_t *sl_packed_get(sl_pool *pool, const sl_tensor *w, int64_t expert);
/* The panels if they are made already, else NULL. */
const uint8_t *sl_packed_peek(const sl_tensor *w, int64_t expert);

#endif
