/* Speculation: the answer is the same bytes with and without, in every mode; what cannot be guessed costs at most what
 * is allowed; the look-up against brute force. */
#include "api/handles.h"
#include "infer/speculate.h"
#include "text/tokenizer.h"
#include "unit/fail_alloc.h"
#include "unit/tiny_model.h"

#include <math.h>
#include <string.h>

enum { N_VOCAB = 320, N_CTX = 256, N_MODES = 40 };

static sllm_model *model, *other;

static int set_up(void **state) {
    (void)state;
    model = tiny_model(1);
    other = tiny_model(2);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sllm_model_free(model);
    sllm_model_free(other);
    return 0;
}

/* ---------------------------------------------------------------- helpers */

static const char *const stops[] = {"q", "zz"};
static const char *const choices[] = {"yes", "no", "10", "100"};

/* Sampling and ends of many kinds. */
static sllm_generate_params mode(int i) {
    sllm_generate_params p;
    sllm_generate_params_init(&p);
    p.max_new_tokens = i % 5 == 4 ? 400 : 60;
    p.ignore_end = i % 3 != 0;
    p.sampler.temperature = i % 4 == 0 ? 0 : i % 4 == 1 ? 0.1f : i % 4 == 2 ? 0.8f : 2;
    p.sampler.top_k = i % 7 == 1 ? 5 : 0;
    p.sampler.top_p = i % 2 ? 0.9f : 1;
    p.sampler.typical_p = i % 9 == 1 ? 0.8f : 1;
    p.sampler.repetition_penalty = i % 6 == 1 ? 1.3f : 1;
    p.sampler.dry_multiplier = i % 8 == 3 ? 0.8f : 0;
    p.sampler.seed = (uint64_t)i;
    p.n_logprobs = i % 4 == 2 ? 3 : -1;
    if (i % 10 == 3) p.stop = stops, p.n_stop = 2;
    if (i % 10 == 6) p.overflow = SLLM_OVERFLOW_SHIFT, p.max_new_tokens = 400, p.n_keep = 8;
    if (i % 20 == 9) p.choices = choices, p.n_choices = 4, p.max_new_tokens = 60;
    return p;
}

/* A prompt that repeats itself, or one that does not. */
static size_t prompt(int32_t *ids, bool repeats, unsigned seed) {
    size_t n = 80;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1103515245u + 12345u;
        ids[i] = repeats ? (int32_t)(20 + i % 9) : (int32_t)((seed >> 16) % 300);
    }
    return n;
}

static sllm_generation generate(sllm_session *session, const int32_t *ids, size_t n, const sllm_generate_params *p) {
    sllm_generation out;
    sllm_error error = {0};
    if (sllm_generate(session, ids, n, p, &out, &error)) fail_msg("%s", error.message);
    return out;
}

static void same(const sllm_generation *a, const sllm_generation *b) {
    assert_int_equal(a->completion_tokens, b->completion_tokens);
    assert_memory_equal(a->ids, b->ids, a->completion_tokens * sizeof *a->ids);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->dropped_tokens, b->dropped_tokens);
    assert_true(a->stop == b->stop);
    if (a->logprobs) assert_memory_equal(a->logprobs, b->logprobs, a->completion_tokens * sizeof(float));
}

/* A clock that shows what the draft has computed, so that no test depends on the machine. */
static const sllm_session *timed;
static double row_price; /* seconds; a forward of the big model takes 1, and 0.1 for each further row */

static double clock_of_rows(void) { return row_price * (double)timed->rows; }

