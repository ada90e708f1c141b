/* The batch engine on a tiny model: every answer is the same bytes as sllm_generate's alone, whatever the batch, the
 * order, the cache; few pages, cancelling and failing requests harm nobody; and no allocation whose failure is not
 * survived. */
#include "infer/engine.h"
#include "infer/session.h"
#include "model/forward.h"
#include "unit/fail_alloc.h"
#include "unit/tiny_model.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_VOCAB = 320, N_CTX = 512, N = 32 };

static sllm_model *model;

static int set_up(void **state) {
    (void)state;
    model = tiny_model(2);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sllm_model_free(model);
    return 0;
}

/* ---------------------------------------------------------------- requests */

typedef struct request {
    int32_t ids[N_CTX];
    size_t n;
    sllm_generate_params params;
    sllm_generation answer;
    sllm_status status;
    char message[1024];
    int n_done;
    size_t events, cancel_after; /* cancel_after 0: never */
    bool is_cancelled;
} request;

static void on_done(void *user, sllm_status status, sllm_generation *generation, const sllm_error *error) {
    request *r = user;
    r->n_done++;
    r->status = status;
    assert_true(!generation == (status != SLLM_OK));
    if (generation) r->answer = *generation;
    if (error) snprintf(r->message, sizeof r->message, "%s", error->message);
}

static bool on_event(void *user, const sllm_event *event) {
    request *r = user;
    r->events += event->id >= 0;
    return r->cancel_after == 0 || r->events < r->cancel_after;
}

static bool on_cancelled(void *user) { return ((request *)user)->is_cancelled; }

static const char *const stops[] = {"a", "zz"};
static const char *const choices[] = {"10", "yes", "1", "100", "no", "17", "yes, but"};

/* Prompts of 2 to 300 tokens: some share long beginnings, some all but a little; greedy, sampled, with stop strings,
 * with choices, with every overflow policy. */
static void make_request(request *r, int i) {
    unsigned seed = (unsigned)(i % 4) * 77 + 1;
    *r = (request){0};
    r->n = 2 + (size_t)(i * 53 % 299);
    for (size_t k = 0; k < r->n; k++) {
        if (k == 130) seed += (unsigned)i; /* from here on each its own */
        seed = seed * 1103515245u + 12345u;
        r->ids[k] = (int32_t)((seed >> 16) % 300);
    }
    sllm_generate_params_init(&r->params);
    r->params.max_new_tokens = 5 + i * 7 % 40;
    r->params.sampler.temperature = i % 3 == 0 ? 0 : i % 3 == 1 ? 0.8f : 1.5f;
    r->params.sampler.top_p = i % 2 ? 0.9f : 1;
    r->params.sampler.repetition_penalty = i % 5 == 0 ? 1.2f : 1;
    r->params.sampler.seed = (uint64_t)i;
    r->params.ignore_end = i % 4 == 0;
    r->params.n_logprobs = i % 7 == 0 ? 3 : -1;
    if (i % 6 == 1 && i % 8 != 5) r->params.stop = stops, r->params.n_stop = 2;
    if (i % 8 == 5) r->params.choices = choices, r->params.n_choices = 7, r->params.max_new_tokens = 50;
    if (i % 16 == 7) r->params.max_new_tokens = 1000, r->params.overflow = SLLM_OVERFLOW_SHIFT, r->params.n_keep = 70;
    r->params.on_event = on_event;
    r->params.is_cancelled = on_cancelled;
    r->params.user = r;
}

static request *make_requests(int n) {
    request *all = calloc((size_t)n, sizeof *all);
    assert_non_null(all);
    for (int i = 0; i < n; i++) {
        make_request(&all[i], i);
        all[i].params.user = &all[i];
    }
    return all;
}

static void free_requests(request *all, int n) {
    for (int i = 0; i < n; i++) sllm_generation_free(&all[i].answer);
    free(all);
}

static void answer_alone(request *r) {
    sllm_session *session = tiny_session(model, N_CTX);
    sllm_error error = {0};
    r->status = sllm_generate(session, r->ids, r->n, &r->params, &r->answer, &error);
    if (r->status) snprintf(r->message, sizeof r->message, "%s", error.message);
    sllm_session_free(session);
}

