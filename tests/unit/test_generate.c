/* Generation on a tiny model: the same answer whatever was reused and however many threads ran, every way to end, every
 * overflow policy, choices against brute force, and no allocation whose failure is not survived. */
#include "api/handles.h"
#include "infer/answer.h"
#include "unit/fail_alloc.h"
#include "unit/tiny_model.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { N_VOCAB = 320 };

static sllm_model *model;

static int set_up(void **state) {
    (void)state;
    model = tiny_model(1);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sllm_model_free(model);
    return 0;
}

/* ---------------------------------------------------------------- helpers */

static sllm_generate_params greedy(int n) {
    sllm_generate_params params;
    sllm_generate_params_init(&params);
    params.sampler.temperature = 0;
    params.max_new_tokens = n;
    params.ignore_end = true;
    return params;
}

static sllm_tokens tokens_of(const char *text) {
    sllm_tokens tokens;
    sllm_error error = {0};
    if (sllm_tokenize(model, text, strlen(text), SLLM_TOKENIZE_SPECIAL, &tokens, &error)) fail_msg("%s", error.message);
    return tokens;
}

static sllm_generation run(sllm_session *session, const int32_t *ids, size_t n, const sllm_generate_params *params) {
    sllm_generation out;
    sllm_error error = {0};
    if (sllm_generate(session, ids, n, params, &out, &error)) fail_msg("%s", error.message);
    return out;
}

/* In a session of its own, on any model. */
static sllm_generation run_alone(sllm_model *on, int n_ctx, const char *prompt, const sllm_generate_params *params) {
    sllm_session *session = tiny_session(on, n_ctx);
    sllm_tokens tokens = tokens_of(prompt);
    sllm_generation out = run(session, tokens.ids, tokens.n, params);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
    return out;
}

static void same_answer(const sllm_generation *a, const sllm_generation *b) {
    assert_int_equal(a->completion_tokens, b->completion_tokens);
    assert_memory_equal(a->ids, b->ids, a->completion_tokens * sizeof *a->ids);
    assert_int_equal(a->text_length, b->text_length);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->finish, b->finish);
}

/* Collects what the callback gets. */
typedef struct sink {
    char text[8192], thought[8192];
    size_t length, n_thought, n_ids, stop_after;
    int32_t ids[512];
    bool late; /* an event after the callback said no */
} sink;

static bool collect(void *user, const sllm_event *event) {
    sink *s = user;
    s->late = s->late || (s->stop_after > 0 && s->n_ids >= s->stop_after);
    char *to = event->reasoning ? s->thought : s->text;
    size_t *length = event->reasoning ? &s->n_thought : &s->length;
    assert_true(*length + event->length < sizeof s->text);
    memcpy(to + *length, event->text, event->length);
    to[*length += event->length] = 0;
    if (event->id >= 0) s->ids[s->n_ids++] = event->id;
    return s->stop_after == 0 || s->n_ids < s->stop_after;
}

static const char *const prompt = "The quick brown fox jumps over the lazy dog. 1, 2, 3:";

/* ---------------------------------------------------------------- the same answer */

static void greedy_is_the_argmax_of_each_step(void **state) {
    (void)state;
    sllm_generate_params params = greedy(24);
    sllm_session *session = tiny_session(model, 256), *other = tiny_session(model, 256);
    sllm_tokens tokens = tokens_of(prompt);
    sllm_generation out = run(session, tokens.ids, tokens.n, &params);
    int32_t ids[256];
    memcpy(ids, tokens.ids, tokens.n * sizeof *ids);
    assert_int_equal(out.completion_tokens, 24);
    for (size_t i = 0; i < 24; i++) {
        assert_int_equal(sllm_session_sync(other, ids, tokens.n + i, NULL, NULL), SLLM_OK);
        const float *logits = sllm_session_logits(other);
        int best = 0;
        for (int k = 1; k < N_VOCAB; k++) best = logits[k] > logits[best] ? k : best;
        assert_int_equal(out.ids[i], best);
        ids[tokens.n + i] = best;
    }
    char *text;
    size_t length;
    assert_int_equal(sllm_detokenize(model, out.ids, 24, true, &text, &length, NULL), SLLM_OK);
    assert_string_equal(out.text, text);
    assert_int_equal(out.text_length, length);
    assert_int_equal(out.finish, SLLM_FINISH_LENGTH);
    assert_int_equal(out.prompt_tokens, tokens.n);
    assert_int_equal(out.choice, -1);
    assert_null(out.logprobs);
    /* The session holds the prompt and the answer but for its last token. */
    assert_int_equal(sllm_session_length(session), tokens.n + 23);
    assert_memory_equal(sllm_session_ids(session), ids, (tokens.n + 23) * sizeof *ids);
    sllm_free(text);
    sllm_generation_free(&out);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
    sllm_session_free(other);
}