/* The dialogue of generate.c with that clock. */
static sllm_generation drive(sllm_session *session, const int32_t *ids, size_t n, const sllm_generate_params *p,
                             double price, sl_speculator *s) {
    static float rows[SL_TURN_ROWS * N_VOCAB];
    sllm_generation out;
    sl_turn turn;
    sl_want want;
    sllm_error error = {0};
    const sl_cancel never = {0};
    size_t computed = session->rows, draft_rows = p->draft->rows;
    timed = p->draft, row_price = price;
    assert_int_equal(sl_turn_begin(&turn, session->model, sl_session_capacity(session), ids, n, p, &out, NULL),
                     SLLM_OK);
    assert_int_equal(sl_speculator_init(s, p, NULL), SLLM_OK);
    s->clock = clock_of_rows;
    while (!turn.done) {
        if (sl_speculator_propose(s, &turn, never, &error)) fail_msg("%s", error.message);
        sl_turn_want(&turn, &want);
        bool noted = turn.phase == SL_TURN_ANSWER && want.n == want.n_logits;
        size_t accepted = out.accepted_tokens;
        const float *logits = rows;
        if (turn.phase == SL_TURN_PROMPT) {
            assert_int_equal(sl_session_sync(session, want.ids, want.n, never, &out.reused_tokens, NULL), SLLM_OK);
            logits = sl_session_logits(session);
        } else if (want.n_logits == 1) {
            sl_session_truncate(session, want.keep);
            assert_int_equal(sl_session_append(session, want.ids, want.n, never, NULL), SLLM_OK);
            logits = sl_session_logits(session);
        } else {
            assert_int_equal(sl_session_rows(session, want.keep, want.ids, want.n, rows, never, NULL), SLLM_OK);
        }
        assert_int_equal(sl_turn_take(&turn, logits, NULL), SLLM_OK);
        if (noted) sl_speculator_note(s, want.n - 1, out.accepted_tokens - accepted, 0.9 + 0.1 * (double)want.n);
    }
    assert_int_equal(sl_turn_finish(&turn, NULL), SLLM_OK);
    out.rows = session->rows - computed, out.draft_rows = p->draft->rows - draft_rows;
    sl_turn_free(&turn);
    return out;
}

/* ---------------------------------------------------------------- the same answer */

/* A draft that is the model itself guesses right, but behind the end of an answer nothing is drawn. */
static void check_draft(const sllm_generate_params *p, const sllm_generation *out) {
    if (p->speculation == SLLM_SPECULATION_DRAFT && out->finish == SLLM_FINISH_LENGTH)
        assert_int_equal(out->proposed_tokens, out->accepted_tokens);
}

/* In every mode, after every prompt; gives the guesses made and those that were right. */
static void compare_ways(sllm_speculation way, sllm_session *draft, size_t *proposed, size_t *accepted) {
    int32_t ids[N_CTX];
    *proposed = *accepted = 0;
    for (int i = 0; i < N_MODES; i++) {
        sllm_session *one = tiny_session(model, N_CTX), *two = tiny_session(model, N_CTX);
        size_t n = prompt(ids, i % 2 == 0, (unsigned)i);
        sllm_generate_params p = mode(i);
        sllm_generation plain = generate(one, ids, n, &p);
        p.speculation = way, p.draft = draft;
        sllm_generation guessed = generate(two, ids, n, &p);
        same(&plain, &guessed);
        assert_int_equal(plain.proposed_tokens, 0);
        assert_true(guessed.accepted_tokens <= guessed.proposed_tokens);
        if (p.n_choices) assert_int_equal(guessed.proposed_tokens, 0);
        check_draft(&p, &guessed);
        *proposed += guessed.proposed_tokens;
        *accepted += guessed.accepted_tokens;
        /* The session holds what it would have held. */
        assert_int_equal(sllm_session_length(one), sllm_session_length(two));
        assert_memory_equal(sllm_session_ids(one), sllm_session_ids(two), sllm_session_length(one) * sizeof *ids);
        sllm_generation_free(&guessed);
        guessed = generate(two, ids, n, &p); /* and a second answer is still the same */
        same(&plain, &guessed);
        sllm_generation_free(&guessed);
        sllm_generation_free(&plain);
        sllm_session_free(one);
        sllm_session_free(two);
    }
}

static void lookup_changes_no_answer(void **state) {
    (void)state;
    size_t proposed, accepted;
    compare_ways(SLLM_SPECULATION_LOOKUP, NULL, &proposed, &accepted);
    print_message("%zu guesses, %zu right\n", proposed, accepted);
    assert_true(proposed > 15 && accepted > 0); /* how many depends on the time they took */
}

/* The model as its own draft draws with the same numbers what the model draws: every guess is right. */
static void a_perfect_draft_is_always_right(void **state) {
    (void)state;
    size_t proposed, accepted;
    sllm_session *draft = tiny_session(other, N_CTX);
    compare_ways(SLLM_SPECULATION_DRAFT, draft, &proposed, &accepted); /* how many depends on the time they took */
    sllm_session_free(draft);
}

