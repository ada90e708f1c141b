/* Attention: q, k and v of a chunk are brought into place (head norms, rotary embedding, cache), then every query of
 * every head looks at the keys it may see. A query's result depends on its position only, never on which other tokens
 * are computed with it. */
#include "model/families.h"
#include "model/forward.h"
#include "model/rope.h"

#include <limits.h>
#include <math.h>

sl_places sl_places_of(const sl_config *c) {
    size_t d = (size_t)c->head_dim, heads = (size_t)c->n_heads, kv = (size_t)c->n_kv_heads, r = heads / kv;
    sl_places p = {.row = (heads + 2 * kv) * d, .q_head = d, .heads_a_group = (int)r};
    if (c->family->qkv == SL_FUSED_GROUPED) {
        p.q_group = p.kv_group = (r + 2) * d;
        p.k = r * d;
        p.v = (r + 1) * d;
    } else {
        p.q_group = r * d;
        p.kv_group = d;
        p.k = heads * d;
        p.v = (heads + kv) * d;
    }
    return p;
}

static float *q_of(const sl_places *p, float *row, int h) { return row + sl_place_of_q(p, h); }

float sl_query_temperature(const sl_config *c, int position) {
    return 1 + c->temperature_scale * logf(1 + floorf((float)position / (float)c->temperature_ctx));
}

/* The queries of key/value head g at row t into place, in the row itself, and its key and value into the cache. */
static void rotate_row(const sl_run *run, const sl_segment *segment, int t, int g) {
    const sl_config *c = run->config;
    const sl_block *block = run->block;
    sl_kv *kv = segment->kv;
    sl_places p = sl_places_of(c);
    int half = c->rope_dim / 2, d = c->head_dim, position = sl_position(segment, t), layer = run->op->layer;
    int page = position / SL_PAGE, slot = position % SL_PAGE;
    float *row = run->work->qkv + (size_t)t * p.row;
    float *k = row + p.k + (size_t)g * p.kv_group, *v = row + p.v + (size_t)g * p.kv_group;
    const float *angles = run->layer->rope
                              ? run->work->angles[run->layer->local_rope] + (size_t)t * (size_t)c->rope_dim : NULL;
    for (int h = g * p.heads_a_group; h < (g + 1) * p.heads_a_group; h++) {
        float *q = q_of(&p, row, h);
        if (block->q_norm) sl_rms_norm(q, q, block->q_norm, d, c->norm_eps);
        if (angles) sl_rope_rotate(q, angles, half, c->rope_interleaved);
        if (c->temperature_scale > 0) sl_scale(q, sl_query_temperature(c, position), d);
    }
    if (block->k_norm) sl_rms_norm(k, k, block->k_norm, d, c->norm_eps);
    if (angles) sl_rope_rotate(k, angles, half, c->rope_interleaved);
    sl_kv_store_key(kv->pool->type, sl_kv_keys(kv, layer, g, page), slot, k, d);
    sl_kv_store_value(kv->pool->type, sl_kv_values(kv, layer, g, page), slot, v, d);
}

/* Item: the rows of one page and a key/value head. Keys lie across, so two threads in one page would write the same
 * lines of memory by turns. */
static void rotate_piece(void *user, int64_t item, int thread) {
    const sl_run *run = user;
    int heads = run->config->n_kv_heads;
    const sl_tile *piece = &run->work->pieces[item / heads];
    (void)thread;
    for (int t = piece->first; t < piece->first + piece->n; t++)
        rotate_row(run, &run->work->segments[piece->segment], t, (int)(item % heads));
}

/* ---------------------------------------------------------------- the keys a query sees */

/* Bits [lo, hi) of a page, both cut to 0 .. SL_PAGE. */
static uint64_t bits(int lo, int hi) {
    if (lo < 0) lo = 0;
    if (hi > SL_PAGE) hi = SL_PAGE;
    if (lo >= hi) return 0;
    return (~(uint64_t)0 >> (SL_PAGE - (hi - lo))) << lo;
}