static void reuse_changes_nothing(void **state) {
    (void)state;
    sllm_generate_params params = greedy(30);
    sllm_session *session = tiny_session(model, 256);
    sllm_tokens tokens = tokens_of(prompt);
    sllm_tokens longer = tokens_of("The quick brown fox jumps over the lazy dog. 1, 2, 3: 4");
    for (int sampled = 0; sampled < 2; sampled++) {
        params.sampler.temperature = sampled ? 0.9f : 0;
        params.sampler.seed = 7;
        sllm_generation fresh = run_alone(model, 256, prompt, &params);
        sllm_session_truncate(session, 0, NULL);
        sllm_generation first = run(session, tokens.ids, tokens.n, &params);
        sllm_generation again = run(session, tokens.ids, tokens.n, &params);
        assert_int_equal(first.reused_tokens, 0);
        assert_int_equal(again.reused_tokens, tokens.n - 1);
        same_answer(&fresh, &first);
        same_answer(&fresh, &again);
        sllm_generation_free(&first);
        sllm_generation_free(&again);
        first = run(session, longer.ids, longer.n, &params);
        again = run_alone(model, 256, "The quick brown fox jumps over the lazy dog. 1, 2, 3: 4", &params);
        assert_true(first.reused_tokens > 0);
        same_answer(&first, &again);
        sllm_generation_free(&first);
        sllm_generation_free(&again);
        sllm_generation_free(&fresh);
    }
    sllm_tokens_free(&tokens);
    sllm_tokens_free(&longer);
    sllm_session_free(session);
}

static void threads_change_nothing(void **state) {
    (void)state;
    sllm_generate_params params = greedy(30);
    sllm_generation one = run_alone(model, 128, prompt, &params);
    for (int n = 2; n <= 3; n++) {
        sllm_model *other = tiny_model(n);
        sllm_generation out = run_alone(other, 128, prompt, &params);
        same_answer(&one, &out);
        sllm_generation_free(&out);
        sllm_model_free(other);
    }
    sllm_generation_free(&one);
}

/* Answers by seed from one session are those of sessions of their own, and seeds differ. */
static void answers_by_seed(void **state) {
    (void)state;
    sllm_generate_params params = greedy(20);
    params.sampler.temperature = 1;
    sllm_session *session = tiny_session(model, 128);
    sllm_tokens tokens = tokens_of(prompt);
    sllm_generation answers[4];
    for (unsigned i = 0; i < 4; i++) {
        params.sampler.seed = i;
        answers[i] = run(session, tokens.ids, tokens.n, &params);
        sllm_generation alone = run_alone(model, 128, prompt, &params);
        same_answer(&answers[i], &alone);
        sllm_generation_free(&alone);
        if (i > 0) assert_memory_not_equal(answers[0].ids, answers[i].ids, 20 * sizeof(int32_t));
    }
    for (int i = 0; i < 4; i++) sllm_generation_free(&answers[i]);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
}

static void *generate_in_thread(void *argument) {
    sllm_generation *out = argument;
    sllm_generate_params params = greedy(40);
    sllm_session *session = NULL;
    sllm_session_params sizes = {.n_ctx = 128};
    sllm_tokens tokens = {0};
    if (sllm_session_new(model, &sizes, &session, NULL) == SLLM_OK &&
        sllm_tokenize(model, prompt, strlen(prompt), 0, &tokens, NULL) == SLLM_OK)
        sllm_generate(session, tokens.ids, tokens.n, &params, out, NULL);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
    return NULL;
}