/* With a clock by which a draft costs next to nothing, also one whose context is too small for most of the answers. */
static void cheap_drafts_guess_much(void **state) {
    (void)state;
    static const int contexts[] = {N_CTX, 96};
    int32_t ids[N_CTX];
    for (int c = 0; c < 2; c++) {
        sllm_session *draft = tiny_session(other, contexts[c]);
        size_t proposed = 0, accepted = 0, tokens = 0;
        for (int i = 0; i < N_MODES; i++) {
            sllm_session *one = tiny_session(model, N_CTX), *two = tiny_session(model, N_CTX);
            size_t n = prompt(ids, i % 2 == 0, (unsigned)i);
            sllm_generate_params p = mode(i);
            sl_speculator s;
            sllm_generation plain = generate(one, ids, n, &p);
            p.speculation = SLLM_SPECULATION_DRAFT, p.draft = draft;
            sllm_generation guessed = drive(two, ids, n, &p, 0.001, &s);
            same(&plain, &guessed);
            check_draft(&p, &guessed);
            proposed += guessed.proposed_tokens, accepted += guessed.accepted_tokens;
            tokens += plain.completion_tokens;
            sl_speculator_free(&s);
            sllm_generation_free(&guessed);
            sllm_generation_free(&plain);
            sllm_session_free(one);
            sllm_session_free(two);
        }
        print_message("%zu guesses for %zu tokens, %zu right\n", proposed, tokens, accepted);
        assert_true(accepted > (c == 0 ? tokens / 2 : 50));
        sllm_session_free(draft);
    }
}

/* A draft that has fewer tokens than the model never sees one that it lacks, and the answer goes on without it. */
static void tokens_that_the_draft_lacks(void **state) {
    (void)state;
    static const char *const path = SLLM_SOURCE_DIR "/tests/golden/data/models/smollm3-untied-relu"; /* 199 tokens */
    int32_t ids[N_CTX];
    sllm_model *small;
    assert_int_equal(sllm_model_load(path, NULL, &small, NULL), SLLM_OK);
    for (int i = 0; i < 8; i++) {
        sllm_session *one = tiny_session(model, N_CTX), *two = tiny_session(model, N_CTX);
        sllm_session *draft = tiny_session(small, 0);
        size_t n = prompt(ids, true, 1) / 4;
        sllm_generate_params p = mode(0);
        sl_speculator s;
        p.sampler.temperature = 2, p.sampler.top_p = 1, p.sampler.seed = (uint64_t)i, p.ignore_end = true;
        if (i == 0) ids[3] = 199;
        sllm_generation plain = generate(one, ids, n, &p);
        p.speculation = SLLM_SPECULATION_DRAFT, p.draft = draft;
        sllm_generation guessed = drive(two, ids, n, &p, 0.001, &s);
        same(&plain, &guessed);
        assert_true(s.stands_aside); /* of 60 tokens at such a temperature many are among the 121 others */
        if (i == 0) assert_int_equal(guessed.draft_rows, 0);
        sl_speculator_free(&s);
        sllm_generation_free(&guessed);
        sllm_generation_free(&plain);
        sllm_session_free(one);
        sllm_session_free(two);
        sllm_session_free(draft);
    }
    sllm_model_free(small);
}