/* Phi-3-small: a query sees the last `local` blocks, and every stride-th block of the past, shifted from head to
 * head. */
static uint64_t visible_blocks(const sl_config *c, int head, int position, int page) {
    int64_t step = c->sparse_homo ? 0 : c->sparse_stride / c->n_heads > 1 ? c->sparse_stride / c->n_heads : 1;
    int64_t shift = head * step + 1;
    int start = page * SL_PAGE, end = position + 1 < start + SL_PAGE ? position + 1 : start + SL_PAGE;
    int own = position / c->sparse_block;
    uint64_t visible = 0;
    for (int b = start / c->sparse_block; b * c->sparse_block < end; b++)
        if (own - b < c->sparse_local || (b + shift) % c->sparse_stride == 0)
            visible |= bits(b * c->sparse_block - start, (b + 1) * c->sparse_block - start);
    return visible & bits(0, end - start);
}

uint64_t sl_visible(const sl_config *config, const sl_layer_config *layer, int head, int position, int page) {
    if (layer->block_sparse) return visible_blocks(config, head, position, page);
    int window = layer->window, start = page * SL_PAGE;
    int from = window && position >= window ? position - window + 1 : 0;
    return bits(from - start, position + 1 - start);
}

/* ---------------------------------------------------------------- tiles of queries
 *
 * A tile is some queries of one timeline that look at the same key/value head, token by token and head by head. */

size_t sl_attend_scratch(const sl_config *c) {
    size_t states = 2 * SL_TILE_ROWS * (size_t)sl_attend_width(c->head_dim);
    return states + 2 * SL_PAGE * (size_t)sl_kv_width(c->head_dim);
}

void sl_run_tiles(sl_run *run) {
    int group = run->config->n_heads / run->config->n_kv_heads;
    run->n_tiles = run->n_pieces = 0;
    for (int i = 0; i < run->n_segments; i++) {
        const sl_segment *s = &run->work->segments[i];
        int rows = s->n * group;
        for (int first = 0; first < rows; first += SL_TILE_ROWS)
            run->work->tiles[run->n_tiles++] =
                (sl_tile){i, first, rows - first < SL_TILE_ROWS ? rows - first : SL_TILE_ROWS};
        for (int first = s->row, n; first < s->row + s->n; first += n) {
            int left = s->row + s->n - first, room = SL_PAGE - sl_position(s, first) % SL_PAGE;
            n = left < room ? left : room;
            run->work->pieces[run->n_pieces++] = (sl_tile){i, first, n};
        }
    }
}

/* A tile on its way through the pages. */
typedef struct tile_run {
    const sl_run *run;
    const sl_segment *segment;
    const sl_tile *tile;
    sl_places places;
    int g;
    sl_attend_task task;
} tile_run;

static tile_run tile_run_of(const sl_run *run, int tile, int g, int thread) {
    const sl_config *c = run->config;
    sl_work *work = run->work;
    tile_run t = {.run = run, .tile = &work->tiles[tile], .places = sl_places_of(c), .g = g};
    t.segment = &work->segments[t.tile->segment];
    float *scratch = work->attend + (size_t)thread * sl_attend_scratch(c);
    t.task = (sl_attend_task){.type = t.segment->kv->pool->type, .head_dim = c->head_dim,
                              .softcap = c->attention_softcap,
                              .scratch = scratch + 2 * SL_TILE_ROWS * (size_t)sl_attend_width(c->head_dim)};
    t.task.scale = c->scale_by_layer ? c->attention_scale / (float)(run->op->layer + 1) : c->attention_scale;
    return t;
}

