#include "infer/engine.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "infer/generate.h"
#include "model/plan.h"
#include "model/rope.h"
#include "model/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WORTH_WAITING = 16 }; /* tokens of a prompt that another is about to compute */
/* A want of SL_TURN_ROWS is never cut, so a step has room for it. */
enum { SEQUENCES_MOST = 1024, ROWS_LEAST = 16, ROWS_MOST = 8192, DEFAULT_SEQUENCES = 8, DEFAULT_ROWS = 256 };
_Static_assert((int)ROWS_LEAST >= (int)SL_TURN_ROWS, "the widest want fits a step");
_Static_assert((int)SL_TURN_ROWS - 1 == (int)SL_PLAN_SPARE_ROWS, "a plan counts the rows of logits");

/* ---------------------------------------------------------------- life */

static int pages_of(int n) { return n / SL_PAGE + (n % SL_PAGE != 0); }

static sllm_status check_range(const char *name, int value, int least, int most, sllm_error *error) {
    if (value >= least && value <= most) return SLLM_OK;
    return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s is %d: it must lie in [%d, %d], or be 0 for the default", name,
                   value, least, most);
}

sllm_status sl_engine_check(const sl_model *model, sl_engine_params *p, uint64_t *page_bytes, int *n_pages,
                            sllm_error *error) {
    int trained = model->config.n_ctx_train;
    sl_kv_type type;
    if (!model->weights)
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "%s: loaded without weights (vocab_only), so it cannot compute a batch", model->path);
    if (p->n_ctx < 0 || p->n_ctx > trained)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "n_ctx is %d: %s was trained for contexts of 1 to %d tokens (0: %d)",
                       p->n_ctx, model->path, trained, trained < 4096 ? trained : 4096);
    if (p->n_ctx == 0) p->n_ctx = trained < 4096 ? trained : 4096;
    if (p->n_sequences == 0) p->n_sequences = DEFAULT_SEQUENCES;
    if (p->n_rows == 0) p->n_rows = DEFAULT_ROWS;
    sllm_status status = check_range("n_sequences", p->n_sequences, 1, SEQUENCES_MOST, error);
    if (!status) status = check_range("n_rows", p->n_rows, ROWS_LEAST, ROWS_MOST, error);
    if (!status)
        status = sl_kv_type_choose(&model->config, p->kv_type, model->exact, model->weights->only_f32, &type, error);
    if (status) return status;
    *n_pages = pages_of(p->n_ctx);
    *page_bytes = sl_kv_pool_bytes(&model->config, type, 2) - sl_kv_pool_bytes(&model->config, type, 1);
    return SLLM_OK;
}