static request *answers_alone(int n) {
    request *all = make_requests(n);
    for (int i = 0; i < n; i++) answer_alone(&all[i]);
    return all;
}

static sllm_batch *new_batch(int n_sequences, int n_rows, uint64_t kv_bytes, bool cache) {
    sllm_batch_params params = {.n_ctx = N_CTX, .n_sequences = n_sequences, .n_rows = n_rows, .kv_bytes = kv_bytes,
                                .no_prefix_cache = !cache};
    sllm_batch *batch;
    sllm_error error = {0};
    if (sllm_batch_new(model, &params, &batch, &error)) fail_msg("%s", error.message);
    return batch;
}

static void add(sllm_batch *batch, request *r, uint64_t *id) {
    sllm_error error = {0};
    if (sllm_batch_add(batch, r->ids, r->n, &r->params, on_done, id, &error)) fail_msg("%s", error.message);
}

static void run_all(sllm_batch *batch) {
    bool more = true;
    while (more) assert_int_equal(sllm_batch_step(batch, &more, NULL), SLLM_OK);
}

static void same(const request *a, const request *b) {
    assert_int_equal(b->n_done, 1);
    assert_int_equal(a->status, b->status);
    if (a->status) return;
    const sllm_generation *x = &a->answer, *y = &b->answer;
    assert_int_equal(x->completion_tokens, y->completion_tokens);
    assert_memory_equal(x->ids, y->ids, x->completion_tokens * sizeof *x->ids);
    assert_int_equal(x->text_length, y->text_length);
    assert_memory_equal(x->text, y->text, x->text_length);
    assert_int_equal(x->finish, y->finish);
    assert_int_equal(x->choice, y->choice);
    assert_int_equal(x->dropped_tokens, y->dropped_tokens);
    assert_true(x->stop == y->stop);
    if (x->choice_probabilities)
        assert_memory_equal(x->choice_probabilities, y->choice_probabilities, 7 * sizeof(double));
    if (x->logprobs) assert_memory_equal(x->logprobs, y->logprobs, x->completion_tokens * sizeof(float));
}

/* ---------------------------------------------------------------- the same answer */

static void answers_are_those_of_sessions_alone(void **state) {
    (void)state;
    static const struct {
        int n_sequences, n_rows;
        bool cache, backwards;
    } cases[] = {{1, 0, true, false}, {8, 0, true, false}, {32, 0, true, false}, {1, 0, false, false},
                 {8, 0, false, true}, {32, 0, false, false}, {8, 16, true, true}, {32, 8192, true, true}};
    request *alone = answers_alone(N);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        request *all = make_requests(N);
        sllm_batch *batch = new_batch(cases[c].n_sequences, cases[c].n_rows, 0, cases[c].cache);
        for (int i = 0; i < N; i++) add(batch, &all[cases[c].backwards ? N - 1 - i : i], NULL);
        run_all(batch);
        sllm_batch_stats stats;
        sllm_batch_get_stats(batch, &stats);
        assert_int_equal(stats.finished, N);
        /* one sequence has pages for one context: the next request of another kind takes them */
        if (cases[c].cache && cases[c].n_sequences > 1) assert_true(stats.reused_tokens > 1000);
        if (!cases[c].cache) {
            assert_int_equal(stats.reused_tokens, 0);
            assert_int_equal(stats.n_pages, stats.n_pages_free);
        }
        for (int i = 0; i < N; i++) same(&alone[i], &all[i]);
        sllm_batch_free(batch);
        free_requests(all, N);
    }
    free_requests(alone, N);
}

/* Two contexts' worth of pages for 32 sequences: they wait for each other, and the cache gives way. */
static void few_pages_only_make_it_slower(void **state) {
    (void)state;
    request *alone = answers_alone(N), *all = make_requests(N);
    sllm_batch *batch = new_batch(32, 0, 1, true);
    sllm_batch_stats stats;
    sllm_batch_get_stats(batch, &stats);
    assert_int_equal(stats.n_pages, N_CTX / SL_PAGE);
    for (int i = 0; i < N; i++) add(batch, &all[i], NULL);
    run_all(batch);
    for (int i = 0; i < N; i++) same(&alone[i], &all[i]);
    sllm_batch_free(batch);
    free_requests(all, N);
    free_requests(alone, N);
}