/* Proposals given by hand, right and wrong in every pattern, whatever they cost. */
static void any_proposals_change_no_answer(void **state) {
    (void)state;
    int32_t ids[N_CTX];
    const sl_model *m = sl_model_of(model);
    float *rows = malloc(SL_TURN_ROWS * N_VOCAB * sizeof *rows);
    for (int i = 0; i < N_MODES; i++) {
        sllm_session *session = tiny_session(model, N_CTX);
        size_t n = prompt(ids, false, (unsigned)i);
        sllm_generate_params p = mode(i);
        sllm_generation plain = generate(session, ids, n, &p), out;
        sl_turn turn;
        unsigned random = (unsigned)i;
        size_t right = 0;
        assert_int_equal(sl_turn_begin(&turn, m, N_CTX, ids, n, &p, &out, NULL), SLLM_OK);
        while (!turn.done) {
            int32_t guess[SL_TURN_PROPOSALS];
            size_t most = sl_turn_proposable(&turn), made = out.completion_tokens;
            for (size_t k = 0; k < most; k++) {
                random = random * 1103515245u + 12345u;
                bool wrong = (random >> 16) % 6 == 0 || made + k >= plain.completion_tokens;
                guess[k] = wrong ? (int32_t)((random >> 8) % N_VOCAB) : plain.ids[made + k];
            }
            sl_turn_propose(&turn, guess, most);
            sl_want want;
            sl_turn_want(&turn, &want);
            const float *logits = rows;
            sl_cancel never = {0};
            size_t reused;
            if (want.n_logits > 1) {
                assert_int_equal(sl_session_rows(session, want.keep, want.ids, want.n, rows, never, NULL), SLLM_OK);
            } else {
                if (turn.phase == SL_TURN_PROMPT) sl_session_sync(session, want.ids, want.n, never, &reused, NULL);
                else sl_session_truncate(session, want.keep), sl_session_append(session, want.ids, want.n, never, NULL);
                logits = sl_session_logits(session);
            }
            assert_int_equal(sl_turn_take(&turn, logits, NULL), SLLM_OK);
        }
        assert_int_equal(sl_turn_finish(&turn, NULL), SLLM_OK);
        same(&plain, &out);
        right = out.accepted_tokens;
        if (!p.n_choices && plain.completion_tokens > 30) assert_true(right > plain.completion_tokens / 2);
        sl_turn_free(&turn);
        sllm_generation_free(&out);
        sllm_generation_free(&plain);
        sllm_session_free(session);
    }
    free(rows);
}

/* ---------------------------------------------------------------- what it may cost */

/* Random text: tokens drawn at a high temperature follow nothing that stood before, but its pairs recur. */
static void random_text_costs_little(void **state) {
    (void)state;
    int32_t ids[N_CTX];
    size_t extra = 0, tokens = 0;
    sllm_session *session = tiny_session(model, 512);
    for (int i = 0; i < 16; i++) {
        size_t n = prompt(ids, i % 2 == 0, (unsigned)i);
        sllm_generate_params p = mode(0);
        p.sampler.temperature = 50, p.sampler.top_p = 1, p.sampler.top_k = i < 8 ? 0 : 12;
        p.sampler.seed = (uint64_t)i, p.ignore_end = true, p.max_new_tokens = 400;
        p.speculation = SLLM_SPECULATION_LOOKUP;
        sllm_generation out = generate(session, ids, n, &p);
        assert_int_equal(out.completion_tokens, 400);
        extra += out.proposed_tokens - out.accepted_tokens;
        tokens += out.completion_tokens;
        sllm_generation_free(&out);
    }
    sllm_session_free(session);
    print_message("%zu rows beyond %zu tokens, %.2f %%\n", extra, tokens, 100.0 * (double)extra / (double)tokens);
    assert_true((double)extra <= 0.05 * (double)tokens);
}

/* The decision alone, with times given: guesses that are always wrong stay within the allowance, and ones that are
 * always right reach the most there is. */
static void decisions_follow_what_was_measured(void **state) {
    (void)state;
    int32_t ids[N_CTX];
    sllm_generation out;
    sllm_generate_params p = mode(0);
    p.speculation = SLLM_SPECULATION_LOOKUP, p.ignore_end = true, p.max_new_tokens = 100, p.sampler.seed = 0;
    for (int right = 0; right < 2; right++) {
        size_t n = prompt(ids, true, 1), proposed = 0, extra = 0, tokens = 0, last = 0;
        sl_speculator s;
        sl_turn turn;
        static const float logits[N_VOCAB];
        assert_int_equal(sl_turn_begin(&turn, sl_model_of(model), N_CTX, ids, n, &p, &out, NULL), SLLM_OK);
        assert_int_equal(sl_turn_take(&turn, logits, NULL), SLLM_OK); /* one token, so that the answer has begun */
        turn.history.data[turn.history.length - 1] = ids[n % 9];
        assert_int_equal(sl_speculator_init(&s, &p, NULL), SLLM_OK);
        for (int step = 0; step < 2000; step++) {
            assert_int_equal(sl_speculator_propose(&s, &turn, (sl_cancel){0}, NULL), SLLM_OK);
            size_t k = turn.n_proposals, accepted = right ? k : 0;
            turn.n_proposals = 0;
            sl_speculator_note(&s, k, accepted, 1 + 0.3 * (double)k);
            proposed += k, extra += k - accepted, tokens += accepted + 1, last = k;
        }
        if (right) assert_int_equal(last, SL_TURN_PROPOSALS);
        else assert_true((double)extra <= 1 + 0.03 * (double)tokens);
        assert_true(proposed > 0);
        sl_speculator_free(&s);
        sl_turn_free(&turn);
        sllm_generation_free(&out);
    }
}