static sllm_status allocate(sl_engine *e, sllm_error *error) {
    size_t n = (size_t)e->n_sequences, bytes;
    e->n_logits = e->n_sequences + SL_TURN_ROWS - 1; /* every answer's next token, and one that wants several rows */
    if (!sl_mul_size((size_t)e->n_logits * sizeof(float), (size_t)e->model->config.n_vocab, &bytes))
        return sl_fail_memory(error, "a batch's logits", SIZE_MAX);
    e->logits = malloc(bytes);
    e->parts = calloc(n, sizeof *e->parts);
    e->part_of = calloc(n, sizeof *e->part_of);
    e->before = calloc(n, sizeof *e->before);
    e->running = calloc(n, sizeof *e->running);
    if (!e->logits || !e->parts || !e->part_of || !e->before || !e->running)
        return sl_fail_memory(error, "making a batch", bytes);
    pthread_condattr_t attributes; /* waiting is for a length of time, whatever the wall clock does */
    if (pthread_condattr_init(&attributes)) return sl_fail_memory(error, "making a batch", 0);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    bool made = !pthread_cond_init(&e->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (made && pthread_mutex_init(&e->lock, NULL)) {
        pthread_cond_destroy(&e->changed);
        made = false;
    }
    e->lock_made = made;
    return made ? SLLM_OK : sl_fail_memory(error, "making a batch", 0);
}

sllm_status sl_engine_new(const sl_model *model, const sl_engine_params *p, sl_engine **engine, sllm_error *error) {
    *engine = NULL;
    sl_kv_type type;
    sllm_status status =
        sl_kv_type_choose(&model->config, p->kv_type, model->exact, model->weights->only_f32, &type, error);
    if (status) return status;
    sl_engine *e = calloc(1, sizeof *e);
    if (!e) return sl_fail_memory(error, "making a batch", sizeof *e);
    e->model = model;
    e->n_ctx = p->n_ctx, e->n_sequences = p->n_sequences, e->n_rows = p->n_rows;
    e->caches = !p->no_prefix_cache;
    e->cancel = p->cancel;
    int64_t pages = (int64_t)pages_of(p->n_ctx) * p->n_sequences;
    int least = pages_of(p->n_ctx), most = (int)(pages < INT32_MAX ? pages : INT32_MAX);
    int n_pages = p->n_pages > 0 ? p->n_pages : most;
    if (n_pages < least) n_pages = least; /* or one request could wait for ever */
    status = allocate(e, error);
    if (!status) status = sl_kv_pool_new(model, type, n_pages, &e->pool, error);
    if (!status) status = sl_work_new(model, &e->work, error);
    if (status) {
        sl_engine_free(e);
        return status;
    }
    e->stats.n_pages = (size_t)n_pages;
    *engine = e;
    return SLLM_OK;
}

/* ---------------------------------------------------------------- the end of a request */

static void free_request(sl_request *r) {
    sl_speculator_free(&r->speculator);
    sl_turn_free(&r->turn);
    sl_kv_free(r->kv);
    free(r->ids);
    free(r);
}

/* Keeps a timeline that is over for prompts to come. */
static void keep_timeline(sl_engine *e, sl_request *r) {
    if (!r->kv || !r->shares || !e->caches) return;
    if (r->turn.phase == SL_TURN_ANSWER) sl_kv_truncate(r->kv, (int)r->turn.keep);
    if (sl_kv_length(r->kv) == 0) return;
    sl_prefix_add(&e->prefixes, r->kv);
    r->kv = NULL;
}

/* Ends a request that is in no list any more: its receiver hears of it once. *failure may be the request's own. */
static void end_request(sl_engine *e, sl_request *r, sllm_status status, const sllm_error *failure) {
    sllm_error error = *failure;
    if (!status) status = sl_turn_finish(&r->turn, &error);
    if (!status) keep_timeline(e, r);
    else sl_generation_free(&r->out);
    sllm_generation out = r->out;
    sllm_batch_done done = r->done;
    void *user = r->params.user;
    pthread_mutex_lock(&e->lock);
    if (status) e->stats.failed++;
    else e->stats.finished++;
    e->stats.completion_tokens += out.completion_tokens;
    pthread_mutex_unlock(&e->lock);
    free_request(r); /* its pages may serve the next before the receiver, who may add one, is told */
    done(user, status, status ? NULL : &out, status ? &error : NULL);
}

static void end_running(sl_engine *e, int at, sllm_status status, const sllm_error *failure) {
    sl_request *r = e->running[at];
    pthread_mutex_lock(&e->lock);
    memmove(&e->running[at], &e->running[at + 1], (size_t)(e->n_running - at - 1) * sizeof *e->running);
    e->n_running--;
    if (at < e->first) e->first--;
    pthread_mutex_unlock(&e->lock);
    end_request(e, r, status, failure);
}

static sl_request *take_waiting(sl_engine *e) {
    pthread_mutex_lock(&e->lock);
    sl_request *r = e->head;
    if (r) {
        e->head = r->next;
        if (!e->head) e->tail = NULL;
        e->n_waiting--;
    }
    pthread_mutex_unlock(&e->lock);
    return r;
}

void sl_engine_free(sl_engine *e) {
    if (!e) return;
    sllm_error error = {0};
    sl_fail(&error, SLLM_ERROR_CANCELLED, "the batch was freed before this answer was made");
    while (e->n_running > 0) end_running(e, e->n_running - 1, SLLM_ERROR_CANCELLED, &error);
    for (sl_request *r; e->lock_made && (r = take_waiting(e));) end_request(e, r, SLLM_ERROR_CANCELLED, &error);
    sl_prefix_clear(&e->prefixes);
    sl_work_free(e->work);
    sl_kv_pool_free(e->pool);
    free(e->logits);
    free(e->parts);
    free(e->part_of);
    free(e->before);
    free(e->running);
    if (e->lock_made) {
        pthread_mutex_destroy(&e->lock);
        pthread_cond_destroy(&e->changed);
    }
    free(e);
}

/* ---------------------------------------------------------------- from any thread */

sllm_status sl_engine_add(sl_engine *e, const int32_t *ids, size_t n, const sllm_generate_params *params,
                          sllm_batch_done done, uint64_t *id, sllm_error *error) {
    sllm_status status = sl_generate_check(params, e->model->config.n_vocab, error);
    if (!status && params->speculation == SLLM_SPECULATION_DRAFT)
        status = sl_fail(error, SLLM_ERROR_UNSUPPORTED, "a draft model serves one session, not a batch: leave it out");
    for (size_t i = 0; i < n && !status; i++)
        if (ids[i] < 0 || ids[i] >= e->model->config.n_vocab)
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "token %zu is %d: the vocabulary is [0, %d)", i, ids[i],
                             e->model->config.n_vocab);
    if (status) return status;
    size_t bytes;
    sl_request *r = calloc(1, sizeof *r);
    if (r && sl_mul_size(n, sizeof *ids, &bytes)) r->ids = malloc(bytes);
    if (!r || !r->ids) {
        free(r);
        return sl_fail_memory(error, "adding to a batch", n * sizeof *ids);
    }
    memcpy(r->ids, ids, bytes);
    r->n = n;
    r->params = *params;
    r->done = done;
    r->out.choice = -1;
    pthread_mutex_lock(&e->lock);
    r->id = ++e->last_id;
    if (id) *id = r->id;
    if (e->tail) e->tail->next = r;
    else e->head = r;
    e->tail = r;
    e->n_waiting++;
    e->woken = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return SLLM_OK;
}