/* The second time all but the last token of every prompt is there. */
static void prefixes_are_reused(void **state) {
    (void)state;
    request *r = make_requests(2);
    sllm_batch *batch = new_batch(8, 0, 0, true);
    r[1] = r[0];
    for (int i = 0; i < 2; i++) {
        r[i].n = 200;
        for (int k = 0; k < 200; k++) r[i].ids[k] = 10 + k;
        r[i].params.user = &r[i];
    }
    add(batch, &r[0], NULL);
    run_all(batch);
    add(batch, &r[1], NULL);
    run_all(batch);
    assert_int_equal(r[0].answer.reused_tokens, 0);
    assert_int_equal(r[1].answer.reused_tokens, 199);
    same(&r[0], &r[1]);
    sllm_batch_free(batch);
    free_requests(r, 2);
}

/* Eight prompts of one beginning, added together: it is computed once. */
static void a_beginning_is_computed_once(void **state) {
    (void)state;
    request *r = make_requests(8);
    sllm_batch *batch = new_batch(8, 16, 0, true);
    for (int i = 0; i < 8; i++) {
        r[i].n = 200;
        for (int k = 0; k < 200; k++) r[i].ids[k] = k < 150 ? 10 + k : (k * 7 + i) % 300;
        r[i].params.choices = NULL, r[i].params.n_choices = 0, r[i].params.overflow = SLLM_OVERFLOW_ERROR;
        r[i].params.max_new_tokens = 10;
        add(batch, &r[i], NULL);
    }
    run_all(batch);
    for (int i = 1; i < 8; i++) assert_true(r[i].answer.reused_tokens > 150 - 16);
    sllm_batch_free(batch);
    free_requests(r, 8);
}

/* A timeline is not thrown out of the cache for one that would not fit anyway. */
static void nothing_is_thrown_out_in_vain(void **state) {
    (void)state;
    static const size_t lengths[] = {100, 60, 60, 100};
    static const int answers[] = {10, 200, 260, 10};
    request *r = make_requests(4);
    sllm_batch *batch = new_batch(4, 0, 1, true); /* pages for 512 positions */
    uint64_t id = 0;
    bool more;
    for (int i = 0; i < 4; i++) {
        r[i].n = lengths[i], r[i].params.max_new_tokens = answers[i], r[i].params.ignore_end = true;
        for (size_t k = 0; k < r[i].n; k++) r[i].ids[k] = (int32_t)(10 + k + (i % 3 ? (size_t)i * 100 : 0)) % 300;
        r[i].params.choices = NULL, r[i].params.n_choices = 0, r[i].params.overflow = SLLM_OVERFLOW_ERROR;
        r[i].params.n_stop = 0;
    }
    add(batch, &r[0], NULL);
    run_all(batch);                      /* 2 pages are in the cache */
    add(batch, &r[1], NULL);             /* takes 5 of the 8 */
    add(batch, &r[2], &id);              /* wants 5: 1 is spare, and the 2 would not do */
    for (int i = 0; i < 5; i++) sllm_batch_step(batch, &more, NULL);
    assert_true(sllm_batch_cancel(batch, id));
    add(batch, &r[3], NULL);
    run_all(batch);
    assert_int_equal(r[2].status, SLLM_ERROR_CANCELLED);
    assert_int_equal(r[3].answer.reused_tokens, 99);
    sllm_batch_free(batch);
    free_requests(r, 4);
}

/* More answers than rows: each step goes on where the one before ended, so nobody waits for two once the
 * prompts are done. Every token but the first is noted for the guesses to come, also while others share the forward. */