static void two_threads_on_one_model(void **state) {
    (void)state;
    sllm_model *shared = tiny_model(2), *alone = model;
    sllm_generate_params params = greedy(40);
    sllm_generation expected = run_alone(alone, 128, prompt, &params), out[2] = {{0}};
    pthread_t threads[2];
    model = shared;
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, generate_in_thread, &out[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    model = alone;
    for (int i = 0; i < 2; i++) {
        assert_non_null(out[i].text);
        same_answer(&expected, &out[i]);
        sllm_generation_free(&out[i]);
    }
    sllm_generation_free(&expected);
    sllm_model_free(shared);
}

/* ---------------------------------------------------------------- the ends */

static void events_are_the_text(void **state) {
    (void)state;
    sllm_generate_params params = greedy(60);
    sink s = {0};
    params.on_event = collect, params.user = &s;
    sllm_generation out = run_alone(model, 256, prompt, &params);
    assert_int_equal(s.length, out.text_length);
    assert_string_equal(s.text, out.text);
    assert_int_equal(s.n_ids, out.completion_tokens);
    assert_memory_equal(s.ids, out.ids, s.n_ids * sizeof *s.ids);
    sllm_generation_free(&out);
}

/* A random model does not think, so its tokens are given by hand: each that carries reasoning alone has one event when
 * it is shown and none when it is hidden; every other has one. */
static void reasoning_in_events(void **state) {
    (void)state;
    static const char *const starts[] = {"<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"};
    static const char *const answers[] = {"<think>\nhm, 2 + 2\n</think>\n\nFour.", "hm, 2 + 2\n</think>\n\nFour."};
    for (int i = 0; i < 2; i++)
        for (int hide = 0; hide < 2; hide++) {
            sllm_generate_params params = greedy(0);
            sink s = {0};
            params.on_event = collect, params.user = &s;
            params.reasoning = hide ? SLLM_REASONING_HIDE : SLLM_REASONING_SHOW;
            sllm_tokens start = tokens_of(starts[i]), answer = tokens_of(answers[i]);
            sl_answer a;
            assert_int_equal(sl_answer_init(&a, sl_model_of(model)->tokenizer, &params, start.ids, start.n, NULL),
                             SLLM_OK);
            for (size_t k = 0; k < answer.n; k++)
                assert_int_equal(sl_answer_push(&a, &(sllm_event){.id = answer.ids[k]}, NULL), SLLM_OK);
            assert_int_equal(sl_answer_finish(&a, NULL), SLLM_OK);
            assert_string_equal(s.text, "Four.");
            assert_string_equal(s.thought, hide ? "" : "hm, 2 + 2\n");
            assert_string_equal(a.text.data, "Four.");
            assert_string_equal(a.thought.data, "hm, 2 + 2\n");
            assert_true(a.reasoning.seen);
            if (hide) assert_true(s.n_ids < answer.n - 5);
            else assert_memory_equal(s.ids, answer.ids, answer.n * sizeof *s.ids);
            sl_answer_free(&a);
            sllm_tokens_free(&start);
            sllm_tokens_free(&answer);
        }
}

/* Any piece of the answer as stop string ends it before the piece's first occurrence; no event shows a part of it. */
static void stop_strings_end_the_answer(void **state) {
    (void)state;
    sllm_generate_params params = greedy(60);
    sllm_generation whole = run_alone(model, 256, prompt, &params);
    int tried = 0;
    for (size_t at = 3; at + 6 < whole.text_length && tried < 12; at += 7) {
        char piece[5] = {0};
        memcpy(piece, whole.text + at, 4);
        /* Only pieces that begin and end with whole characters are strings. */
        if ((piece[0] & 0xC0) == 0x80 || (whole.text[at + 4] & 0xC0) == 0x80) continue;
        const char *stops[] = {"never to be seen", piece};
        sink s = {0};
        params.stop = stops, params.n_stop = 2, params.on_event = collect, params.user = &s;
        sllm_generation out = run_alone(model, 256, prompt, &params);
        size_t first = (size_t)(strstr(whole.text, piece) - whole.text);
        assert_int_equal(out.finish, SLLM_FINISH_STOP);
        assert_ptr_equal(out.stop, piece);
        assert_int_equal(out.text_length, first);
        assert_memory_equal(out.text, whole.text, first);
        assert_string_equal(s.text, out.text);
        sllm_generation_free(&out);
        tried++;
    }
    assert_true(tried >= 3);
    sllm_generation_free(&whole);
}

/* The first token of the greedy answer that an end token is made of by a bias. */
static void end_tokens_end_the_answer(void **state) {
    (void)state;
    sllm_generate_params params = greedy(20);
    int32_t end = -1;
    for (int32_t id = 0; id < N_VOCAB && end < 0; id++)
        if (sllm_token_ends(model, id)) end = id;
    assert_true(end >= 0);
    const sllm_logit_bias bias = {end, 100};
    params.sampler.bias = &bias, params.sampler.n_bias = 1;
    params.ignore_end = false;
    sllm_generation out = run_alone(model, 128, prompt, &params);
    assert_int_equal(out.finish, SLLM_FINISH_STOP);
    assert_int_equal(out.completion_tokens, 0);
    assert_string_equal(out.text, "");
    assert_null(out.stop);
    sllm_generation_free(&out);
    params.ignore_end = true;
    out = run_alone(model, 128, prompt, &params);
    assert_int_equal(out.finish, SLLM_FINISH_LENGTH);
    assert_int_equal(out.completion_tokens, 20);
    sllm_generation_free(&out);
    params.max_new_tokens = 0;
    out = run_alone(model, 128, prompt, &params);
    assert_int_equal(out.finish, SLLM_FINISH_LENGTH);
    assert_int_equal(out.completion_tokens, 0);
    assert_string_equal(out.text, "");
    sllm_generation_free(&out);
}

/* A special token has no text in the answer: a stop string that is the token's own ends it all the same. */
static void a_special_token_may_be_a_stop_string(void **state) {
    (void)state;
    sllm_generate_params params = greedy(20);
    int32_t end = -1;
    for (int32_t id = 0; id < N_VOCAB && end < 0; id++)
        if (sllm_token_ends(model, id)) end = id;
    const char *text = sllm_token_text(model, end);
    const sllm_logit_bias bias = {end, 100};
    params.sampler.bias = &bias, params.sampler.n_bias = 1;
    params.stop = &text, params.n_stop = 1;
    sllm_generation out = run_alone(model, 128, prompt, &params);
    assert_int_equal(out.finish, SLLM_FINISH_STOP);
    assert_int_equal(out.completion_tokens, 0);
    assert_ptr_equal(out.stop, text);
    sllm_generation_free(&out);
}

static bool yes(void *user) {
    (void)user;
    return true;
}

static void cancelling_gives_what_was_made(void **state) {
    (void)state;
    sllm_generate_params params = greedy(40);
    sllm_generation whole = run_alone(model, 128, prompt, &params);
    sink s = {.stop_after = 5};
    params.on_event = collect, params.user = &s;
    sllm_generation out = run_alone(model, 128, prompt, &params);
    assert_int_equal(out.finish, SLLM_FINISH_CANCELLED);
    assert_int_equal(out.completion_tokens, 5);
    assert_memory_equal(out.ids, whole.ids, 5 * sizeof *out.ids);
    assert_memory_equal(out.text, whole.text, s.length);
    assert_false(s.late);
    sllm_generation_free(&out);
    params.on_event = NULL, params.is_cancelled = yes;
    sllm_error error = {0};
    sllm_session *session = tiny_session(model, 128);
    sllm_tokens tokens = tokens_of(prompt);
    assert_int_equal(sllm_generate(session, tokens.ids, tokens.n, &params, &out, &error), SLLM_OK);
    assert_int_equal(error.status, SLLM_OK);
    assert_int_equal(out.finish, SLLM_FINISH_CANCELLED);
    assert_true(out.completion_tokens <= 1);
    assert_non_null(out.text);
    sllm_generation_free(&out);
    params.is_cancelled = NULL; /* and the session is still good */
    out = run(session, tokens.ids, tokens.n, &params);
    same_answer(&whole, &out);
    sllm_generation_free(&out);
    sllm_generation_free(&whole);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
}

/* ---------------------------------------------------------------- overflow */

static void overflow_policies(void **state) {
    (void)state;
    enum { CONTEXT = 32, LONG = 50 };
    int32_t ids[LONG], kept[CONTEXT];
    for (int i = 0; i < LONG; i++) ids[i] = 10 + i * 7 % 300;
    sllm_session *session = tiny_session(model, CONTEXT);
    sllm_generate_params params = greedy(8);
    sllm_generation out, other;
    sllm_error error = {0};
    params.n_keep = 4;
    for (size_t n = CONTEXT; n <= LONG; n += LONG - CONTEXT) {
        assert_int_equal(sllm_generate(session, ids, n, &params, &out, &error), SLLM_ERROR_CONTEXT);
        assert_non_null(strstr(error.message, "32"));
        assert_null(out.text);
    }
    assert_int_equal(sllm_session_length(session), 0);

    /* The answer is that of the prompt cut by hand: 32 - 8 = 24 stay, the first 4 among them. */
    params.overflow = SLLM_OVERFLOW_TRUNCATE_START;
    out = run(session, ids, LONG, &params);
    assert_int_equal(out.dropped_tokens, 26);
    assert_int_equal(out.prompt_tokens, LONG);
    memcpy(kept, ids, 4 * sizeof *ids);
    memcpy(kept + 4, ids + 30, 20 * sizeof *ids);
    other = run(session, kept, 24, &params);
    assert_int_equal(other.dropped_tokens, 0);
    same_answer(&out, &other);
    sllm_generation_free(&out);
    sllm_generation_free(&other);

    /* Room is made for the answer before the prompt alone would fill the context. */
    for (size_t n = 22; n <= CONTEXT; n++) {
        out = run(session, ids, n, &params);
        assert_int_equal(out.completion_tokens, 8);
        assert_int_equal(out.dropped_tokens, n > 24 ? n - 24 : 0);
        sllm_generation_free(&out);
    }

    /* A full context ends the answer, so that prompt and answer fill it exactly; half of it is room at most. */
    params.max_new_tokens = 100;
    for (int policy = SLLM_OVERFLOW_ERROR; policy <= SLLM_OVERFLOW_TRUNCATE_START; policy++) {
        size_t dropped = policy == SLLM_OVERFLOW_ERROR ? 0 : 20 - CONTEXT / 2;
        params.overflow = (sllm_overflow)policy;
        out = run(session, ids, 20, &params);
        assert_int_equal(out.completion_tokens, CONTEXT - (20 - dropped));
        assert_int_equal(out.finish, SLLM_FINISH_LENGTH);
        assert_int_equal(out.dropped_tokens, dropped);
        sllm_generation_free(&out);
    }

    /* Shifting goes on; what it gives after the first shift is what the shifted tokens give. */
    params.overflow = SLLM_OVERFLOW_SHIFT;
    out = run(session, ids, 20, &params);
    assert_int_equal(out.completion_tokens, 100);
    assert_true(out.dropped_tokens > 50);
    int32_t all[20 + 100], shifted[CONTEXT];
    memcpy(all, ids, 20 * sizeof *ids);
    memcpy(all + 20, out.ids, 100 * sizeof *ids);
    /* 31 tokens are held when the 12th is drawn: keep 4, drop the older 14 of 27, keep 13 and the 12th. */
    memcpy(shifted, all, 4 * sizeof *all);
    memcpy(shifted + 4, all + 18, 14 * sizeof *all);
    params.max_new_tokens = 5;
    other = run(session, shifted, 18, &params);
    assert_memory_equal(other.ids, out.ids + 12, 5 * sizeof *all);
    sllm_generation_free(&out);
    sllm_generation_free(&other);
    params.n_keep = CONTEXT / 2 + 1;
    assert_int_equal(sllm_generate(session, ids, LONG, &params, &out, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "n_keep"));
    sllm_session_free(session);
}

/* ---------------------------------------------------------------- log-probabilities */

static double log_p(const float *logits, int32_t id) {
    double sum = 0;
    for (int i = 0; i < N_VOCAB; i++) sum += exp((double)logits[i]);
    return logits[id] - log(sum);
}

static void logprobs_are_the_models_own(void **state) {
    (void)state;
    enum { N = 12, K = 5 };
    sllm_generate_params params = greedy(N);
    params.sampler.temperature = 1.5f; /* must not show in them */
    params.n_logprobs = K;
    sllm_tokens tokens = tokens_of(prompt);
    sllm_session *session = tiny_session(model, 128);
    sllm_generation out = run(session, tokens.ids, tokens.n, &params);
    int32_t ids[128];
    float *rows = malloc(128 * N_VOCAB * sizeof *rows);
    memcpy(ids, tokens.ids, tokens.n * sizeof *ids);
    memcpy(ids + tokens.n, out.ids, N * sizeof *ids);
    assert_int_equal(sllm_session_all_logits(session, ids, tokens.n + N, rows, NULL), SLLM_OK);
    for (size_t i = 0; i < N; i++) {
        const float *logits = rows + (tokens.n + i - 1) * N_VOCAB;
        assert_true(fabs(out.logprobs[i] - log_p(logits, out.ids[i])) < 1e-5);
        for (size_t k = 0; k < K; k++) {
            const sllm_alternative *a = &out.alternatives[i * K + k];
            int better = 0;
            for (int id = 0; id < N_VOCAB; id++)
                better += logits[id] > logits[a->id] || (logits[id] == logits[a->id] && id < a->id);
            assert_int_equal(better, k);
            assert_true(fabs(a->logprob - log_p(logits, a->id)) < 1e-5);
        }
    }
    free(rows);
    sllm_generation_free(&out);
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
}

/* ---------------------------------------------------------------- choices */

static const char *const choices[] = {"10", "yes", "1", "100", "no", "17", "yes, but"};
enum { N_CHOICES = sizeof choices / sizeof *choices };

/* Every choice on its own, the whole sequence computed afresh. */
static void brute_force(const char *text, double *p) {
    sllm_session *session = tiny_session(model, 128);
    sllm_tokens start = tokens_of(text), tokens[N_CHOICES];
    float *rows = malloc(128 * N_VOCAB * sizeof *rows);
    double sum = 0;
    for (int c = 0; c < N_CHOICES; c++) tokens[c] = tokens_of(choices[c]);
    for (int c = 0; c < N_CHOICES; c++) {
        int32_t ids[128];
        bool follows[N_VOCAB] = {false};
        double score = 0, rest = 0;
        memcpy(ids, start.ids, start.n * sizeof *ids);
        memcpy(ids + start.n, tokens[c].ids, tokens[c].n * sizeof *ids);
        assert_int_equal(sllm_session_all_logits(session, ids, start.n + tokens[c].n, rows, NULL), SLLM_OK);
        for (size_t i = 0; i < tokens[c].n; i++) score += log_p(rows + (start.n + i - 1) * N_VOCAB, tokens[c].ids[i]);
        for (int o = 0; o < N_CHOICES; o++)
            if (tokens[o].n > tokens[c].n && memcmp(tokens[o].ids, tokens[c].ids, tokens[c].n * sizeof *ids) == 0)
                follows[tokens[o].ids[tokens[c].n]] = true;
        for (int id = 0; id < N_VOCAB; id++)
            if (!follows[id]) rest += exp(log_p(rows + (start.n + tokens[c].n - 1) * N_VOCAB, id));
        sum += p[c] = exp(score) * rest;
    }
    for (int c = 0; c < N_CHOICES; c++) {
        p[c] /= sum;
        sllm_tokens_free(&tokens[c]);
    }
    sllm_tokens_free(&start);
    sllm_session_free(session);
    free(rows);
}

static void choices_equal_brute_force(void **state) {
    (void)state;
    static const char *const prompts[] = {"Is it so? ", "How many: ", "<|im_start|>user\nhm<|im_end|>\n<|im_start|>"};
    for (size_t i = 0; i < 3; i++) {
        double expected[N_CHOICES], sum = 0;
        int best = 0;
        sllm_generate_params params = greedy(50);
        sink s = {0};
        params.choices = choices, params.n_choices = N_CHOICES;
        params.on_event = collect, params.user = &s;
        params.n_logprobs = 0;
        brute_force(prompts[i], expected);
        sllm_generation out = run_alone(model, 128, prompts[i], &params);
        for (int c = 0; c < N_CHOICES; c++) {
            assert_true(fabs(out.choice_probabilities[c] - expected[c]) < 1e-9);
            sum += out.choice_probabilities[c];
            if (expected[c] > expected[best]) best = c;
        }
        assert_true(fabs(sum - 1) < 1e-12);
        assert_int_equal(out.choice, best);
        assert_string_equal(out.text, choices[best]);
        assert_string_equal(s.text, choices[best]);
        assert_int_equal(out.finish, SLLM_FINISH_STOP);
        sllm_generation_free(&out);
    }
}

static void sampled_choices_follow_the_temperature(void **state) {
    (void)state;
    enum { DRAWS = 400 };
    double p[N_CHOICES], sum = 0;
    int counts[N_CHOICES] = {0};
    sllm_generate_params params = greedy(50);
    params.choices = choices, params.n_choices = N_CHOICES;
    params.sampler.temperature = 2;
    brute_force("How many: ", p);
    for (int c = 0; c < N_CHOICES; c++) sum += p[c] = sqrt(p[c]);
    sllm_session *session = tiny_session(model, 128);
    sllm_tokens tokens = tokens_of("How many: ");
    for (int i = 0; i < DRAWS; i++) {
        params.sampler.seed = (uint64_t)i;
        sllm_generation out = run(session, tokens.ids, tokens.n, &params);
        counts[out.choice]++;
        sllm_generation_free(&out);
    }
    for (int c = 0; c < N_CHOICES; c++) {
        double q = p[c] / sum, deviation = sqrt(DRAWS * q * (1 - q));
        assert_true(fabs(counts[c] - DRAWS * q) <= 4 * deviation + 1);
    }
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
}

static void bad_choices_are_refused(void **state) {
    (void)state;
    static const char *const twice[] = {"a", "b", "a"}, *const empty[] = {"a", ""};
    static const struct {
        const char *const *texts;
        size_t n;
        int most;
        sllm_status status;
        const char *says;
    } cases[] = {
        {twice, 3, 10, SLLM_ERROR_ARGUMENT, "the same"},
        {empty, 2, 10, SLLM_ERROR_ARGUMENT, "choice 2"},
        {NULL, 2, 10, SLLM_ERROR_ARGUMENT, "choices"},
        {choices, N_CHOICES, 1, SLLM_ERROR_ARGUMENT, "max_new_tokens"},
        {choices, SIZE_MAX, 10, SLLM_ERROR_ARGUMENT, "choices"},
    };
    sllm_session *session = tiny_session(model, 64);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sllm_generate_params params = greedy(cases[i].most);
        sllm_generation out;
        sllm_error error = {0};
        params.choices = cases[i].texts, params.n_choices = cases[i].n;
        assert_int_equal(sllm_generate(session, (int32_t[]){50, 60}, 2, &params, &out, &error), cases[i].status);
        if (!strstr(error.message, cases[i].says)) fail_msg("%s", error.message);
    }
    sllm_session_free(session);
}