bool sl_engine_cancel(sl_engine *e, uint64_t id) {
    sl_request *found = NULL;
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < e->n_running && !found; i++)
        if (e->running[i]->id == id) found = e->running[i];
    for (sl_request *r = e->head; r && !found; r = r->next)
        if (r->id == id) found = r;
    if (found) {
        atomic_store(&found->cancelled, true);
        e->woken = true;
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->lock);
    return found != NULL;
}

void sl_engine_stats(sl_engine *e, sllm_batch_stats *stats) {
    pthread_mutex_lock(&e->lock);
    *stats = e->stats;
    stats->running = (size_t)e->n_running;
    stats->waiting = (size_t)e->n_waiting;
    pthread_mutex_unlock(&e->lock);
}

void sl_engine_wait(sl_engine *e, double seconds) {
    struct timespec until;
    if (!(seconds > 0)) seconds = 0;
    if (seconds > 1e9) seconds = 1e9; /* a lifetime */
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    pthread_mutex_lock(&e->lock);
    while (!e->woken && e->n_waiting == 0 && e->n_running == 0)
        if (pthread_cond_timedwait(&e->changed, &e->lock, &until) == ETIMEDOUT) break;
    pthread_mutex_unlock(&e->lock);
}

/* ---------------------------------------------------------------- cancelling */

static bool is_cancelled(const sl_request *r) {
    return atomic_load(&r->cancelled) || (r->params.is_cancelled && r->params.is_cancelled(r->params.user));
}

static sllm_status cancelled_early(sllm_error *error) {
    return sl_fail(error, SLLM_ERROR_CANCELLED, "cancelled before it was begun");
}

/* Takes those out of the queue that sl_engine_cancel named; the others keep their order. The callbacks of those waiting
 * are asked when their turn comes: under the lock they could not add. */
static sl_request *take_cancelled(sl_engine *e) {
    sl_request *taken = NULL, *before = NULL;
    pthread_mutex_lock(&e->lock);
    for (sl_request *r = e->head, *next; r; r = next) {
        next = r->next;
        if (!atomic_load(&r->cancelled)) {
            before = r;
            continue;
        }
        if (before) before->next = next;
        else e->head = next;
        if (e->tail == r) e->tail = before;
        e->n_waiting--;
        r->next = taken;
        taken = r;
    }
    e->woken = false;
    pthread_mutex_unlock(&e->lock);
    return taken;
}