static void all_have_their_turn(void **state) {
    (void)state;
    enum { M = 24 };
    request *all = make_requests(M);
    size_t before[M] = {0}, rows = 0;
    int waited[M] = {0};
    sllm_batch *batch = new_batch(M, 16, 0, true);
    bool more = true;
    for (int i = 0; i < M; i++) {
        all[i].n = 5, all[i].params.max_new_tokens = 60, all[i].params.ignore_end = true, all[i].params.n_stop = 0;
        all[i].params.choices = NULL, all[i].params.n_choices = 0;
        all[i].params.speculation = SLLM_SPECULATION_LOOKUP;
        add(batch, &all[i], NULL);
    }
    while (more) {
        int answering = 0;
        for (int i = 0; i < M; i++) answering += all[i].events > 0;
        sllm_batch_step(batch, &more, NULL);
        for (int i = 0; i < M; i++) {
            waited[i] = all[i].events > before[i] || answering < M || all[i].n_done ? 0 : waited[i] + 1;
            before[i] = all[i].events;
            assert_true(waited[i] < 2);
        }
        for (int i = 0; i < batch->n_running; i++) {
            const sl_request *r = batch->running[i];
            if (r->turn.phase == SL_TURN_ANSWER) assert_int_equal(r->speculator.tokens + 1, r->out.completion_tokens);
        }
    }
    for (int i = 0; i < M; i++) rows += all[i].answer.rows;
    sllm_batch_stats stats;
    sllm_batch_get_stats(batch, &stats);
    assert_int_equal(rows, stats.rows);
    sllm_batch_free(batch);
    free_requests(all, M);
}

/* A model whose keys turn otherwise once the timeline is longer than it was first trained for (longrope, 32 positions
 * here): the pages of the short ones serve no long one, and a prompt computed in pieces passes from one to the
 * other. */
static void the_length_may_change_the_keys(void **state) {
    (void)state;
    enum { M = 12 };
    static const char *const path = SLLM_SOURCE_DIR "/tests/golden/data/models/phi3-longrope";
    sllm_model *first = model;
    assert_int_equal(sllm_model_load(path, NULL, &model, NULL), SLLM_OK);
    sllm_model_info info;
    sllm_model_get_info(model, &info);
    int n_ctx = info.n_ctx_train < N_CTX ? info.n_ctx_train : N_CTX;
    request *alone = make_requests(M), *all = make_requests(M);
    sllm_batch_params params = {.n_ctx = n_ctx, .n_sequences = 4, .n_rows = 16};
    sllm_batch *batch;
    assert_int_equal(sllm_batch_new(model, &params, &batch, NULL), SLLM_OK);
    for (int i = 0; i < M; i++) {
        for (int way = 0; way < 2; way++) {
            request *r = way ? &alone[i] : &all[i];
            r->n = (size_t)(20 + i * 8);
            for (size_t k = 0; k < r->n; k++) r->ids[k] = (int32_t)(5 + k * 3 % (size_t)(info.n_vocab - 5));
            sllm_generate_params_init(&r->params);
            r->params.max_new_tokens = 40, r->params.ignore_end = true, r->params.sampler.seed = (uint64_t)i;
            r->params.user = r;
        }
        sllm_session *session = tiny_session(model, n_ctx);
        alone[i].status = sllm_generate(session, alone[i].ids, alone[i].n, &alone[i].params, &alone[i].answer, NULL);
        assert_int_equal(alone[i].status, SLLM_OK);
        /* and guesses across the boundary */
        request guessed = alone[i];
        guessed.params.speculation = SLLM_SPECULATION_LOOKUP, guessed.n_done = 1;
        guessed.status = sllm_generate(session, guessed.ids, guessed.n, &guessed.params, &guessed.answer, NULL);
        assert_int_equal(guessed.status, SLLM_OK);
        same(&alone[i], &guessed);
        sllm_generation_free(&guessed.answer);
        sllm_session_free(session);
        add(batch, &all[i], NULL);
    }
    run_all(batch);
    for (int i = 0; i < M; i++) same(&alone[i], &all[i]);
    sllm_batch_free(batch);
    free_requests(all, M);
    free_requests(alone, M);
    sllm_model_free(model);
    model = first;
}