/* The same for a draft, after a prompt of 200 tokens that it has to compute first: that costs as much as 10 tokens of
 * the model, and is neither the price of a guess nor a reason to stop when the answer may be long. */
static void a_prompt_is_not_the_price_of_a_guess(void **state) {
    (void)state;
    enum { PROMPT = 200, STEPS = 2000 };
    static const float logits[N_VOCAB];
    static const double price = 0.05;
    int32_t ids[PROMPT];
    sllm_session *draft = tiny_session(other, 512);
    for (int i = 0; i < PROMPT; i++) ids[i] = i * 7 % 300;
    for (int right = 0; right < 2; right++)
        for (int most = 100; most <= 400; most += 300) {
            sllm_generate_params p = mode(0);
            p.speculation = SLLM_SPECULATION_DRAFT, p.draft = draft, p.ignore_end = true, p.max_new_tokens = most;
            sllm_generation out;
            sl_speculator s;
            sl_turn turn;
            size_t proposed = 0, tokens = 0, last = 0, before = draft->rows;
            double lost = 0;
            sl_session_truncate(draft, 0);
            timed = draft, row_price = price;
            assert_int_equal(sl_turn_begin(&turn, sl_model_of(model), 1000, ids, PROMPT, &p, &out, NULL), SLLM_OK);
            assert_int_equal(sl_turn_take(&turn, logits, NULL), SLLM_OK);
            assert_int_equal(sl_speculator_init(&s, &p, NULL), SLLM_OK);
            s.clock = clock_of_rows;
            for (int step = 0; step < STEPS; step++) {
                assert_int_equal(sl_speculator_propose(&s, &turn, (sl_cancel){0}, NULL), SLLM_OK);
                size_t k = turn.n_proposals, accepted = right ? k : 0;
                turn.n_proposals = 0;
                sl_speculator_note(&s, k, accepted, 1 + 0.3 * (double)k);
                proposed += k, tokens += accepted + 1, last = k;
                lost += (double)(k - accepted);
                assert_true(s.draft_seconds == 0 || fabs(s.draft_seconds - price) < 0.01 * price);
            }
            size_t rows = draft->rows - before;
            print_message("%s, %d tokens: %zu guesses, %zu rows of the draft\n", right ? "right" : "wrong", most,
                          proposed, rows);
            if (most == 100) { /* 10 is more than 3 % of it */
                assert_true(s.stands_aside);
                assert_int_equal(proposed, 0);
                assert_int_equal(rows, 32);
            } else {
                assert_false(s.stands_aside);
                assert_true(s.draft_seconds > 0);
                assert_true(s.caught_up > 9.9 && s.caught_up <= 0.03 * most);
                assert_true(proposed > 10);
                assert_int_equal(rows, PROMPT + proposed);
                lost += price * (double)proposed;
                if (right) assert_int_equal(last, SL_TURN_PROPOSALS);
                else assert_true(lost <= 2 + 0.02 * (double)tokens);
            }
            sl_speculator_free(&s);
            sl_turn_free(&turn);
            sllm_generation_free(&out);
        }
    sllm_session_free(draft);
}