static void end_cancelled(sl_engine *e) {
    for (int i = e->n_running - 1; i >= 0; i--) {
        if (!is_cancelled(e->running[i])) continue;
        sl_turn_cancel(&e->running[i]->turn);
        end_running(e, i, SLLM_OK, &(sllm_error){0});
    }
    for (sl_request *r = take_cancelled(e), *next; r; r = next) {
        next = r->next;
        sllm_status status = cancelled_early(&r->error);
        end_request(e, r, status, &r->error);
    }
}

/* ---------------------------------------------------------------- letting in */

/* Pages that those running may still take. */
static int promised(const sl_engine *e) {
    int pages = 0;
    for (int i = 0; i < e->n_running; i++) {
        const sl_request *r = e->running[i];
        pages += sl_kv_pages_needed(r->kv, (int)sl_turn_longest(&r->turn) - sl_kv_length(r->kv));
    }
    return pages;
}

static int spare(const sl_engine *e) { return sl_kv_pool_unused(e->pool) - promised(e); }

/* Tokens of r's prompt that may come from pages of another timeline: the last one is computed for its logits. */
static size_t sharable(const sl_request *r) { return r->shares ? r->turn.n_prompt - 1 : 0; }

/* The timeline to begin r from, *length tokens of it. Of one that is still running only what it will not write again
 * may be shared: its prompt but for the last token. *coming: a running one will have so much more of the same before
 * long that it is worth waiting for. */
static const sl_kv *find_prefix(sl_engine *e, const sl_request *r, size_t *length, bool *coming) {
    const int32_t *ids = r->turn.history.data;
    const sl_kv *best = sl_prefix_find(&e->prefixes, ids, sharable(r), length);
    size_t most = 0;
    for (int i = 0; i < e->n_running; i++) {
        const sl_request *other = e->running[i];
        size_t same = sl_prefix_common(other->turn.history.data, sharable(other), ids, sharable(r));
        size_t there = (size_t)sl_kv_length(other->kv);
        if (same > most && other->turn.phase == SL_TURN_PROMPT) most = same;
        if (there > same) there = same;
        if (there > *length) *length = there, best = other->kv;
    }
    *coming = most >= *length + WORTH_WAITING;
    return best;
}

/* Gives r a timeline that begins with what others have computed. *fits: false when there are too few pages for now. */
static sllm_status give_timeline(sl_engine *e, sl_request *r, const sl_kv *from, size_t length, bool *fits,
                                 sllm_error *error) {
    sllm_status status = sl_kv_new(e->pool, e->n_ctx, &r->kv, error);
    if (!status && length % SL_PAGE && spare(e) < 1) length -= length % SL_PAGE; /* the copy would need a page */
    if (!status && length > 0) status = sl_kv_fork(from, (int)length, r->kv, error);
    if (status) return status;
    int needed = sl_kv_pages_needed(r->kv, (int)(sl_turn_longest(&r->turn) - length));
    /* Nothing is thrown out in vain. With nobody running it never is: all the pages together are enough. */
    bool may_fit = e->n_running == 0 || spare(e) + sl_prefix_yield(&e->prefixes) >= needed;
    while ((*fits = spare(e) >= needed) == false && may_fit && sl_prefix_evict(&e->prefixes)) continue;
    if (*fits) {
        r->out.reused_tokens = length;
        return SLLM_OK;
    }
    sl_kv_free(r->kv);
    r->kv = NULL;
    return SLLM_OK;
}

static sllm_status begin(sl_engine *e, sl_request *r, sllm_error *error) {
    sllm_status status =
        sl_turn_begin(&r->turn, e->model, (size_t)e->n_ctx, r->ids, r->n, &r->params, &r->out, error);
    if (!status) status = sl_speculator_init(&r->speculator, &r->params, error);
    if (status) return status;
    r->begun = true;
    /* One that may be shifted, or whose keys turn otherwise when it is longer, writes its first pages again. */
    size_t longest = sl_turn_longest(&r->turn), answer = (size_t)r->params.max_new_tokens;
    bool shifts = r->params.overflow == SLLM_OVERFLOW_SHIFT && r->turn.n_prompt + answer > (size_t)e->n_ctx;
    bool turns = sl_rope_regime(&e->model->config, (int64_t)longest) != sl_rope_regime(&e->model->config, 1);
    r->shares = e->caches && !shifts && !turns;
    return SLLM_OK;
}