/* Keys and values of fewer bits are the same bits too. */
static void every_kv_type_gives_the_same(void **state) {
    (void)state;
    enum { M = 10 };
    for (int type = SLLM_KV_F32; type <= SLLM_KV_Q4_0; type++) {
        request *alone = make_requests(M), *all = make_requests(M);
        sllm_batch_params params = {.n_ctx = N_CTX, .n_sequences = 5, .kv_type = (sllm_kv_type)type};
        sllm_session_params one = {.n_ctx = N_CTX, .kv_type = (sllm_kv_type)type};
        sllm_batch *batch;
        sllm_status status = sllm_batch_new(model, &params, &batch, NULL);
        if (status) assert_int_equal(status, SLLM_ERROR_ARGUMENT); /* the heads cannot be kept so */
        for (int i = 0; i < M && !status; i++) {
            sllm_session *session;
            assert_int_equal(sllm_session_new(model, &one, &session, NULL), SLLM_OK);
            alone[i].status =
                sllm_generate(session, alone[i].ids, alone[i].n, &alone[i].params, &alone[i].answer, NULL);
            sllm_session_free(session);
            add(batch, &all[i], NULL);
        }
        if (!status) run_all(batch);
        for (int i = 0; i < M && !status; i++) same(&alone[i], &all[i]);
        if (!status) sllm_batch_free(batch);
        free_requests(all, M);
        free_requests(alone, M);
    }
}

/* Guesses while a request is alone, then others beside it. */
static void guesses_change_nothing(void **state) {
    (void)state;
    enum { M = 8 };
    request *alone = make_requests(M), *all = make_requests(M);
    sllm_batch *batch = new_batch(4, 0, 0, true);
    static sllm_logit_bias bias[7]; /* seven tokens to draw from: pairs of them recur */
    for (int k = 0; k < 7; k++) bias[k] = (sllm_logit_bias){20 + k, 100};
    bool more = true;
    for (int i = 0; i < M; i++) {
        for (int way = 0; way < 2; way++) {
            request *r = way ? &alone[i] : &all[i];
            r->params.sampler.bias = bias, r->params.sampler.n_bias = 7;
            r->params.choices = NULL, r->params.n_choices = 0, r->params.overflow = SLLM_OVERFLOW_ERROR;
            r->n = 100, r->params.max_new_tokens = 80, r->params.ignore_end = true, r->params.n_stop = 0;
            for (int k = 0; k < 100; k++) r->ids[k] = 20 + (k + i) % 7;
        }
        answer_alone(&alone[i]);
        all[i].params.speculation = SLLM_SPECULATION_LOOKUP;
        add(batch, &all[i], NULL);
        for (int step = 0; step < (i < 4 ? 1000 : 5) && more; step++) sllm_batch_step(batch, &more, NULL);
        more = true;
    }
    run_all(batch);
    for (int i = 0; i < M; i++) {
        same(&alone[i], &all[i]);
        /* The first four were alone all the time. How many more guesses than one were made depends on the time they
         * took. */
        if (i < 4) assert_true(all[i].answer.proposed_tokens > 0);
    }
    sllm_error error = {0};
    all[0].params.speculation = SLLM_SPECULATION_DRAFT;
    assert_int_not_equal(sllm_batch_add(batch, all[0].ids, 2, &all[0].params, on_done, NULL, &error), SLLM_OK);
    sllm_batch_free(batch);
    free_requests(all, M);
    free_requests(alone, M);
}

/* ---------------------------------------------------------------- those that fail or are cancelled */

static void one_fails_alone(void **state) {
    (void)state;
    request *alone = answers_alone(N), *all = make_requests(N), bad[3];
    sllm_batch *batch = new_batch(8, 0, 0, true);
    for (int i = 0; i < 3; i++) {
        make_request(&bad[i], 2);
        bad[i].params.user = &bad[i];
    }
    bad[0].n = N_CTX; /* no room for an answer */
    bad[1].params.choices = choices, bad[1].params.n_choices = 7, bad[1].params.max_new_tokens = 1;
    static sllm_logit_bias bias[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++) bias[i] = (sllm_logit_bias){i, -INFINITY};
    bad[2].params.sampler.bias = bias, bad[2].params.sampler.n_bias = N_VOCAB; /* nothing to draw from */
    for (int i = 0; i < N; i++) {
        add(batch, &all[i], NULL);
        if (i % 8 == 3 && i / 8 < 3) add(batch, &bad[i / 8], NULL);
    }
    run_all(batch);
    assert_int_equal(bad[0].status, SLLM_ERROR_CONTEXT);
    assert_int_equal(bad[1].status, SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(bad[1].message, "choices"));
    assert_int_equal(bad[2].status, SLLM_ERROR_ARGUMENT);
    for (int i = 0; i < 3; i++) assert_int_equal(bad[i].n_done, 1);
    for (int i = 0; i < N; i++) same(&alone[i], &all[i]);
    sllm_batch_free(batch);
    free_requests(all, N);
    free_requests(alone, N);
}

