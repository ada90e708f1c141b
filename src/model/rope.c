#include "model/rope.h"

#include <math.h>

int64_t sl_rope_regime(const sl_config *config, int64_t length) {
    bool longer = config->rope_dim && length > config->rope_original_ctx;
    if (config->rope_scaling == SL_ROPE_LONGROPE) return longer;
    if (config->rope_scaling == SL_ROPE_DYNAMIC && longer) return length;
    return 0;
}

/* 1 / base^(2j/dim), unscaled. */
static void plain(double base, int dim, float *frequencies) {
    for (int j = 0; j < dim / 2; j++) frequencies[j] = (float)(1 / pow(base, 2.0 * j / dim));
}

/* Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated. */
static void llama3(const sl_config *c, float *frequencies) {
    double low = c->rope_original_ctx / (double)c->rope_low_freq;
    double high = c->rope_original_ctx / (double)c->rope_high_freq;
    for (int j = 0; j < c->rope_dim / 2; j++) {
        double frequency = frequencies[j], wavelength = 2 * M_PI / frequency;
        if (wavelength > low) {
            frequencies[j] = (float)(frequency / c->rope_factor);
        } else if (wavelength >= high) {
            double smooth = (c->rope_original_ctx / wavelength - c->rope_low_freq) /
                            (c->rope_high_freq - c->rope_low_freq);
            frequencies[j] = (float)((1 - smooth) * frequency / c->rope_factor + smooth * frequency);
        }
    }
}

/* The dimension at which a wave makes `rotations` turns over the original context (YaRN, section 3.2). */
static double yarn_dimension(const sl_config *c, double rotations) {
    return c->rope_dim * log(c->rope_original_ctx / (rotations * 2 * M_PI)) / (2 * log(c->rope_base));
}

static void yarn(const sl_config *c, float *frequencies) {
    double low = yarn_dimension(c, c->yarn_beta_fast), high = yarn_dimension(c, c->yarn_beta_slow);
    if (c->yarn_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, c->rope_dim - 1);
    if (low == high) high += 0.001;
    for (int j = 0; j < c->rope_dim / 2; j++) {
        double ramp = fmin(fmax((j - low) / (high - low), 0), 1); /* 0: keep, 1: interpolate */
        frequencies[j] = (float)(frequencies[j] / c->rope_factor * ramp + frequencies[j] * (1 - ramp));
    }
}

void sl_rope_frequencies(const sl_config *c, int64_t regime, bool local, float *frequencies, float *factor) {
    int half = c->rope_dim / 2;
    double base = local ? c->rope_local_base : c->rope_base;
    *factor = 1;
    if (!local && c->rope_scaling == SL_ROPE_DYNAMIC && regime) {
        double stretch = (double)c->rope_factor * (double)regime / c->rope_original_ctx - (c->rope_factor - 1);
        base *= pow(stretch, c->rope_dim / (c->rope_dim - 2.0));
    }
    plain(base, c->rope_dim, frequencies);
    for (int j = 0; local && c->rope_local_factor > 0 && j < half; j++) frequencies[j] /= c->rope_local_factor;
    if (local) return;
    const float *divisors = c->rope_freqs;
    switch (c->rope_scaling) {
    case SL_ROPE_LINEAR:
        for (int j = 0; j < half; j++) frequencies[j] /= c->rope_factor;
        break;
    case SL_ROPE_LLAMA3: llama3(c, frequencies); break;
    case SL_ROPE_YARN:
        yarn(c, frequencies);
        *factor = c->rope_attention_factor;
        break;
    case SL_ROPE_LONGROPE:
        divisors = regime ? c->rope_long : c->rope_short;
        *factor = regime ? c->rope_attention_factor : c->rope_attention_factor_short;
        break;
    case SL_ROPE_NONE:
    case SL_ROPE_DYNAMIC: break;
    }
    for (int j = 0; divisors && j < half; j++) frequencies[j] /= divisors[j];
}

void sl_rope_table(const float *frequencies, int half, float factor, int first, int n, float *table) {
    for (int t = 0; t < n; t++) {
        float *cosines = table + (size_t)t * 2 * (size_t)half, *sines = cosines + half;
        for (int j = 0; j < half; j++) {
            float angle = (float)(first + t) * frequencies[j];
            cosines[j] = cosf(angle) * factor;
            sines[j] = sinf(angle) * factor;
        }
    }
}

void sl_rope_rotate(float *head, const float *angles, int half, bool interleaved) {
    const float *cosines = angles, *sines = angles + half;
    if (interleaved) {
        for (int j = 0; j < half; j++) {
            float a = head[2 * j], b = head[2 * j + 1];
            head[2 * j] = a * cosines[j] - b * sines[j];
            head[2 * j + 1] = b * cosines[j] + a * sines[j];
        }
    } else {
        for (int j = 0; j < half; j++) {
            float a = head[j], b = head[j + half];
            head[j] = a * cosines[j] - b * sines[j];
            head[j + half] = b * cosines[j] + a * sines[j];
        }
    }
}