/* Lets the first one in the queue in, or ends it. False: it has to wait, and all behind it. */
static bool let_in(sl_engine *e) {
    bool fits = true, coming = false;
    size_t length = 0;
    pthread_mutex_lock(&e->lock);
    sl_request *r = e->head; /* stays the first while only this thread takes from the queue */
    pthread_mutex_unlock(&e->lock);
    if (!r || e->n_running == e->n_sequences) return false;
    sllm_status status = is_cancelled(r) ? cancelled_early(&r->error) : SLLM_OK;
    if (!status && !r->begun) status = begin(e, r, &r->error);
    if (!status) {
        const sl_kv *from = find_prefix(e, r, &length, &coming);
        if (coming) return false;
        status = give_timeline(e, r, from, length, &fits, &r->error);
    }
    if (!status && !fits) return false;
    take_waiting(e);
    if (status) {
        end_request(e, r, status, &r->error);
        return true;
    }
    sl_turn_want(&r->turn, &r->want);
    pthread_mutex_lock(&e->lock);
    e->running[e->n_running++] = r;
    e->stats.prompt_tokens += r->out.prompt_tokens;
    e->stats.reused_tokens += r->out.reused_tokens;
    pthread_mutex_unlock(&e->lock);
    return true;
}

/* ---------------------------------------------------------------- a step */

static int rows_left(const sl_request *r) {
    return (int)(r->want.keep + r->want.n) - sl_kv_length(r->kv);
}

/* Puts at most `most` rows of running[at] into the step. */
static int add_part(sl_engine *e, int at, int most, int *logits_left) {
    const sl_request *r = e->running[at];
    int left = rows_left(r), n = left < most ? left : most, n_logits = n == left ? (int)r->want.n_logits : 0;
    if (n_logits > *logits_left || (n < left && r->want.n_logits > 1)) return 0; /* in the next step then */
    e->parts[e->n_parts] = (sl_part){r->kv, r->want.ids + (r->want.n - (size_t)left), n, n_logits};
    e->part_of[e->n_parts++] = at;
    *logits_left -= n_logits;
    return n;
}

/* Those who want a few rows come first, each in its turn; then prompts, oldest first, which always get some. Where not
 * all had a turn, the next step begins with the first who had none. */
static void plan(sl_engine *e) {
    int left = e->n_rows, logits_left = e->n_logits, least = e->n_rows / 4 > 0 ? e->n_rows / 4 : 1, next = -1;
    e->n_parts = 0;
    if (e->first >= e->n_running) e->first = 0;
    for (int i = 0; i < e->n_running; i++) {
        int at = (e->first + i) % e->n_running;
        if (rows_left(e->running[at]) > SL_TURN_ROWS) continue;
        int added = left > 0 ? add_part(e, at, left, &logits_left) : 0;
        if (added == 0 && next < 0) next = at;
        left -= added;
    }
    e->first = next < 0 ? e->first + 1 : next;
    if (left < least) left = least;
    for (int at = 0; at < e->n_running && left > 0; at++)
        if (rows_left(e->running[at]) > SL_TURN_ROWS) left -= add_part(e, at, left, &logits_left);
}

/* Hands logits to the request of a part, and sees what it wants next. Guesses are made for one that is alone: rows
 * beside others serve more. */
static sllm_status deliver(sl_engine *e, sl_request *r, const sl_part *part, const float *logits, sllm_error *error) {
    if (part->n_logits == 0) return SLLM_OK; /* a piece of a prompt */
    bool noted = r->turn.phase == SL_TURN_ANSWER && part->n == part->n_logits;
    double seconds = e->n_parts == 1 ? e->seconds : 0; /* beside others its share of the time is not known */
    size_t accepted = r->out.accepted_tokens;
    sllm_status status = sl_turn_take(&r->turn, logits, error);
    if (status || r->turn.done) return status;
    if (noted) sl_speculator_note(&r->speculator, r->want.n - 1, r->out.accepted_tokens - accepted, seconds);
    if (e->n_running == 1) status = sl_speculator_propose(&r->speculator, &r->turn, (sl_cancel){0}, error);
    sl_turn_want(&r->turn, &r->want);
    sl_kv_truncate(r->kv, (int)r->want.keep);
    return status;
}