/* A draft that knows nothing of the text, in whole answers: catching up again and again stays within its share, too. */
static void a_bad_draft_costs_little(void **state) {
    (void)state;
    static const double price = 0.05;
    int32_t ids[N_CTX];
    sllm_model *stranger;
    assert_int_equal(sllm_model_load(SLLM_SOURCE_DIR "/tests/golden/data/models/mixtral", NULL, &stranger, NULL),
                     SLLM_OK);
    sllm_session *session = tiny_session(model, 512), *draft = tiny_session(stranger, 0);
    for (int i = 0; i < 8; i++) {
        size_t n = prompt(ids, false, (unsigned)i) / 2;
        sllm_generate_params p = mode(0);
        sl_speculator s;
        p.sampler.temperature = 1, p.sampler.top_p = 1, p.sampler.seed = (uint64_t)i, p.ignore_end = true;
        p.max_new_tokens = 400, p.speculation = SLLM_SPECULATION_DRAFT, p.draft = draft;
        sllm_generation out = drive(session, ids, n, &p, price, &s);
        double wrong = (double)(out.proposed_tokens - out.accepted_tokens), time = price * (double)out.draft_rows;
        print_message("%zu guesses, %zu right, %zu rows of the draft\n", out.proposed_tokens, out.accepted_tokens,
                      out.draft_rows);
        assert_int_equal(out.completion_tokens, 400);
        assert_true(out.draft_rows > n);
        /* What right guesses saved, at most one forward each, may be spent as well. */
        assert_true(wrong + time <= 2 + 0.05 * 400 + 32 * price + (double)out.accepted_tokens);
        /* Every row is counted: all but the last token have one, and every wrong guess. */
        assert_int_equal(out.rows, n - out.reused_tokens + 399 + out.proposed_tokens - out.accepted_tokens);
        sl_speculator_free(&s);
        sllm_generation_free(&out);
    }
    sllm_session_free(session);
    sllm_session_free(draft);
    sllm_model_free(stranger);
}

/* A forward that rows of others shared tells how often guesses are right, and nothing of time. */
static void rows_beside_others_are_noted(void **state) {
    (void)state;
    sllm_generate_params p = mode(0);
    sl_speculator s;
    p.speculation = SLLM_SPECULATION_LOOKUP;
    assert_int_equal(sl_speculator_init(&s, &p, NULL), SLLM_OK);
    sl_speculator_note(&s, 0, 0, 1);
    sl_speculator_note(&s, 3, 1, 0);
    assert_int_equal(s.tokens, 3);
    assert_true(s.lost == 2 && s.seconds[4] == 0 && s.seconds[1] == 1 && s.slope == 0.4);
    sl_speculator_free(&s);
}

/* ---------------------------------------------------------------- vocabularies */

/* A model that is only its tokenizer, with the tokens t0, t1, ... but for one, and padding behind n of them. */
static sl_model with_tokens(const char *path, int n, int padding, int other_id) {
    sl_buffer json = {0};
    sl_model m = {.path = (char *)path};
    sllm_error error = {0};
    sl_buffer_puts(&json, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int i = 0; i < n; i++)
        sl_buffer_printf(&json, "%s\"%s%d\":%d", i ? "," : "", i == other_id ? "u" : "t", i, i);
    for (int i = n; i < n + padding; i++) sl_buffer_printf(&json, ",\"[PAD%d]\":%d", i, i);
    sl_buffer_puts(&json, "}}}");
    sl_tokenizer *tokenizer;
    if (sl_tokenizer_from_json(json.data, json.length, NULL, 0, &tokenizer, &error)) fail_msg("%s", error.message);
    m.tokenizer = tokenizer;
    sl_buffer_free(&json);
    return m;
}

/* What pads one vocabulary, or the other lacks at its end, is no difference; a token of another text is. */
static void padding_is_no_token(void **state) {
    (void)state;
    static const struct {
        int n, padding, other_id;
        bool same;
    } drafts[] = {{40, 0, -1, true},  {40, 24, -1, true}, {30, 0, -1, true}, {30, 10, -1, true},
                  {30, 34, -1, true}, {50, 0, -1, true},  {40, 0, 17, false}, {30, 10, 29, false}, {64, 0, 39, false}};
    sl_model big = with_tokens("big", 40, 8, -1);
    for (size_t i = 0; i < sizeof drafts / sizeof *drafts; i++) {
        sl_model draft = with_tokens("draft", drafts[i].n, drafts[i].padding, drafts[i].other_id);
        sllm_error error = {0};
        sllm_status status = sl_speculate_check(&big, &draft, &error);
        assert_int_equal(status, drafts[i].same ? SLLM_OK : SLLM_ERROR_ARGUMENT);
        if (status) assert_non_null(strstr(error.message, "another vocabulary"));
        sl_tokenizer_free(draft.tokenizer);
    }
    sl_tokenizer_free(big.tokenizer);
}

