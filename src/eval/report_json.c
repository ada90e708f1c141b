#include "base/json.h"
#include "eval/report.h"

#include <inttypes.h>
#include <math.h>

static void put_perplexity(sl_buffer *out, const char *keys[3], const sl_perplexity *p) {
    double perplexity = exp(p->mean_nll);
    sl_json_put_double(out, keys[0], perplexity);
    sl_json_put_double(out, keys[1], perplexity * p->nll_error);
    sl_json_put_double(out, keys[2], p->seconds > 0 ? (double)p->n_read / p->seconds : 0);
}

static void put_comparison(sl_buffer *out, const sl_comparison *c) {
    static const char *keys_a[] = {"perplexity_a", "perplexity_a_standard_error", "tokens_per_second_a"};
    static const char *keys_b[] = {"perplexity_b", "perplexity_b_standard_error", "tokens_per_second_b"};
    sl_json_put_double(out, "mean_kld", c->mean_kld);
    sl_json_put_double(out, "mean_kld_standard_error", c->kld_error);
    sl_json_put_double(out, "median_kld", sl_comparison_quantile(c, 0.5));
    sl_json_put_double(out, "p90_kld", sl_comparison_quantile(c, 0.9));
    sl_json_put_double(out, "p99_kld", sl_comparison_quantile(c, 0.99));
    sl_json_put_double(out, "p999_kld", sl_comparison_quantile(c, 0.999));
    sl_json_put_double(out, "max_kld", sl_comparison_quantile(c, 1));
    sl_json_put_double(out, "top1_agreement", c->top1);
    sl_json_put_double(out, "top1_agreement_standard_error", c->top1_error);
    sl_json_put_double(out, "mean_delta_ln_p", c->mean_dln);
    sl_json_put_double(out, "mean_delta_ln_p_standard_error", c->dln_error);
    sl_json_put_double(out, "rms_delta_p", c->rms_dp);
    put_perplexity(out, keys_a, &c->a);
    put_perplexity(out, keys_b, &c->b);
    sl_json_put_int(out, "chunks", c->a.n_chunks);
    sl_json_put_int(out, "scored", c->n);
}

static void put_tensor(sl_buffer *out, const sl_report_tensor *t) {
    sl_json_comma(out);
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "name", t->a->name);
    sl_json_key(out, "shape");
    sl_buffer_putc(out, '[');
    for (int d = 0; d < t->a->n_dims; d++) {
        sl_json_comma(out);
        sl_buffer_printf(out, "%" PRId64, t->a->shape[d]);
    }
    sl_buffer_putc(out, ']');
    sl_json_put_string(out, "type_a", sl_type_get(t->a->type)->name);
    sl_json_put_string(out, "type_b", t->b ? sl_type_get(t->b->type)->name : NULL);
    sl_json_put_int(out, "bytes_a", (int64_t)t->a->bytes);
    if (t->b) {
        sl_json_put_int(out, "bytes_b", (int64_t)t->b->bytes);
    }
    if (t->is_measured) {
        sl_json_put_double(out, "rmse", t->error.rmse);
        sl_json_put_double(out, "relative_error", t->error.relative);
        sl_json_put_double(out, "max_error", t->error.largest);
        sl_json_put_double(out, "cosine", t->error.cosine);
    }
    sl_buffer_putc(out, '}');
}

void sl_report_json(const sl_report *r, sl_buffer *out) {
    sl_buffer_putc(out, '{');
    sl_json_put_string(out, "a", r->path_a);
    sl_json_put_string(out, "b", r->path_b);
    sl_json_put_string(out, "text", r->text_name);
    sl_json_put_string(out, "arithmetic", r->exact ? "exact" : "fast");
    sl_json_put_int(out, "n_ctx", r->n_ctx);
    sl_json_put_int(out, "bytes_a", (int64_t)r->bytes_a);
    sl_json_put_int(out, "bytes_b", (int64_t)r->bytes_b);
    put_comparison(out, r->comparison);
    if (r->note) sl_json_put_string(out, "tensors_note", r->note);
    sl_json_key(out, "tensors");
    sl_buffer_putc(out, '[');
    for (size_t i = 0; i < r->n_tensors; i++) put_tensor(out, &r->tensors[i]);
    sl_buffer_puts(out, "]}");
}