/* Computes parts [first, first + n); logits: where those of the first of them go. */
static sllm_status compute(sl_engine *e, int first, int n, float *logits, sl_cancel cancel, sllm_error *error) {
    sl_forward_params params = {.logits = logits, .is_cancelled = cancel.is_cancelled, .user = cancel.user};
    double began = sl_clock();
    sllm_status status = sl_forward_batch(e->model, e->work, &e->parts[first], n, &params, error);
    if (status) return status;
    e->seconds = sl_clock() - began;
    size_t rows = 0;
    for (int i = first; i < first + n; i++) {
        rows += (size_t)e->parts[i].n;
        e->running[e->part_of[i]]->out.rows += (size_t)e->parts[i].n;
    }
    pthread_mutex_lock(&e->lock);
    e->stats.rows += rows;
    pthread_mutex_unlock(&e->lock);
    return SLLM_OK;
}

/* The logits of part `at` in the step's. */
static float *logits_of(const sl_engine *e, int at) {
    size_t rows = 0;
    for (int i = 0; i < at; i++) rows += (size_t)e->parts[i].n_logits;
    return e->logits + rows * (size_t)e->model->config.n_vocab;
}

/* A task of the pool. Drawing from a large vocabulary takes its time, and each answer has a sampler of its own. */
static void draw_part(void *user, int64_t at, int thread) {
    sl_engine *e = user;
    sl_request *r = e->running[e->part_of[at]];
    (void)thread;
    if (!r->status && e->parts[at].n_logits > 0)
        r->status = sl_turn_draw_ahead(&r->turn, logits_of(e, (int)at), &r->error);
}

/* A timeline whose keys are all computed anew in this step is shorter in its middle than it was before, and a want is
 * not for that: such a step is not cut. */
static sl_cancel cancel_of_step(const sl_engine *e) {
    const sl_config *c = &e->model->config;
    for (int i = 0; i < e->n_parts; i++) {
        int length = e->before[i], after = length + e->parts[i].n;
        if (length > 0 && sl_rope_regime(c, length) != sl_rope_regime(c, after)) return (sl_cancel){0};
    }
    return e->cancel;
}

/* After a step that was cut: logits that were computed are lost, so their positions are wanted again. */
static void take_back(sl_engine *e) {
    for (int i = 0; i < e->n_parts; i++) {
        sl_kv *kv = e->parts[i].kv;
        if (e->parts[i].n_logits > 0 && sl_kv_length(kv) > e->before[i]) sl_kv_truncate(kv, e->before[i]);
    }
}

static sllm_status run_parts(sl_engine *e, sllm_error *error) {
    for (int i = 0; i < e->n_parts; i++) e->before[i] = sl_kv_length(e->parts[i].kv);
    sllm_status together = e->n_parts > 0 ? compute(e, 0, e->n_parts, e->logits, cancel_of_step(e), NULL) : SLLM_OK;
    if (together == SLLM_ERROR_CANCELLED) {
        take_back(e);
        return sl_fail(error, together, "the step was cancelled; another goes on from where it began");
    }
    for (int i = 0; i < e->n_parts; i++) /* what was refused together is tried alone: only the one at fault suffers */
        e->running[e->part_of[i]]->status =
            together ? compute(e, i, 1, logits_of(e, i), (sl_cancel){0}, &e->running[e->part_of[i]]->error) : SLLM_OK;
    if (e->n_parts > 1) sl_pool_run(e->model->pool, e->n_parts, draw_part, e);
    for (int i = 0; i < e->n_parts; i++) {
        sl_request *r = e->running[e->part_of[i]];
        if (!r->status) r->status = deliver(e, r, &e->parts[i], logits_of(e, i), &r->error);
    }
    for (int i = 0; i < e->n_running;) {
        sl_request *r = e->running[i];
        if (r->status || r->turn.done) end_running(e, i, r->status, &r->error);
        else i++;
    }
    return SLLM_OK;
}

sllm_status sl_engine_step(sl_engine *e, bool *more, sllm_error *error) {
    end_cancelled(e);
    while (let_in(e)) continue;
    plan(e);
    sllm_status status = run_parts(e, error);
    pthread_mutex_lock(&e->lock);
    e->stats.steps++;
    e->stats.n_pages_free = (size_t)sl_kv_pool_unused(e->pool);
    *more = e->n_running > 0 || e->n_waiting > 0;
    pthread_mutex_unlock(&e->lock);
    return status;
}
