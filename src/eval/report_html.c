/* The comparison as one page: no script, no file from elsewhere; plots are SVG with their numbers as text beside them. */
#include "eval/report.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 640, HEIGHT = 220, LEFT = 48, BOTTOM = 28, BINS = 36, MAX_BARS = 400 };

static void escape(sl_buffer *out, const char *text) {
    for (; *text; text++) {
        const char *entity = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '"' ? "&quot;" : NULL;
        if (entity) sl_buffer_puts(out, entity);
        else sl_buffer_putc(out, *text);
    }
}

static void head(sl_buffer *out, const sl_report *r) {
    sl_buffer_puts(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width\"><title>");
    escape(out, r->path_b);
    sl_buffer_puts(out, " compared with ");
    escape(out, r->path_a);
    sl_buffer_puts(out, "</title><style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
        "margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}th,td{padding:.2rem .8rem;text-align:right;"
        "border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}"
        "svg{width:100%;height:auto}rect{fill:#3a7bd5}line{stroke:#888}text{fill:currentColor;font-size:11px}"
        "polyline{fill:none;stroke:#3a7bd5;stroke-width:2}</style></head><body>\n<h1>What was lost</h1><p>");
    escape(out, r->path_b);
    sl_buffer_puts(out, " compared with ");
    escape(out, r->path_a);
    sl_buffer_puts(out, " on ");
    escape(out, r->text_name);
    sl_buffer_printf(out, ": %lld positions in %d chunks of %d tokens, %s arithmetic.</p>\n", (long long)r->comparison->n,
                     r->comparison->a.n_chunks, r->n_ctx, r->exact ? "exact (32-bit activations)" : "fast (8-bit activations)");
}

static void summary(sl_buffer *out, const sl_report *r) {
    const sl_comparison *c = r->comparison;
    const sl_perplexity *sides[2] = {&c->a, &c->b};
    sl_buffer_puts(out, "<table><caption>Summary</caption><tr><th scope=\"col\"></th><th scope=\"col\">A</th><th scope=\"col\">B"
                        "</th></tr><tr><th scope=\"row\">Size, MB</th>");
    sl_buffer_printf(out, "<td>%.1f</td><td>%.1f</td></tr><tr><th scope=\"row\">Perplexity</th>", (double)r->bytes_a / 1e6,
                     (double)r->bytes_b / 1e6);
    for (int i = 0; i < 2; i++)
        sl_buffer_printf(out, "<td>%.4f &plusmn; %.4f</td>", exp(sides[i]->mean_nll), exp(sides[i]->mean_nll) * sides[i]->nll_error);
    sl_buffer_puts(out, "</tr><tr><th scope=\"row\">Tokens a second</th>");
    for (int i = 0; i < 2; i++)
        sl_buffer_printf(out, "<td>%.0f</td>", sides[i]->seconds > 0 ? (double)sides[i]->n_read / sides[i]->seconds : 0);
    sl_buffer_printf(out, "</tr></table>\n<table><caption>KL divergence of B from A, nats a token</caption>"
                     "<tr><th scope=\"row\">Mean</th><td>%.6f &plusmn; %.6f</td></tr>", c->mean_kld, c->kld_error);
    static const struct { const char *name; double share; } rows[] = {
        {"Median", 0.5}, {"90 %", 0.9}, {"99 %", 0.99}, {"99.9 %", 0.999}, {"Largest", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        sl_buffer_printf(out, "<tr><th scope=\"row\">%s</th><td>%.6f</td></tr>", rows[i].name,
                         sl_comparison_quantile(c, rows[i].share));
    sl_buffer_printf(out, "<tr><th scope=\"row\">Same likeliest token</th><td>%.2f &plusmn; %.2f %%</td></tr></table>\n",
                     100 * c->top1, 100 * c->top1_error);
}

static void axis(sl_buffer *out, const char *title, const char *left, const char *right) {
    sl_buffer_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\"><title>%s</title><line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>"
                     "<text x=\"%d\" y=\"%d\">%s</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", WIDTH, HEIGHT, title,
                     LEFT, HEIGHT - BOTTOM, WIDTH, HEIGHT - BOTTOM, LEFT, HEIGHT - 8, left, WIDTH, HEIGHT - 8, right);
}

/* Bins of a third of a power of ten each, from 1e-9 up to 1e3. */
static void histogram(sl_buffer *out, const sl_comparison *c) {
    int64_t bins[BINS] = {0}, most = 1;
    for (int64_t i = 0; i < c->n; i++) {
        double at = c->kld[i] > 1e-9f ? (log10((double)c->kld[i]) + 9) * 3 : 0;
        int bin = at < 0 ? 0 : at >= BINS ? BINS - 1 : (int)at;
        if (++bins[bin] > most) most = bins[bin];
    }
    sl_buffer_puts(out, "<h2>How the divergence is distributed</h2>");
    axis(out, "Histogram of the KL divergence of each position, on a logarithmic scale", "1e-9 nats or less", "1e3");
    double step = (double)(WIDTH - LEFT) / BINS, room = HEIGHT - BOTTOM - 8;
    for (int b = 0; b < BINS; b++) {
        double h = room * (double)bins[b] / (double)most;
        sl_buffer_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>1e%.1f: %lld</title></rect>",
                         LEFT + b * step, HEIGHT - BOTTOM - h, step - 1, h, b / 3.0 - 9, (long long)bins[b]);
    }
    sl_buffer_printf(out, "<text x=\"0\" y=\"16\">%lld</text></svg>\n", (long long)most);
}