static void cancelling_ends_one(void **state) {
    (void)state;
    enum { M = 12 };
    request *alone = answers_alone(M), *all = make_requests(M);
    sllm_batch *batch = new_batch(4, 16, 0, true);
    uint64_t ids[M];
    bool more;
    all[0].cancel_after = 3;     /* by its events */
    all[2].is_cancelled = true;  /* before it began */
    for (int i = 0; i < M; i++) add(batch, &all[i], &ids[i]);
    assert_true(sllm_batch_cancel(batch, ids[9])); /* still waiting */
    assert_false(sllm_batch_cancel(batch, 12345));
    for (int i = 0; i < 3; i++) sllm_batch_step(batch, &more, NULL);
    assert_true(sllm_batch_cancel(batch, ids[1])); /* on its way */
    run_all(batch);
    assert_false(sllm_batch_cancel(batch, ids[1]));
    assert_int_equal(all[0].answer.finish, SLLM_FINISH_CANCELLED);
    assert_int_equal(all[0].answer.completion_tokens, 3);
    assert_memory_equal(all[0].answer.ids, alone[0].answer.ids, 3 * sizeof(int32_t));
    assert_int_equal(all[1].status, SLLM_OK);
    assert_int_equal(all[1].answer.finish, SLLM_FINISH_CANCELLED);
    assert_int_equal(all[2].status, SLLM_ERROR_CANCELLED);
    assert_int_equal(all[9].status, SLLM_ERROR_CANCELLED);
    for (int i = 0; i < M; i++) {
        assert_int_equal(all[i].n_done, 1);
        if (i != 0 && i != 1 && i != 2 && i != 9) same(&alone[i], &all[i]);
    }
    sllm_batch_free(batch);
    free_requests(all, M);
    free_requests(alone, M);
}

/* Less often than a step asks, or none would ever end. */
static bool now_and_then(void *user) { return ++*(int *)user % 71 == 0; }

/* Steps that are cut, wherever that is, change no answer. */
static void cancelled_steps_lose_nothing(void **state) {
    (void)state;
    request *alone = answers_alone(N), *all = make_requests(N);
    int asked = 0, n_cut = 0;
    sllm_batch_params params = {.n_ctx = N_CTX, .n_sequences = 4, .n_rows = 64, .is_cancelled = now_and_then,
                                .user = &asked};
    sllm_batch *batch;
    sllm_error error = {0};
    bool more = true;
    assert_int_equal(sllm_batch_new(model, &params, &batch, NULL), SLLM_OK);
    batch->work->chunk = 8; /* some of a step's parts are finished when it is cut, and some are not */
    for (int i = 0; i < N; i++) add(batch, &all[i], NULL);
    while (more) {
        sllm_status status = sllm_batch_step(batch, &more, &error);
        if (status) assert_int_equal(status, SLLM_ERROR_CANCELLED);
        n_cut += status != SLLM_OK;
    }
    assert_true(n_cut > 10);
    for (int i = 0; i < N; i++) same(&alone[i], &all[i]);
    sllm_batch_free(batch);
    free_requests(all, N);
    free_requests(alone, N);
}

static void freeing_ends_all(void **state) {
    (void)state;
    request *all = make_requests(N);
    sllm_batch *batch = new_batch(4, 16, 0, true);
    bool more;
    for (int i = 0; i < N; i++) add(batch, &all[i], NULL);
    for (int i = 0; i < 3; i++) sllm_batch_step(batch, &more, NULL);
    sllm_batch_free(batch);
    for (int i = 0; i < N; i++) {
        assert_int_equal(all[i].n_done, 1);
        if (all[i].status) assert_int_equal(all[i].status, SLLM_ERROR_CANCELLED);
    }
    free_requests(all, N);
}

