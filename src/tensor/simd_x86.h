/* What the vector names of AVX2 and AVX-512 share: sums over the lanes of a vector, from the four of vf_quarter on. */
#ifndef SL_TENSOR_SIMD_X86_H
#define SL_TENSOR_SIMD_X86_H

VINLINE float vf_sum(vfloat v) {
    __m128 x = vf_quarter(v);
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
/* out[i] = vf_sum(v[i]), four at once. */
VINLINE void vf_sum4(const vfloat v[4], float out[4]) {
    __m128 a = vf_quarter(v[0]), b = vf_quarter(v[1]), c = vf_quarter(v[2]), d = vf_quarter(v[3]);
    __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    _mm_storeu_ps(out, _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd)));
}

/* Sums over the elements of a row, eight lanes whatever LANES is, so that both tables give the same bits. */
typedef __m256 vsum;
VINLINE vsum vs_zero(void) { return _mm256_setzero_ps(); }
VINLINE float vs_total(vsum s) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

#endif