static void quantiles(sl_buffer *out, const sl_comparison *c) {
    double top = sl_comparison_quantile(c, 0.999);
    if (!(top > 0)) top = 1;
    sl_buffer_puts(out, "<h2>Divergence by percentile</h2>");
    axis(out, "KL divergence by percentile of the positions, up to 99.9", "0 %", "99.9 %");
    sl_buffer_puts(out, "<polyline points=\"");
    for (int i = 0; i <= 100; i++)
        sl_buffer_printf(out, "%.1f,%.1f ", LEFT + (WIDTH - LEFT) * i / 100.0,
                         HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 8) * sl_comparison_quantile(c, 0.999 * i / 100) / top);
    sl_buffer_printf(out, "\"/><text x=\"0\" y=\"16\">%.3g</text></svg>\n", top);
}

static bool has_error(const sl_report_tensor *t) { return t->is_measured && t->error.rmse > 0 && isfinite(t->error.relative); }

static void tensors(sl_buffer *out, const sl_report *r) {
    double most = 0;
    size_t n = 0;
    for (size_t i = 0; i < r->n_tensors; i++) {
        if (!has_error(&r->tensors[i])) continue;
        most = r->tensors[i].error.relative > most ? r->tensors[i].error.relative : most;
        n++;
    }
    sl_buffer_puts(out, "<h2>Error of the tensors</h2>");
    if (!n) {
        sl_buffer_puts(out, "<p>No tensor of the same name and shape differs.</p>");
        return;
    }
    axis(out, "Relative error of each tensor, in the order of the file", "first tensor", "last");
    double step = (double)(WIDTH - LEFT) / (double)n;
    size_t at = 0;
    for (size_t i = 0; i < r->n_tensors; i++) {
        const sl_report_tensor *t = &r->tensors[i];
        if (!has_error(t)) continue;
        double h = (HEIGHT - BOTTOM - 8) * t->error.relative / most;
        sl_buffer_printf(out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"><title>", LEFT + (double)at++ * step,
                         HEIGHT - BOTTOM - h, step > 2 ? step - 1 : step, h);
        escape(out, t->a->name);
        sl_buffer_printf(out, ": %.4f</title></rect>", t->error.relative);
    }
    sl_buffer_printf(out, "<text x=\"0\" y=\"16\">%.3f</text></svg>\n<table><caption>Tensors that differ</caption><tr><th scope=\"col\">"
                     "Tensor</th><th scope=\"col\">A</th><th scope=\"col\">B</th><th scope=\"col\">Relative error</th>"
                     "<th scope=\"col\">Largest</th><th scope=\"col\">Cosine</th></tr>", most);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const sl_report_tensor *t = &r->tensors[i];
        if (!has_error(t)) continue;
        sl_buffer_puts(out, "<tr><th scope=\"row\">");
        escape(out, t->a->name);
        sl_buffer_printf(out, "</th><td>%s</td><td>%s</td><td>%.5f</td><td>%.4g</td><td>%.6f</td></tr>\n",
                         sl_type_get(t->a->type)->name, sl_type_get(t->b->type)->name, t->error.relative, t->error.largest,
                         t->error.cosine);
    }
    sl_buffer_puts(out, "</table>");
}

void sl_report_html(const sl_report *r, sl_buffer *out) {
    head(out, r);
    summary(out, r);
    histogram(out, r->comparison);
    quantiles(out, r->comparison);
    tensors(out, r);
    sl_buffer_puts(out, "</body></html>\n");
}