/* ---------------------------------------------------------------- fairness */

/* A long prompt and a short one that came after it: the short one answers while the long one is computed in pieces. */
static void nobody_waits_for_a_long_prompt(void **state) {
    (void)state;
    request *r = make_requests(2);
    sllm_batch *batch = new_batch(2, 16, 0, true);
    bool more = true;
    int steps = 0, first_answer = 0, long_answer = 0;
    for (int i = 0; i < 2; i++) {
        r[i].params.choices = NULL, r[i].params.n_choices = 0, r[i].params.ignore_end = true, r[i].params.n_stop = 0;
        r[i].params.max_new_tokens = 8;
    }
    r[0].n = 4, r[1].n = 400;
    for (int k = 0; k < 400; k++) r[1].ids[k] = k % 300;
    add(batch, &r[1], NULL);
    add(batch, &r[0], NULL);
    while (more) {
        sllm_batch_step(batch, &more, NULL);
        steps++;
        if (r[0].n_done && !first_answer) first_answer = steps;
        if (r[1].events && !long_answer) long_answer = steps;
    }
    assert_true(first_answer <= 10);
    assert_true(long_answer > 20 && long_answer <= 40); /* 400 rows at 12 or more a step */
    sllm_batch_free(batch);
    free_requests(r, 2);
}

/* ---------------------------------------------------------------- threads */

static sllm_batch *shared;

static void *add_from_thread(void *user) {
    request *all = user;
    for (int i = 0; i < N / 2; i++) add(shared, &all[i], NULL);
    return NULL;
}

static void any_thread_may_add(void **state) {
    (void)state;
    request *alone = answers_alone(N), *all = make_requests(N);
    shared = new_batch(8, 0, 0, true);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_from_thread, &all[i * (N / 2)]), 0);
    sllm_batch_stats stats = {0};
    for (int rounds = 0; stats.finished < N; rounds++) {
        bool more;
        sllm_batch_wait(shared, 10);
        sllm_batch_step(shared, &more, NULL);
        sllm_batch_get_stats(shared, &stats);
        assert_true(rounds < 100000);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    sllm_batch_wait(shared, 0.01); /* nothing to do: it comes back all the same */
    for (int i = 0; i < N; i++) same(&alone[i], &all[i]);
    sllm_batch_free(shared);
    free_requests(all, N);
    free_requests(alone, N);
}

/* ---------------------------------------------------------------- arguments and memory */