/* ---------------------------------------------------------------- SentencePiece */

/* A SentencePiece vocabulary begins a text with a blank that it then takes away: in the middle of one that must not
 * happen, neither to choices nor to the answer. Needs the shared golden data. */
static void text_goes_on_in_the_middle(void **state) {
    (void)state;
    static const char *const path = SLLM_SOURCE_DIR "/../shared/golden/quant/gguf/phi3-mini/phi3-mini-Q8_0.gguf";
    static const char *const words[] = {"es", " es", "  two blanks", "\n", "caf\xc3\xa9", "es\n\n", "\xe2\x82\xac 5"};
    enum { N_WORDS = sizeof words / sizeof *words };
    sllm_model *other, *first = model;
    if (access(path, R_OK) != 0) {
        print_message("skipped: phi3-mini-Q8_0.gguf is not among the shared golden data\n");
        skip();
    }
    assert_int_equal(sllm_model_load(path, NULL, &other, NULL), SLLM_OK);
    model = other;
    sllm_session *session = tiny_session(other, 128);
    static const char *const prompts[] = {"Wo ist", "Wo ist\n", "<|user|>Wo?<|end|><|assistant|>"};
    for (size_t i = 0; i < 3; i++) {
        sllm_tokens tokens = tokens_of(prompts[i]);
        for (uint64_t seed = 0; seed < 20; seed++) {
            sllm_generate_params params = greedy(50);
            params.sampler.temperature = 1000; /* any of them */
            params.sampler.seed = seed;
            params.choices = words, params.n_choices = N_WORDS;
            sllm_generation out = run(session, tokens.ids, tokens.n, &params);
            assert_string_equal(out.text, words[out.choice]);
            sllm_generation_free(&out);
        }
        sllm_generate_params params = greedy(20);
        sllm_generation out = run(session, tokens.ids, tokens.n, &params);
        int32_t ids[128];
        char *whole, *start;
        size_t length, n_start;
        memcpy(ids, tokens.ids, tokens.n * sizeof *ids);
        memcpy(ids + tokens.n, out.ids, 20 * sizeof *ids);
        assert_int_equal(sllm_detokenize(other, ids, tokens.n + 20, true, &whole, &length, NULL), SLLM_OK);
        assert_int_equal(sllm_detokenize(other, ids, tokens.n, true, &start, &n_start, NULL), SLLM_OK);
        if (i < 2) assert_string_equal(whole + n_start, out.text); /* after a turn's header a new text begins */
        sllm_free(whole);
        sllm_free(start);
        sllm_generation_free(&out);
        sllm_tokens_free(&tokens);
    }
    sllm_session_free(session);
    sllm_model_free(other);
    model = first;
}

