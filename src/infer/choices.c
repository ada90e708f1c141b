#include "infer/choices.h"

#include "base/error.h"
#include "infer/continuation.h"
#include "infer/logprobs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the constraint */

static void mask_choices(const sl_constraint *constraint, uint64_t *mask, int32_t n_vocab) {
    const sl_choices *c = (const sl_choices *)constraint;
    for (size_t i = 0; i < c->n; i++) {
        if (!c->alive[i] || c->ids[i].length <= c->position) continue;
        int32_t id = c->ids[i].data[c->position];
        if (id >= 0 && id < n_vocab) mask[id / 64] |= (uint64_t)1 << (id % 64);
    }
}

static bool accept_choice(sl_constraint *constraint, int32_t id) {
    sl_choices *c = (sl_choices *)constraint;
    bool any = false;
    for (size_t i = 0; i < c->n; i++) {
        c->alive[i] = c->alive[i] && c->ids[i].length > c->position && c->ids[i].data[c->position] == id;
        any = any || c->alive[i];
    }
    c->position++;
    return any;
}

static bool choice_is_complete(const sl_constraint *constraint) {
    const sl_choices *c = (const sl_choices *)constraint;
    for (size_t i = 0; i < c->n; i++)
        if (c->alive[i] && c->ids[i].length == c->position) return true;
    return false;
}

static void free_constraint(sl_constraint *constraint) { sl_choices_free((sl_choices *)constraint); }

static const sl_constraint_ops choices_ops = {mask_choices, accept_choice, choice_is_complete, free_constraint};

/* ---------------------------------------------------------------- making */

static int compare_ids(const sl_ids *a, const sl_ids *b) {
    size_t n = a->length < b->length ? a->length : b->length;
    for (size_t i = 0; i < n; i++)
        if (a->data[i] != b->data[i]) return a->data[i] < b->data[i] ? -1 : 1;
    return (a->length > b->length) - (a->length < b->length);
}

static int by_tokens(const void *a, const void *b, void *user) {
    const sl_ids *ids = user;
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    int order = compare_ids(&ids[x], &ids[y]);
    return order ? order : (x > y) - (x < y);
}

static sllm_status encode_choice(const sl_tokenizer *tokenizer, const int32_t *prompt, size_t n_prompt,
                                 const char *text, size_t index, sl_ids *ids, sllm_error *error) {
    bool exact;
    if (!text || !*text) return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: choice %zu is empty", index + 1);
    sllm_status status = sl_encode_continuation(tokenizer, prompt, n_prompt, text, strlen(text), ids, &exact, error);
    if (!status && (!exact || ids->length == 0))
        return sl_fail(error, SLLM_ERROR_ARGUMENT,
                       "choices: choice %zu, \"%.100s\", cannot be written exactly in this model's tokens", index + 1,
                       text);
    return status;
}

sllm_status sl_choices_new(const sl_tokenizer *tokenizer, const int32_t *prompt, size_t n_prompt,
                           const char *const *texts, size_t n, sl_choices **choices, sllm_error *error) {
    *choices = NULL;
    if (!texts || n > SL_CHOICES_MAX)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: 1 to %d strings are needed, %zu are given", SL_CHOICES_MAX,
                       texts ? n : 0);
    sl_choices *c = calloc(1, sizeof *c);
    if (!c) return sl_fail_memory(error, "preparing choices", sizeof *c);
    sllm_status status = SLLM_OK;
    c->constraint.ops = &choices_ops;
    c->n = n;
    c->ids = calloc(n, sizeof *c->ids);
    c->order = calloc(n, sizeof *c->order);
    c->log_scores = calloc(n, sizeof *c->log_scores);
    c->probabilities = calloc(n, sizeof *c->probabilities);
    c->alive = calloc(n, sizeof *c->alive);
    if (!c->ids || !c->order || !c->log_scores || !c->probabilities || !c->alive)
        status = sl_fail_memory(error, "preparing choices", n * (sizeof *c->ids + 3 * sizeof(double)));
    for (size_t i = 0; i < n && !status; i++) {
        c->order[i] = i;
        c->alive[i] = true;
        status = encode_choice(tokenizer, prompt, n_prompt, texts[i], i, &c->ids[i], error);
    }
    if (!status) qsort_r(c->order, n, sizeof *c->order, by_tokens, c->ids);
    for (size_t i = 1; i < n && !status; i++)
        if (compare_ids(&c->ids[c->order[i - 1]], &c->ids[c->order[i]]) == 0)
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: choices %zu and %zu are the same, \"%.100s\"",
                             c->order[i - 1] + 1, c->order[i] + 1, texts[c->order[i]]);
    if (status) {
        sl_choices_free(c);
        return status;
    }
    *choices = c;
    return SLLM_OK;
}

void sl_choices_free(sl_choices *choices) {
    if (!choices) return;
    for (size_t i = 0; choices->ids && i < choices->n; i++) free(choices->ids[i].data);
    free(choices->ids);
    free(choices->order);
    free(choices->log_scores);
    free(choices->probabilities);
    free(choices->alive);
    free(choices);
}

size_t sl_choices_longest(const sl_choices *choices) {
    size_t longest = 0;
    for (size_t i = 0; i < choices->n; i++)
        if (choices->ids[i].length > longest) longest = choices->ids[i].length;
    return longest;
}