static void arguments_are_checked(void **state) {
    (void)state;
    static const sllm_batch_params wrong[] = {{.n_ctx = -1}, {.n_ctx = 1 << 30}, {.n_sequences = -1},
                                              {.n_sequences = 1025}, {.n_rows = 15}, {.n_rows = 8193},
                                              {.kv_type = (sllm_kv_type)9}};
    sllm_batch *batch;
    sllm_error error = {0};
    request *r = make_requests(1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(sllm_batch_new(model, &wrong[i], &batch, &error), SLLM_ERROR_ARGUMENT);
        assert_null(batch);
    }
    assert_int_equal(sllm_batch_new(NULL, NULL, &batch, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_batch_new(model, NULL, NULL, &error), SLLM_ERROR_ARGUMENT);
    batch = new_batch(1, 0, 0, true);
    const int32_t outside[] = {1, N_VOCAB};
    assert_int_equal(sllm_batch_add(batch, outside, 2, &r->params, on_done, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_batch_add(batch, outside, 0, &r->params, on_done, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_batch_add(batch, outside, 1, &r->params, NULL, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_batch_add(NULL, outside, 1, &r->params, on_done, NULL, &error), SLLM_ERROR_ARGUMENT);
    r->params.max_new_tokens = -1;
    assert_int_equal(sllm_batch_add(batch, outside, 1, &r->params, on_done, NULL, &error), SLLM_ERROR_ARGUMENT);
    bool more = true;
    assert_int_equal(sllm_batch_step(batch, &more, NULL), SLLM_OK);
    assert_false(more);
    assert_int_equal(sllm_batch_step(NULL, &more, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(r->n_done, 0);
    sllm_batch_free(batch);
    sllm_batch_free(NULL);
    free_requests(r, 1);
}

/* What a plan counts beside the weights is what a batch takes, but for lists of a few bytes a sequence. */
static void a_plan_counts_all(void **state) {
    (void)state;
    enum { SEQUENCES = 5, LISTS = 8192 };
    sllm_plan_params wanted = {.n_ctx = N_CTX, .n_batch = SEQUENCES};
    sllm_batch_params params = {.n_ctx = N_CTX, .n_sequences = SEQUENCES};
    sllm_sampler_params draws;
    sllm_plan plan;
    sllm_batch *batch;
    sl_kv *kvs[SEQUENCES];
    sl_sampler *samplers[SEQUENCES];
    sllm_sampler_params_init(&draws);
    assert_int_equal(sllm_model_plan_loaded(model, &wanted, &plan, NULL), SLLM_OK);
    size_t start = fail_alloc_asked();
    assert_int_equal(sllm_batch_new(model, &params, &batch, NULL), SLLM_OK);
    for (int i = 0; i < SEQUENCES; i++) {
        assert_int_equal(sl_kv_new(batch->pool, N_CTX, &kvs[i], NULL), SLLM_OK);
        assert_int_equal(sl_sampler_new(NULL, N_VOCAB, &draws, &samplers[i], NULL), SLLM_OK);
    }
    size_t taken = fail_alloc_asked() - start;
    assert_in_range(taken, plan.kv_bytes + plan.work_bytes, plan.kv_bytes + plan.work_bytes + LISTS);
    for (int i = 0; i < SEQUENCES; i++) {
        sl_kv_free(kvs[i]);
        sl_sampler_free(samplers[i]);
    }
    sllm_batch_free(batch);
}

/* Whatever allocation fails: every request that was added ends once, and one that ends well is right. */
static void allocations_may_fail(void **state) {
    (void)state;
    enum { M = 6 };
    request *alone = answers_alone(M);
    bool failed = true;
    for (long n = 1; failed; n += n < 60 ? 1 : 7) {
        request *all = make_requests(M);
        sllm_batch_params params = {.n_ctx = N_CTX, .n_sequences = 4, .n_rows = 64};
        sllm_batch *batch = NULL;
        bool added[M] = {false}, more = true;
        fail_alloc_arm(n, n % 2 == 0);
        sllm_status status = sllm_batch_new(model, &params, &batch, NULL);
        for (int i = 0; i < M && !status; i++)
            added[i] = !sllm_batch_add(batch, all[i].ids, all[i].n, &all[i].params, on_done, NULL, NULL);
        while (!status && more) sllm_batch_step(batch, &more, NULL);
        sllm_batch_free(batch);
        failed = fail_alloc_disarm();
        for (int i = 0; i < M; i++) {
            assert_int_equal(all[i].n_done, added[i]);
            if (added[i] && !all[i].status) same(&alone[i], &all[i]);
            if (added[i] && !failed) assert_int_equal(all[i].status, SLLM_OK);
        }
        free_requests(all, M);
    }
    free_requests(alone, M);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_sessions_alone),
        cmocka_unit_test(few_pages_only_make_it_slower),
        cmocka_unit_test(prefixes_are_reused),
        cmocka_unit_test(a_beginning_is_computed_once),
        cmocka_unit_test(nothing_is_thrown_out_in_vain),
        cmocka_unit_test(all_have_their_turn),
        cmocka_unit_test(the_length_may_change_the_keys),
        cmocka_unit_test(every_kv_type_gives_the_same),
        cmocka_unit_test(guesses_change_nothing),
        cmocka_unit_test(one_fails_alone),
        cmocka_unit_test(cancelling_ends_one),
        cmocka_unit_test(cancelled_steps_lose_nothing),
        cmocka_unit_test(freeing_ends_all),
        cmocka_unit_test(nobody_waits_for_a_long_prompt),
        cmocka_unit_test(any_thread_may_add),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(a_plan_counts_all),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