/* ---------------------------------------------------------------- arguments and memory */

static void arguments_are_checked(void **state) {
    (void)state;
    sllm_session *session = tiny_session(model, 64);
    const int32_t ids[] = {50, 60}, outside[] = {50, N_VOCAB};
    sllm_generation out;
    sllm_error error = {0};
    sllm_generate_params params = greedy(2);
    assert_int_equal(sllm_generate(NULL, ids, 2, &params, &out, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_generate(session, ids, 0, &params, &out, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_generate(session, NULL, 2, &params, &out, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_generate(session, ids, 2, &params, NULL, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_generate(session, outside, 2, &params, &out, &error), SLLM_ERROR_ARGUMENT);
#define REFUSE(field, value, name)                                                                      \
    do {                                                                                                 \
        sllm_generate_params p_ = greedy(2);                                                             \
        p_.field = (value);                                                                              \
        assert_int_equal(sllm_generate(session, ids, 2, &p_, &out, &error), SLLM_ERROR_ARGUMENT);        \
        assert_non_null(strstr(error.message, name));                                                    \
    } while (0)
    REFUSE(max_new_tokens, -1, "max_new_tokens");
    REFUSE(n_logprobs, -2, "n_logprobs");
    REFUSE(n_logprobs, 101, "n_logprobs");
    REFUSE(n_keep, -1, "n_keep");
    REFUSE(overflow, (sllm_overflow)9, "overflow");
    REFUSE(reasoning, (sllm_reasoning)9, "reasoning");
    REFUSE(sampler.top_k, -1, "top_k");
    REFUSE(n_stop, 1, "stop");
    sllm_session_free(session);
}

/* Fails the n-th allocation, for every n until one run goes through; a leak is the sanitizer's to find. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    static const char *const stops[] = {"zzz", "qqq"};
    sllm_session *session = tiny_session(model, 128);
    sllm_tokens tokens = tokens_of(prompt);
    for (int kind = 0; kind < 3; kind++) {
        sllm_generate_params params = greedy(40);
        params.sampler.temperature = 1;
        params.sampler.dry_multiplier = 0.5f;
        if (kind == 0) params.stop = stops, params.n_stop = 2, params.n_logprobs = 3;
        if (kind == 1) params.choices = choices, params.n_choices = N_CHOICES;
        if (kind == 2) params.overflow = SLLM_OVERFLOW_SHIFT, params.max_new_tokens = 120;
        bool failed = true;
        long n = 0;
        while (failed && n < 5000) {
            sllm_generation out;
            sllm_error error = {0};
            fail_alloc_arm(++n, false);
            sllm_status status = sllm_generate(session, tokens.ids, tokens.n, &params, &out, &error);
            failed = fail_alloc_disarm();
            /* A failure may be survived (qsort sorts in place without its buffer), but never differently from this. */
            if (status) assert_true(failed);
            if (status) assert_int_equal(status, SLLM_ERROR_MEMORY);
            if (status) assert_null(out.text);
            sllm_generation_free(&out);
        }
        assert_false(failed);
        assert_true(n > 10);
    }
    for (long n = 1; n < 50; n++) {
        sllm_session *other;
        sllm_session_params sizes = {.n_ctx = 32};
        fail_alloc_arm(n, false);
        sllm_status status = sllm_session_new(model, &sizes, &other, NULL);
        if (!fail_alloc_disarm()) assert_int_equal(status, SLLM_OK);
        else assert_int_equal(status, SLLM_ERROR_MEMORY);
        sllm_session_free(other);
    }
    sllm_tokens_free(&tokens);
    sllm_session_free(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_argmax_of_each_step), cmocka_unit_test(reuse_changes_nothing),
        cmocka_unit_test(threads_change_nothing),            cmocka_unit_test(answers_by_seed),
        cmocka_unit_test(two_threads_on_one_model),          cmocka_unit_test(events_are_the_text),
        cmocka_unit_test(reasoning_in_events),
        cmocka_unit_test(a_special_token_may_be_a_stop_string),
        cmocka_unit_test(stop_strings_end_the_answer),       cmocka_unit_test(end_tokens_end_the_answer),
        cmocka_unit_test(cancelling_gives_what_was_made),    cmocka_unit_test(overflow_policies),
        cmocka_unit_test(logprobs_are_the_models_own),       cmocka_unit_test(choices_equal_brute_force),
        cmocka_unit_test(sampled_choices_follow_the_temperature), cmocka_unit_test(bad_choices_are_refused),
        cmocka_unit_test(text_goes_on_in_the_middle),
        cmocka_unit_test(arguments_are_checked),             cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