static int token_of(const tile_run *t, int row) { return (t->tile->first + row) / t->places.heads_a_group; }
static int head_of(const tile_run *t, int row) {
    return t->g * t->places.heads_a_group + (t->tile->first + row) % t->places.heads_a_group;
}
static int position_of(const tile_run *t, int row) { return t->segment->first + token_of(t, row); }
static int last_page(const tile_run *t) { return position_of(t, t->tile->n - 1) / SL_PAGE; }
static int last_span(const tile_run *t) { return position_of(t, t->tile->n - 1) / SL_SPAN; }

/* No row sees a page before this one. */
static int first_page(const tile_run *t) {
    int window = t->run->layer->window, first = position_of(t, 0);
    return window && first >= window ? (first - window + 1) / SL_PAGE : 0;
}
static int first_span(const tile_run *t) { return first_page(t) * SL_PAGE / SL_SPAN; }

/* Adds the pages of one span to the rows' states, `stride` floats apart, which begin empty. */
static void attend_span(tile_run *t, int span, float *states, size_t stride) {
    const sl_run *run = t->run;
    const sl_kv *kv = t->segment->kv;
    int pages = SL_SPAN / SL_PAGE, page = first_page(t), end = last_page(t) + 1;
    if (page < span * pages) page = span * pages;
    if (end > (span + 1) * pages) end = (span + 1) * pages;
    for (int r = 0; r < t->tile->n; r++) sl_attend_clear(states + (size_t)r * stride, run->config->head_dim);
    for (; page < end; page++) {
        sl_attend_row rows[SL_TILE_ROWS];
        int n = 0;
        for (int r = 0; r < t->tile->n; r++) {
            uint64_t visible = sl_visible(run->config, run->layer, head_of(t, r), position_of(t, r), page);
            if (!visible) continue;
            float *row = run->work->qkv + (size_t)(t->segment->row + token_of(t, r)) * t->places.row;
            rows[n++] = (sl_attend_row){q_of(&t->places, row, head_of(t, r)), states + (size_t)r * stride, visible};
        }
        if (!n) continue;
        t->task.keys = sl_kv_keys(kv, run->op->layer, t->g, page);
        t->task.values = sl_kv_values(kv, run->op->layer, t->g, page);
        t->task.next = page + 1 < end ? sl_kv_keys(kv, run->op->layer, t->g, page + 1) : NULL;
        sl_attend_page(&t->task, rows, n);
    }
}

/* y of row r of a tile from its state. */
static void finish_row(const tile_run *t, int r, const float *state) {
    const sl_config *c = t->run->config;
    size_t d = (size_t)c->head_dim, token = (size_t)(t->segment->row + token_of(t, r));
    sl_attend_finish(state, c->head_dim, t->run->work->y + (token * (size_t)c->n_heads + (size_t)head_of(t, r)) * d);
}

/* Item: a tile and a key/value head, all spans. */
static void attend_tile(void *user, int64_t item, int thread) {
    const sl_run *run = user;
    const sl_config *c = run->config;
    tile_run t = tile_run_of(run, (int)(item / c->n_kv_heads), (int)(item % c->n_kv_heads), thread);
    size_t width = (size_t)sl_attend_width(c->head_dim);
    float *states = run->work->attend + (size_t)thread * sl_attend_scratch(c), *later = states + SL_TILE_ROWS * width;
    int first = first_span(&t);
    if (run->rotates_late)
        for (int i = 0; i < t.segment->n; i++) rotate_row(run, t.segment, t.segment->row + i, t.g);
    for (int span = first; span <= last_span(&t); span++) {
        attend_span(&t, span, span > first ? later : states, width);
        for (int r = 0; span > first && r < t.tile->n; r++)
            sl_attend_merge(states + (size_t)r * width, later + (size_t)r * width, c->head_dim);
    }
    for (int r = 0; r < t.tile->n; r++) finish_row(&t, r, states + (size_t)r * width);
}

/* ---------------------------------------------------------------- few queries, long timelines
 *
 * Too few tiles for the threads: their spans are items too, some spans at a time, and then merged in order. */