/* ---------------------------------------------------------------- scoring */

/* Tokens that two choices begin with alike. */
static size_t shared_tokens(const sl_ids *a, const sl_ids *b) {
    size_t n = 0;
    while (n < a->length && n < b->length && a->data[n] == b->data[n]) n++;
    return n;
}

static const sl_ids *sorted(const sl_choices *c, size_t rank) { return &c->ids[c->order[rank]]; }

/* log(1 - the probability of the tokens that follow `depth` shared ones in ranks [first, end)), summed over the others
 * so that nothing cancels. The ranks are sorted, so each next token stands together and ids ascend. */
static double log_rest(const sl_choices *c, size_t first, size_t end, size_t depth, const float *logits,
                       int32_t n_vocab, double log_sum) {
    double rest = 0;
    size_t rank = first;
    for (int32_t id = 0; id < n_vocab; id++) {
        while (rank < end && sorted(c, rank)->data[depth] < id) rank++;
        if (rank < end && sorted(c, rank)->data[depth] == id) continue;
        rest += exp((double)logits[id] - log_sum);
    }
    return log(rest);
}

/* Tokens of a rank behind which logits are asked for: behind the last one only when a longer choice goes on. */
static size_t nodes(const sl_choices *c, size_t rank) {
    const sl_ids *ids = sorted(c, rank);
    bool goes_on = rank + 1 < c->n && shared_tokens(ids, sorted(c, rank + 1)) == ids->length;
    return ids->length + (goes_on ? 1 : 0);
}

/* logits [n_vocab] are those behind the first `depth` tokens of rank `first`: adds their part to every choice that goes
 * through there, and the end factor to the one that ends there. */
static sllm_status score_node(sl_choices *c, const float *logits, int32_t n_vocab, size_t first, size_t depth,
                              sllm_error *error) {
    double log_sum = sl_log_sum_exp(logits, (size_t)n_vocab);
    if (!isfinite(log_sum))
        return sl_fail(error, SLLM_ERROR_FORMAT,
                       "the logits are not finite: the model's weights or input are damaged");
    size_t end = first + 1;
    while (end < c->n && shared_tokens(sorted(c, first), sorted(c, end)) >= depth) end++;
    size_t begin = first;
    if (sorted(c, first)->length == depth) {
        begin++;
        c->log_scores[c->order[first]] += log_rest(c, begin, end, depth, logits, n_vocab, log_sum);
    }
    for (size_t rank = begin; rank < end; rank++)
        c->log_scores[c->order[rank]] += (double)logits[sorted(c, rank)->data[depth]] - log_sum;
    return SLLM_OK;
}

bool sl_choices_scored(const sl_choices *c) { return c->rank == c->n; }

void sl_choices_want(const sl_choices *c, size_t most, size_t *keep, const int32_t **ids, size_t *n) {
    size_t left = nodes(c, c->rank) - c->depth;
    *keep = c->depth - 1;
    *ids = sorted(c, c->rank)->data + *keep;
    *n = left < most ? left : most;
}

sllm_status sl_choices_take(sl_choices *c, const float *logits, size_t n, int32_t n_vocab, sllm_error *error) {
    for (size_t i = 0; i < n; i++, c->depth++) {
        sllm_status status = score_node(c, logits + i * (size_t)n_vocab, n_vocab, c->rank, c->depth, error);
        if (status) return status;
    }
    /* The node behind the tokens that a rank shares with the one before it was scored with that; only nodes beyond it
     * are new, and a rank may have none. */
    while (c->rank < c->n && c->depth >= nodes(c, c->rank)) {
        if (++c->rank < c->n) c->depth = shared_tokens(sorted(c, c->rank - 1), sorted(c, c->rank)) + 1;
    }
    return SLLM_OK;
}

sllm_status sl_choices_normalise(sl_choices *c, sllm_error *error) {
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < c->n; i++) max = fmax(max, c->log_scores[i]);
    if (max == -INFINITY)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "choices: the model gives none of them any probability");
    for (size_t i = 0; i < c->n; i++) sum += c->probabilities[i] = exp(c->log_scores[i] - max);
    for (size_t i = 0; i < c->n; i++) c->probabilities[i] /= sum;
    return SLLM_OK;
}

size_t sl_choices_pick(sl_choices *c, double temperature, sl_rng *rng) {
    size_t best = 0, picked = 0;
    for (size_t i = 1; i < c->n; i++)
        if (c->log_scores[i] > c->log_scores[best]) best = i;
    picked = best;
    if (temperature > 0) {
        double total = 0;
        for (size_t i = 0; i < c->n; i++) total += exp((c->log_scores[i] - c->log_scores[best]) / temperature);
        double left = sl_rng_uniform(rng) * total;
        for (size_t i = 0; i < c->n; i++) {
            double weight = exp((c->log_scores[i] - c->log_scores[best]) / temperature);
            left -= weight;
            if (weight > 0 && left < 0) {
                picked = i;
                break;
            }
        }
    }
    for (size_t i = 0; i < c->n; i++) c->alive[i] = i == picked;
    c->position = 0;
    return picked;
}