/* ---------------------------------------------------------------- the look-up */

static void lookup_finds_the_longest_match(void **state) {
    (void)state;
    unsigned seed = 1;
    for (int round = 0; round < 3000; round++) {
        int32_t ids[40];
        size_t n = (size_t)round % 40 + 1, length, match, best = 1, at = 0;
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            ids[i] = (int32_t)((seed >> 16) % 3);
        }
        for (size_t end = 1; end < n; end++) {
            size_t same_tokens = 0;
            while (same_tokens < end && same_tokens < 16 && ids[end - 1 - same_tokens] == ids[n - 1 - same_tokens])
                same_tokens++;
            if (same_tokens >= best && same_tokens >= 2) best = same_tokens, at = end;
        }
        const int32_t *found = sl_speculate_lookup(ids, n, 8, &length, &match);
        if (at == 0) {
            assert_null(found);
            continue;
        }
        assert_ptr_equal(found, ids + at);
        assert_int_equal(match, best);
        assert_int_equal(length, n - at < 8 ? n - at : 8);
    }
}

/* ---------------------------------------------------------------- arguments and memory */

static void arguments_are_checked(void **state) {
    (void)state;
    const int32_t ids[] = {50, 60};
    sllm_session *session = tiny_session(model, 64);
    sllm_generation out;
    sllm_error error = {0};
    sllm_generate_params p = mode(0);
    p.speculation = (sllm_speculation)7;
    assert_int_equal(sllm_generate(session, ids, 2, &p, &out, &error), SLLM_ERROR_ARGUMENT);
    p.speculation = SLLM_SPECULATION_DRAFT;
    assert_int_equal(sllm_generate(session, ids, 2, &p, &out, &error), SLLM_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "draft"));
    p.draft = session;
    assert_int_equal(sllm_generate(session, ids, 2, &p, &out, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_draft_check(model, other, &error), SLLM_OK);
    assert_int_equal(sllm_draft_check(model, NULL, &error), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_draft_check(NULL, other, &error), SLLM_ERROR_ARGUMENT);
    sllm_session_free(session);
}

static void allocations_may_fail(void **state) {
    (void)state;
    int32_t ids[N_CTX];
    size_t n = prompt(ids, true, 1);
    bool failed = true;
    sllm_session *session = tiny_session(model, N_CTX), *draft = tiny_session(other, N_CTX);
    sllm_generate_params p = mode(5);
    sllm_generation plain = generate(session, ids, n, &p), out;
    for (int way = SLLM_SPECULATION_LOOKUP; way <= SLLM_SPECULATION_DRAFT; way++, failed = true)
        for (long i = 1; failed; i++) {
            p.speculation = (sllm_speculation)way, p.draft = draft;
            fail_alloc_arm(i, i % 2 == 0);
            sllm_status status = sllm_generate(session, ids, n, &p, &out, NULL);
            failed = fail_alloc_disarm();
            assert_true(status == SLLM_OK || (failed && status == SLLM_ERROR_MEMORY));
            if (!status) same(&plain, &out);
            sllm_generation_free(&out);
        }
    sllm_generation_free(&plain);
    sllm_session_free(session);
    sllm_session_free(draft);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_changes_no_answer),
        cmocka_unit_test(a_perfect_draft_is_always_right),
        cmocka_unit_test(cheap_drafts_guess_much),
        cmocka_unit_test(tokens_that_the_draft_lacks),
        cmocka_unit_test(any_proposals_change_no_answer),
        cmocka_unit_test(random_text_costs_little),
        cmocka_unit_test(decisions_follow_what_was_measured),
        cmocka_unit_test(a_prompt_is_not_the_price_of_a_guess),
        cmocka_unit_test(a_bad_draft_costs_little),
        cmocka_unit_test(rows_beside_others_are_noted),
        cmocka_unit_test(padding_is_no_token),
        cmocka_unit_test(lookup_finds_the_longest_match),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