typedef struct split {
    const sl_run *run;
    int rows;         /* of the largest tile */
    int slots;        /* states a row: what is merged so far, or the first span; then spans */
    int from, end;    /* spans of this round */
    int first_slot;   /* of the first of them */
} split;

static float *split_states(const split *s, int64_t tile_and_head, int slot) {
    size_t index = ((size_t)tile_and_head * (size_t)s->slots + (size_t)slot) * (size_t)s->rows;
    return s->run->work->states + index * (size_t)sl_attend_width(s->run->config->head_dim);
}

static void attend_part(void *user, int64_t item, int thread) {
    const split *s = user;
    int n_spans = s->end - s->from, span = s->from + (int)(item % n_spans), heads = s->run->config->n_kv_heads;
    int64_t which = item / n_spans;
    tile_run t = tile_run_of(s->run, (int)(which / heads), (int)(which % heads), thread);
    attend_span(&t, span, split_states(s, which, s->first_slot + span - s->from),
                (size_t)sl_attend_width(s->run->config->head_dim));
}

/* Merges what a round has added to the first slots; the last round's results go to y. */
static void join_round(const split *s, int64_t n_items, bool is_last) {
    const sl_config *c = s->run->config;
    size_t width = (size_t)sl_attend_width(c->head_dim);
    for (int64_t which = 0; which < n_items; which++) {
        tile_run t = tile_run_of(s->run, (int)(which / c->n_kv_heads), (int)(which % c->n_kv_heads), 0);
        float *states = split_states(s, which, 0);
        for (int r = 0; r < t.tile->n; r++) {
            for (int slot = 1; slot < s->first_slot + s->end - s->from; slot++)
                sl_attend_merge(states + (size_t)r * width, split_states(s, which, slot) + (size_t)r * width,
                                c->head_dim);
            if (is_last) finish_row(&t, r, states + (size_t)r * width);
        }
    }
}

/* Whether the chunk is one to split, and how: *from and *end are the spans that any tile sees. */
static bool must_split(const sl_run *run, split *s, int *from, int *end) {
    const sl_config *c = run->config;
    int items = run->n_tiles * c->n_kv_heads, threads = run->work->n_threads;
    *s = (split){.run = run};
    if (threads == 1 || items >= 4 * threads) return false;
    *from = INT_MAX;
    *end = 0;
    for (int i = 0; i < run->n_tiles; i++) {
        tile_run t = tile_run_of(run, i, 0, 0);
        if (t.tile->n > s->rows) s->rows = t.tile->n;
        if (first_span(&t) < *from) *from = first_span(&t);
        if (last_span(&t) + 1 > *end) *end = last_span(&t) + 1;
    }
    s->slots = SL_SPLIT_SPANS * c->n_heads / (items * s->rows);
    return *end - *from > 1 && s->slots > 1;
}

/* Where a timeline's queries of a key/value head are one tile, and nothing else reads the keys that they bring, that
 * tile puts them into place itself: one synchronisation less. */
void sl_run_rotate(sl_run *run) {
    split s;
    int from, end;
    run->rotates_late = run->n_tiles == run->n_segments && !must_split(run, &s, &from, &end);
    if (!run->rotates_late)
        sl_pool_run(run->model->pool, (int64_t)run->n_pieces * run->config->n_kv_heads, rotate_piece, run);
}

void sl_run_attend(sl_run *run) {
    split s;
    int from, end;
    int64_t items = (int64_t)run->n_tiles * run->config->n_kv_heads;
    if (!must_split(run, &s, &from, &end)) {
        sl_pool_run(run->model->pool, items, attend_tile, run);
        return;
    }
    for (s.from = from; s.from < end; s.from = s.end, s.first_slot = 1) {
        int room = s.slots - s.first_slot;
        s.end = end - s.from < room ? end : s.from + room;
        sl_pool_run(run->model->pool, items * (s.end - s.from), attend_part, &s);
        join_round(&s, items, s.end == end);
    }
}
