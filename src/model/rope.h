/* Rotary position embedding (Su et al. 2021, arXiv 2104.09864) with its scalings: which frequencies hold for a timeline
 * of a given length, the angles of a run of positions, and the rotation of a head. */
#ifndef SL_MODEL_ROPE_H
#define SL_MODEL_ROPE_H

#include "model/config.h"

/* Some scalings depend on the length of the whole timeline: longrope takes its long factors for all positions once the
 * length passes the original context, dynamic scaling has frequencies of its own for every length beyond it. Two
 * lengths of the same regime have the same frequencies; keys computed in another regime must be computed again. */
int64_t sl_rope_regime(const sl_config *config, int64_t length);

/* Frequencies [rope_dim/2] of a regime, and the factor on cos and sin. `local`: those of the layers with a base of
 * their own, which are not scaled. */
void sl_rope_frequencies(const sl_config *config, int64_t regime, bool local, float *frequencies, float *factor);

/* cos and sin of positions [first, first + n), each multiplied by factor: table [n, 2, half]. Angles are products in
 * f32, as in the reference. */
void sl_rope_table(const float *frequencies, int half, float factor, int first, int n, float *table);

/* Rotates the first 2 * half values of a head in place; angles: one row of the table. Pairs are (j, j + half), or
 * (2j, 2j + 1) when interleaved. */
void sl_rope_rotate(float *head, const float *angles, int half, bool interleaved);

#endif
