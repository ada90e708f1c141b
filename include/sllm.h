/* sllm: small language models, end to end.
 *
 * The public interface of libsllm: load a model, turn text into tokens and back, render its chat template, keep a
 * timeline of tokens (a session), and generate. Handles are opaque. Every function that can fail returns an sllm_status
 * and fills the caller's sllm_error when one is given; on failure, output parameters are left NULL or zero unless a
 * comment says otherwise. The library never prints, exits, aborts, reads the environment or keeps global state (the
 * table of kernels, chosen once from CPUID, excepted).
 *
 * NULL: a function given NULL for a pointer that it needs returns SLLM_ERROR_ARGUMENT; one that returns no status gives
 * 0, NULL, -1 or false, _get_info gives empty texts, and _init and _free and their like do nothing. Pointers that may
 * be NULL otherwise: `error` everywhere, `params` (the defaults hold), an array of no items, and what a comment names.
 *
 * Errors: *error is for reading after a failure; after SLLM_OK what it holds means nothing.
 *
 * Threads: a model is immutable after loading and may be shared by any number of threads. A session, a sampler or a
 * stream belongs to one thread at a time. Two threads may use two sessions on one model at once.
 *
 * Strings are UTF-8 with an explicit length where they may hold NUL bytes; `const char *` without a length is
 * NUL-terminated. Pointers returned by an accessor are borrowed from the handle and live as long as it does.
 */
#ifndef SLLM_H
#define SLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SLLM_API
#else
#define SLLM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- status and errors */

typedef enum sllm_status {
    SLLM_OK = 0,
    SLLM_ERROR_ARGUMENT,    /* a parameter is out of range or contradicts another */
    SLLM_ERROR_NOT_FOUND,   /* no such file, model, tensor or key */
    SLLM_ERROR_IO,          /* the operating system refused: read, write, map, permission, disk full */
    SLLM_ERROR_FORMAT,      /* a file or text is damaged or breaks its format */
    SLLM_ERROR_UNSUPPORTED, /* well formed, but not something this build can do */
    SLLM_ERROR_MEMORY,      /* an allocation failed */
    SLLM_ERROR_CONTEXT,     /* the tokens do not fit the context */
    SLLM_ERROR_TEMPLATE,    /* the chat template failed or refused its input */
    SLLM_ERROR_CANCELLED,   /* a callback asked to stop, or an interrupt arrived */
    SLLM_ERROR_NETWORK      /* a download failed; what arrived is kept for resuming */
} sllm_status;

/* Owned by the caller. `message` is one line that names the thing, the place and what would work. For
 * SLLM_ERROR_TEMPLATE raised by the template itself (raise_exception) `raised` is true and `message` is exactly the
 * template's text. */
typedef struct sllm_error {
    sllm_status status;
    bool raised;
    int line; /* line in a template or text file, 0 when none applies */
    char message[1024];
} sllm_error;

SLLM_API const char *sllm_status_name(sllm_status status);
SLLM_API const char *sllm_version(void);

/* Frees memory that a function of this library handed over with "the caller frees". NULL is allowed. */
SLLM_API void sllm_free(void *memory);

/* ---------------------------------------------------------------- machine */

typedef struct sllm_machine {
    int n_cpus;              /* logical processors that this process may use (affinity and cgroup quota) */
    uint64_t memory_total;   /* bytes */
    uint64_t memory_free;    /* bytes that can be had without swapping */
    char cpu[96];            /* model name */
    char features[256];      /* instruction sets found, separated by blanks */
    char kernels[16];        /* instruction set in use: "scalar", "avx2", "avx512", "neon", "neon_dot" */
} sllm_machine;

SLLM_API void sllm_machine_info(sllm_machine *machine);

/* Chooses the kernels: "auto", "scalar"; on x86-64 "avx2", "avx512"; on aarch64 "neon", "neon_dot" (there "auto" takes
 * "scalar": these have only run under emulation so far). Holds from the next operation on, for every model: call it
 * while nothing is being computed, or one answer mixes the roundings of two. SLLM_ERROR_UNSUPPORTED when this processor
 * lacks them. */
SLLM_API sllm_status sllm_kernels_force(const char *name, sllm_error *error);
/* The names that this build knows, best first: index 0, 1, ... until NULL. *can_run (may be NULL): does this processor
 * have the instructions? */
SLLM_API const char *sllm_kernels_known(int index, bool *can_run);

/* What this machine can do at most, measured with the kernels in use: the bounds that speeds are held against. */
typedef struct sllm_machine_speed {
    int n_threads;
    double read_1, read_n; /* bytes of memory read a second, by one thread and by n_threads */
    double int8_1, int8_n; /* int8 multiply-adds a second, in registers */
    double f32_1, f32_n;   /* f32 multiply-adds a second, in registers */
    double sync_s;         /* seconds to hand the threads a job and have it back */
} sllm_machine_speed;

/* Takes about 0.3 s on n_threads (0: all that the process may use; 1..512), which it makes and ends. A machine that is
 * busy with something else gives lower figures. */
SLLM_API sllm_status sllm_machine_measure(int n_threads, sllm_machine_speed *speed, sllm_error *error);

/* ---------------------------------------------------------------- model */

typedef struct sllm_model sllm_model;

/* bitsandbytes' types of four bits, to which a model can be quantised while it is loaded. */
typedef enum sllm_four_bit { SLLM_AS_STORED, SLLM_NF4, SLLM_FP4 } sllm_four_bit;

typedef struct sllm_model_params {
    int n_threads;   /* threads for one forward; 0: all that the process may use. 1..512 */
    bool exact;      /* f32 activations and sums, as the reference data; false: activations rounded to int8 per block
                        for quantised weights (float weights keep float activations either way) */
    bool vocab_only; /* load configuration, tokenizer and template only; such a model cannot make sessions */
    sllm_four_bit load_in_4bit; /* float matrices of the blocks become NF4 or FP4 while loading, as bitsandbytes does: blocks
                        of 64; the embedding, the output matrix, norms and what is quantised already stay as they are */
    bool double_quant; /* with load_in_4bit: the blocks' largest values in 8 bits (their values, not their memory) */
    bool (*on_progress)(void *user, double fraction); /* may be NULL; false cancels */
    void *user;
} sllm_model_params;

SLLM_API void sllm_model_params_init(sllm_model_params *params);

/* Loads a GGUF file (one file or the first part of a split), a Hugging Face checkpoint folder, or (vocab_only) a
 * tokenizer.json[.gz]. Names of the catalogue are resolved by sllm_hub_resolve (sllm_hub.h). `params` NULL: defaults.
 * Weights stay mapped from the file; it must not be changed while the model lives. */
SLLM_API sllm_status sllm_model_load(const char *path, const sllm_model_params *params, sllm_model **model,
                                     sllm_error *error);
SLLM_API void sllm_model_free(sllm_model *model); /* all its sessions must be freed first */

typedef struct sllm_model_info {
    const char *path, *format;             /* format: "gguf", "safetensors", "tokenizer" */
    const char *name, *family, *licence;   /* "" when the file does not say */
    const char *element_type;              /* the type holding most of the weights, e.g. "Q4_1" */
    int64_t n_params;
    uint64_t file_bytes, tensor_bytes;
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_experts, n_experts_used;
    int n_vocab, n_ctx_train;              /* n_ctx_train: positions the model was trained for */
    int sliding_window;                    /* 0: none */
    bool exact, has_template, can_infill;
} sllm_model_info;

SLLM_API void sllm_model_get_info(const sllm_model *model, sllm_model_info *info);

/* What tells models apart whatever their files are called: SHA-256 in hexadecimal of configuration, vocabulary, chat
 * template, and of each tensor its name, type, shape and samples of its data (not all of it, which would take long). */
SLLM_API sllm_status sllm_model_fingerprint(const sllm_model *model, char hex[65], sllm_error *error);

/* Everything `sllm show` prints, as a JSON object (architecture, tensors by type, context, special tokens, template,
 * licence, generation defaults). The caller frees *json. */
SLLM_API sllm_status sllm_model_describe(const sllm_model *model, char **json, sllm_error *error);

/* How keys and values of past positions are kept. AUTO: f32 in exact arithmetic and for models stored in f32, else f16.
 * q8_0 and q4_0 take about half and a quarter of f16's memory, and need heads whose size 32 divides. */
typedef enum sllm_kv_type { SLLM_KV_AUTO, SLLM_KV_F32, SLLM_KV_F16, SLLM_KV_Q8_0, SLLM_KV_Q4_0 } sllm_kv_type;

/* What a plan is made for. Zeroes are the defaults. */
typedef struct sllm_plan_params {
    const char *type;     /* NULL: the file's own types; otherwise as if the matrices were quantised to that type
                             ("q4_k_m", "q8_0", "f16", ...) */
    int n_ctx;            /* 0: min(4096, n_ctx_train) */
    int n_batch;          /* sequences held at once; 0: 1. More than 1 are planned as a batch (sllm_batch) */
    int n_prompt;         /* tokens of the prompt whose time is told; 0: 512, or what fits */
    int n_threads;        /* 0: all that the process may use */
    bool exact;
    sllm_kv_type kv_type;
    const sllm_machine_speed *speed; /* what the machine can do; NULL: no times */
} sllm_plan_params;

SLLM_API void sllm_plan_params_init(sllm_plan_params *params);

/* Memory and speed before loading. total_bytes is the sum of the five above it: what a process takes once the context
 * is full and all weights have been used, its program and libraries included. */
typedef struct sllm_plan {
    uint64_t weights_bytes;    /* in the form that is multiplied; of tables that are only looked up, a part */
    uint64_t kv_bytes;         /* keys and values of n_batch full contexts */
    uint64_t work_bytes;       /* scratch and logits; of a batch also its samplers */
    uint64_t vocabulary_bytes; /* estimated from the number of tokens */
    uint64_t program_bytes;
    uint64_t total_bytes;
    uint64_t memory_free, memory_total;
    int n_ctx, n_ctx_train, n_batch, n_prompt;
    bool fits;
    uint64_t token_bytes;      /* weights, keys and values read for one token (of each sequence) after n_prompt */
    /* Estimates from the machine's measured figures; 0 without them. Generation is of all sequences together. */
    double tokens_per_second, prompt_tokens_per_second;
    double time_to_first_token_s; /* of a prompt of n_prompt tokens, the model being loaded and its weights laid out */
} sllm_plan;

/* Reads headers only. SLLM_ERROR_CONTEXT when n_ctx is more than the model was trained for, SLLM_ERROR_ARGUMENT when
 * its heads cannot be kept as kv_type. */
SLLM_API sllm_status sllm_model_plan(const char *path, const sllm_plan_params *params, sllm_plan *plan,
                                     sllm_error *error);
/* The same for a model that is loaded; `exact` and n_threads are the model's, `type` must be NULL. */
SLLM_API sllm_status sllm_model_plan_loaded(const sllm_model *model, const sllm_plan_params *params, sllm_plan *plan,
                                            sllm_error *error);
/* The names sllm_model_plan takes for `type`, NULL-terminated. */
SLLM_API const char *const *sllm_plan_types(void);

/* ---------------------------------------------------------------- tokenizer */

typedef struct sllm_tokens {
    int32_t *ids;
    size_t n;
} sllm_tokens;
SLLM_API void sllm_tokens_free(sllm_tokens *tokens); /* frees ids, zeroes the struct */

enum {
    SLLM_TOKENIZE_SPECIAL = 1, /* special tokens written in the text become those tokens; without it they stay text */
    SLLM_TOKENIZE_ADD = 2      /* add the prefix and suffix (BOS, EOS, [CLS]...) that the vocabulary asks for */
};

/* text: [length] bytes; invalid UTF-8 is read as U+FFFD. Frees nothing in *tokens; the caller frees it afterwards. */
SLLM_API sllm_status sllm_tokenize(const sllm_model *model, const char *text, size_t length, unsigned flags,
                                   sllm_tokens *tokens, sllm_error *error);

/* The whole text of ids [n]; incomplete UTF-8 becomes U+FFFD. The caller frees *text, which is NUL-terminated beyond
 * *length. SLLM_ERROR_ARGUMENT for an id outside the vocabulary. */
SLLM_API sllm_status sllm_detokenize(const sllm_model *model, const int32_t *ids, size_t n, bool skip_special,
                                     char **text, size_t *length, sllm_error *error);

/* A streaming detokenizer hands out whole characters only; the concatenation of what it hands out, with the rest that
 * _finish gives, equals sllm_detokenize. */
typedef struct sllm_stream sllm_stream;
SLLM_API sllm_status sllm_stream_new(const sllm_model *model, bool skip_special, sllm_stream **stream,
                                     sllm_error *error);
SLLM_API sllm_status sllm_stream_push(sllm_stream *stream, int32_t id, const char **text, size_t *length,
                                      sllm_error *error); /* *text is valid until the next call */
SLLM_API sllm_status sllm_stream_finish(sllm_stream *stream, const char **text, size_t *length, sllm_error *error);
SLLM_API void sllm_stream_free(sllm_stream *stream);

/* The token's text as it stands in the vocabulary (borrowed); NULL for an id outside it. */
SLLM_API const char *sllm_token_text(const sllm_model *model, int32_t id);
/* The id of a token written so, or -1. */
SLLM_API int32_t sllm_token_id(const sllm_model *model, const char *text);
SLLM_API int32_t sllm_token_bos(const sllm_model *model);          /* -1: none */
SLLM_API bool sllm_token_ends(const sllm_model *model, int32_t id); /* true for end-of-sequence and end-of-turn ids */

/* ---------------------------------------------------------------- chat template */

/* Renders the model's chat template. `messages_json`: an array in the OpenAI message form. `options_json` may be NULL;
 * an object that may hold "tools", "documents" (arrays), "add_generation_prompt" (default true),
 * "continue_final_message", "kwargs" (an object of template variables) and "now" ("YYYY-MM-DDTHH:MM:SS", default the
 * local clock). A model without a template is SLLM_ERROR_NOT_FOUND; no other template is ever substituted. */
SLLM_API sllm_status sllm_template_render(const sllm_model *model, const char *messages_json, const char *options_json,
                                          char **text, size_t *length, sllm_error *error);

/* The same for a template given as text; bos and eos become the variables bos_token and eos_token unless kwargs holds
 * them. */
SLLM_API sllm_status sllm_template_render_text(const char *source, size_t source_length, const char *messages_json,
                                               const char *options_json, char **text, size_t *length,
                                               sllm_error *error);

/* ---------------------------------------------------------------- session */

typedef struct sllm_session sllm_session;

typedef struct sllm_session_params {
    int n_ctx; /* positions to hold; 0: min(4096, n_ctx_train). More than n_ctx_train is an error */
    sllm_kv_type kv_type; /* SLLM_ERROR_ARGUMENT when the model's heads cannot be kept so */
} sllm_session_params;

SLLM_API sllm_status sllm_session_new(sllm_model *model, const sllm_session_params *params, sllm_session **session,
                                      sllm_error *error);
SLLM_API void sllm_session_free(sllm_session *session);

/* Makes the session hold exactly ids [n], n >= 1: keeps the longest common prefix, drops what differs, computes the
 * rest. *n_reused (may be NULL) is the number of positions not recomputed. SLLM_ERROR_CONTEXT when n > n_ctx, before
 * anything changes. After another failure the session holds the prefix that was computed. Logits of the last position
 * are then available. */
SLLM_API sllm_status sllm_session_sync(sllm_session *session, const int32_t *ids, size_t n, size_t *n_reused,
                                       sllm_error *error);
/* Appends ids [n] to what the session holds. */
SLLM_API sllm_status sllm_session_append(sllm_session *session, const int32_t *ids, size_t n, sllm_error *error);
/* Keeps the first n positions. n > length is SLLM_ERROR_ARGUMENT. */
SLLM_API sllm_status sllm_session_truncate(sllm_session *session, size_t n, sllm_error *error);
SLLM_API size_t sllm_session_length(const sllm_session *session);
SLLM_API size_t sllm_session_capacity(const sllm_session *session); /* n_ctx */
SLLM_API const int32_t *sllm_session_ids(const sllm_session *session);
/* Logits [n_vocab] of the last position, borrowed until the session changes; NULL when there are none. */
SLLM_API const float *sllm_session_logits(const sllm_session *session);
/* Logits of every position of ids [n], computed afresh into logits [n, n_vocab]; the session then holds ids. */
SLLM_API sllm_status sllm_session_all_logits(sllm_session *session, const int32_t *ids, size_t n, float *logits,
                                             sllm_error *error);

/* ---------------------------------------------------------------- sampling */

typedef struct sllm_logit_bias {
    int32_t id;
    float bias; /* added to the logit; -INFINITY forbids the token */
} sllm_logit_bias;

/* The chain, in order: logit bias, repetition / presence / frequency penalties, DRY, temperature 0 -> argmax, top_k,
 * typical_p, top_p, min_p, temperature, draw. */
typedef struct sllm_sampler_params {
    float temperature;        /* >= 0; 0 is greedy. Default 0.7 */
    int top_k;                /* >= 0; 0: off. Default 0 */
    float top_p;              /* (0, 1]; 1: off. Default 0.9 */
    float min_p;              /* [0, 1); 0: off */
    float typical_p;          /* (0, 1]; 1: off (Meister et al. 2022, arXiv 2202.00666) */
    float repetition_penalty; /* > 0; 1: off (Keskar et al. 2019, arXiv 1909.05858) */
    float presence_penalty, frequency_penalty; /* [-2, 2] as in the OpenAI interface */
    int penalty_last_n;       /* tokens looked back at; -1: all, 0: off. Default 64 */
    float dry_multiplier;     /* >= 0; 0: off. "Don't repeat yourself": penalises multiplier * base^(match - allowed) */
    float dry_base;           /* >= 1. Default 1.75 */
    int dry_allowed_length;   /* 0..1000. Default 2 */
    int dry_last_n;           /* -1: the whole context. Default -1 */
    uint64_t seed;            /* the same seed, prompt and parameters give the same tokens */
    const sllm_logit_bias *bias;
    size_t n_bias;
} sllm_sampler_params;

SLLM_API void sllm_sampler_params_init(sllm_sampler_params *params);
/* SLLM_ERROR_ARGUMENT naming the first parameter that is out of range (NaN included). */
SLLM_API sllm_status sllm_sampler_params_check(const sllm_sampler_params *params, int n_vocab, sllm_error *error);

typedef struct sllm_sampler sllm_sampler;
SLLM_API sllm_status sllm_sampler_new(const sllm_model *model, const sllm_sampler_params *params,
                                      sllm_sampler **sampler, sllm_error *error);
SLLM_API void sllm_sampler_free(sllm_sampler *sampler);
/* Draws from logits [n_vocab]; history [n_history] are the tokens so far, prompt included (for the penalties).
 * SLLM_ERROR_ARGUMENT when no token is left, SLLM_ERROR_FORMAT when the logits hold NaN or +infinity. */
SLLM_API sllm_status sllm_sampler_draw(sllm_sampler *sampler, const float *logits, const int32_t *history,
                                       size_t n_history, int32_t *id, sllm_error *error);

/* ---------------------------------------------------------------- generation */

typedef enum sllm_finish {
    SLLM_FINISH_STOP,   /* an end token, a stop string, or a complete choice */
    SLLM_FINISH_LENGTH, /* max_new_tokens, or the context is full */
    SLLM_FINISH_CANCELLED
} sllm_finish;
SLLM_API const char *sllm_finish_name(sllm_finish finish); /* "stop", "length", "cancelled" */

typedef enum sllm_overflow {
    SLLM_OVERFLOW_ERROR, /* a prompt that leaves no room for one token is SLLM_ERROR_CONTEXT; a full context ends the
                            answer with SLLM_FINISH_LENGTH */
    SLLM_OVERFLOW_TRUNCATE_START, /* drop the oldest prompt tokens (not the first n_keep) so that the prompt fits, with
                                     room for max_new_tokens but for no more than half of the context */
    SLLM_OVERFLOW_SHIFT  /* the same for a prompt that leaves no room for one token; and when the context fills while
                            generating, drop the older half and go on */
} sllm_overflow;

typedef enum sllm_reasoning { SLLM_REASONING_SHOW, SLLM_REASONING_HIDE } sllm_reasoning;

typedef struct sllm_alternative {
    int32_t id;
    float logprob; /* natural logarithm, of the model's distribution before the sampler's chain */
} sllm_alternative;

/* One step of the stream. */
typedef struct sllm_event {
    const char *text;   /* whole characters, never part of a stop string; may be empty; valid during the callback */
    size_t length;
    bool reasoning;     /* the text lies between the model's reasoning marks */
    int32_t id;         /* the token that caused the event; -1 for the final flush, and for the second event of a token
                           that ends the reasoning and begins the answer */
    float logprob;      /* of id; 0 unless params.n_logprobs >= 0 */
    const sllm_alternative *alternatives; /* [n_alternatives] most likely first */
    size_t n_alternatives;
} sllm_event;

/* Guessing the next tokens so that several are computed at once, which is faster when the guesses are right. The answer
 * is the same bytes as without, be it greedy or sampled: each token is drawn from the model's own logits with the same
 * random numbers, and a guess only saves computing its logits apart. How many are guessed adapts to what was measured.
 * A text that cannot be guessed costs at most, in the time of a token: by look-up 1, and 3 for every 100 tokens; with a
 * draft 2, and 2 for every 100 tokens, and 3 more for every 100 of max_new_tokens for what the draft computes of the
 * prompt. Where that is reckoned to be too little for the prompt, the draft is not used; finding this out (32 tokens of
 * the prompt), and a draft's first guess, come on top. rows and draft_rows of the generation tell what was computed.
 * With choices guessing is not used; in a batch look-up alone is, and only while one generation is under way. */
typedef enum sllm_speculation {
    SLLM_SPECULATION_OFF,
    SLLM_SPECULATION_LOOKUP, /* what followed when the last tokens stood so before (prompt look-up, Saxena 2023) */
    SLLM_SPECULATION_DRAFT   /* what a smaller model draws (after Leviathan et al. 2023, arXiv 2211.17192) */
} sllm_speculation;

typedef struct sllm_generate_params {
    sllm_sampler_params sampler;
    int max_new_tokens;          /* >= 0. Default 200 */
    const char *const *stop;     /* [n_stop] strings that end the answer and are not part of it; one that is exactly
                                    a special token's text ends it when that token is drawn */
    size_t n_stop;
    const char *const *choices;  /* [n_choices] the answer is exactly one of these; probabilities come with the result.
                                    A choice's probability is that of its tokens, and of no longer choice going on from
                                    them, over the sum of all choices. Of the sampler only temperature and seed apply */
    size_t n_choices;
    int n_logprobs;              /* -1: none (default); 0: the token's own; k: the k most likely beside it. <= 100 */
    bool ignore_end;             /* go on past end tokens */
    sllm_reasoning reasoning;    /* HIDE: reasoning is generated, counted, and kept out of `text` and events */
    sllm_overflow overflow;
    int n_keep;                  /* for TRUNCATE_START and SHIFT: leading tokens to keep, at most half of the context */
    sllm_speculation speculation;
    sllm_session *draft;         /* for SLLM_SPECULATION_DRAFT: a session of the small model, which is used as the
                                    answer is made; where its context ends, or a token comes that it lacks, so does the
                                    guessing. See sllm_draft_check */
    bool (*on_event)(void *user, const sllm_event *event); /* may be NULL; false ends with SLLM_FINISH_CANCELLED */
    bool (*is_cancelled)(void *user); /* may be NULL; asked between forward passes, prompt chunks included */
    void *user;
} sllm_generate_params;

SLLM_API void sllm_generate_params_init(sllm_generate_params *params);
/* Whether `draft` has the vocabulary of `model`: SLLM_ERROR_ARGUMENT naming the first token that both have and that
 * differs. Entries that only pad a matrix, and those that one lacks at the end, do not count. With another vocabulary
 * the answer would be the same, but no guess right. */
SLLM_API sllm_status sllm_draft_check(const sllm_model *model, const sllm_model *draft, sllm_error *error);

typedef struct sllm_generation {
    char *text;          /* the answer, stop strings removed, NUL-terminated; reasoning excluded */
    size_t text_length;
    char *reasoning;     /* what lay between the reasoning marks, NULL when there was none */
    int32_t *ids;        /* [completion_tokens] every token generated, end token excluded */
    float *logprobs;     /* [completion_tokens] when n_logprobs >= 0, else NULL */
    sllm_alternative *alternatives; /* [completion_tokens, n_logprobs] when n_logprobs > 0; id -1 fills */
    double *choice_probabilities;   /* [n_choices] sum 1, else NULL */
    int choice;          /* index of the choice made, -1 */
    sllm_finish finish;
    const char *stop;    /* the stop string that ended it (borrowed from params), NULL otherwise */
    size_t prompt_tokens, completion_tokens, reused_tokens, dropped_tokens;
    size_t proposed_tokens, accepted_tokens; /* speculation: computed ahead of being drawn, and of these drawn */
    size_t rows, draft_rows; /* tokens computed for it in the model and in the draft, prompts included, reuse not */
    double time_to_first_token_s; /* from the call to the first token drawn */
    double prompt_tokens_per_second, tokens_per_second; /* tokens_per_second: of the tokens after the first */
} sllm_generation;

/* Generates after the prompt ids [n], n >= 1. The session reuses what it holds, and afterwards holds the prompt and the
 * answer but for a last token after which nothing was computed, so that a next turn that begins with them is quick.
 * Prompt and answer together never pass n_ctx unless the policy is SHIFT. A cancelled generation returns SLLM_OK with
 * finish SLLM_FINISH_CANCELLED and what was made so far. The caller frees *out with sllm_generation_free. */
SLLM_API sllm_status sllm_generate(sllm_session *session, const int32_t *ids, size_t n,
                                   const sllm_generate_params *params, sllm_generation *out, sllm_error *error);
SLLM_API void sllm_generation_free(sllm_generation *generation);

/* ---------------------------------------------------------------- many at once */

/* A batch computes many generations together, which is faster than one after the other: each step reads the weights
 * once for all of them. Every answer is the same bytes as sllm_generate's in a session of n_ctx, whatever else is in
 * the batch, in whatever order it came, with and without the prefix cache. A request that fails or is cancelled ends
 * alone.
 *
 * Threads: one thread at a time owns the batch; it calls sllm_batch_step and _free, and in these calls all callbacks
 * run, `done` and those of the parameters. sllm_batch_add, _cancel and _get_stats may be called from any thread at any
 * time before _free, and from the callbacks. */
typedef struct sllm_batch sllm_batch;

typedef struct sllm_batch_params {
    int n_ctx;            /* positions of one generation, prompt and answer; 0: min(4096, n_ctx_train) */
    int n_sequences;      /* generations computed at once at most, 1..1024; 0: 8 */
    int n_rows;           /* tokens that one step computes at most, about: a long prompt is computed in pieces between
                             the tokens of the others. 16..8192; 0: 256 */
    sllm_kv_type kv_type;
    uint64_t kv_bytes;    /* memory for keys and values, which also bounds how many generations are computed at once;
                             one context is had in any case, and more than is free is an error. 0: n_sequences
                             contexts, but at most half of the free memory */
    bool no_prefix_cache; /* compute every prompt whole, though another began with the same tokens */
    bool (*is_cancelled)(void *user); /* may be NULL; asked in the middle of a step, which then ends at once */
    void *user;
} sllm_batch_params;

SLLM_API void sllm_batch_params_init(sllm_batch_params *params);

/* The model must outlive the batch. `params` NULL: defaults. SLLM_ERROR_MEMORY, in numbers, when what n_sequences take
 * beside the model does not fit the free memory. */
SLLM_API sllm_status sllm_batch_new(sllm_model *model, const sllm_batch_params *params, sllm_batch **batch,
                                    sllm_error *error);
/* Ends what was added and is not done: its receivers hear SLLM_ERROR_CANCELLED and may not add again. */
SLLM_API void sllm_batch_free(sllm_batch *batch);

/* Called once for every request that was added. SLLM_OK: *generation is the receiver's, who frees it with
 * sllm_generation_free (the struct itself may be copied and is gone after the call). Otherwise generation is NULL and
 * *error says why. `user` is the parameters'. */
typedef void (*sllm_batch_done)(void *user, sllm_status status, sllm_generation *generation, const sllm_error *error);

/* Queues a generation after ids [n], n >= 1, which are copied. Of *params (NULL: defaults) the struct is copied; what
 * it points to (stop strings, choices, logit bias) and `user` must live until `done` was called. *id, which may be
 * NULL, names the request for sllm_batch_cancel. Parameters out of range and ids outside the vocabulary are
 * SLLM_ERROR_ARGUMENT here, and nothing was added; what else is wrong `done` is told. Requests begin in the order they
 * were added. Times in the generation count from its beginning, not from here. */
SLLM_API sllm_status sllm_batch_add(sllm_batch *batch, const int32_t *ids, size_t n, const sllm_generate_params *params,
                                    sllm_batch_done done, uint64_t *id, sllm_error *error);
/* Ends a request in the next step: with SLLM_FINISH_CANCELLED and what was made so far, or, when it had not begun, with
 * SLLM_ERROR_CANCELLED. False: there is none of that id (any more). */
SLLM_API bool sllm_batch_cancel(sllm_batch *batch, uint64_t id);

/* Computes once for all that are under way. *more: something is left to do. Errors of requests go to their `done`; this
 * returns an error only for NULL, and SLLM_ERROR_CANCELLED when is_cancelled said so: nothing is lost then but the time,
 * and another step may follow. */
SLLM_API sllm_status sllm_batch_step(sllm_batch *batch, bool *more, sllm_error *error);
/* Returns when there is something to do, or after `seconds`. For the owner, when a step said that nothing is left. */
SLLM_API void sllm_batch_wait(sllm_batch *batch, double seconds);

typedef struct sllm_batch_stats {
    size_t waiting, running, finished, failed; /* requests */
    size_t prompt_tokens, reused_tokens; /* of those that began */
    size_t completion_tokens;                  /* of those that finished */
    size_t steps, rows;                        /* rows: tokens computed */
    size_t n_pages, n_pages_free;              /* keys and values; what the prefix cache holds is not free */
} sllm_batch_stats;
SLLM_API void sllm_batch_get_stats(sllm_batch *batch, sllm_batch_stats *stats);

/* Ids for fill-in-the-middle: the model's prefix / suffix / middle tokens around the two texts.
 * SLLM_ERROR_UNSUPPORTED when the vocabulary has no such tokens. */
SLLM_API sllm_status sllm_infill_tokens(const sllm_model *model, const char *prefix, size_t prefix_length,
                                        const char *suffix, size_t suffix_length, sllm_tokens *tokens,
                                        sllm_error *error);

/* ---------------------------------------------------------------- measuring */

/* One measured case: n_batch sequences, each with `depth` tokens before it, that take in a prompt together or generate
 * token by token. Only forward passes are timed: no sampling, no text. */
typedef struct sllm_bench_row {
    bool generate;
    int depth, n_batch, n_tokens; /* n_tokens: of each sequence */
    int n_repeat;
    double seconds, seconds_least, seconds_most; /* of one run: median, least, most */
    double tokens_per_second;     /* of all sequences together, by the median */
    uint64_t bytes;               /* weights, keys and values that one run reads, each as often as a forward needs it */
    uint64_t int8_macs, f32_macs; /* multiply-adds of one run, attention included */
    uint64_t logits_hash;         /* FNV-1a of the first sequence's last logits: the same in all rows of equal depth
                                     and n_tokens, whatever generate, threads, batch and repetition */
} sllm_bench_row;

typedef struct sllm_bench_params {
    int n_prompt, n_generate;     /* tokens; 0: that test is left out */
    const int *depths, *batches;  /* [n_depths], [n_batches] */
    size_t n_depths, n_batches;
    int n_repeat;                 /* >= 1 */
    sllm_kv_type kv_type;
    uint64_t seed;                /* of the tokens, which are random ones */
    bool (*on_row)(void *user, const sllm_bench_row *row); /* may be NULL; false cancels */
    bool (*is_cancelled)(void *user);                      /* may be NULL; asked often */
    void *user;
} sllm_bench_params;

/* 512 and 64 tokens, depth 0, batch 1, 3 repetitions. */
SLLM_API void sllm_bench_params_init(sllm_bench_params *params);
/* Runs every case: for each depth and batch the prompt, then generation. All is checked before work starts:
 * SLLM_ERROR_CONTEXT when a depth and its tokens do not fit the model's context, SLLM_ERROR_MEMORY when keys and values
 * do not fit the memory that is free. SLLM_ERROR_CANCELLED after rows that were already given. */
SLLM_API sllm_status sllm_bench(const sllm_model *model, const sllm_bench_params *params, sllm_error *error);

/* What the process holds, in bytes: the largest so far, and now as its own and as mapped files. Zeroes where the system
 * does not say. */
typedef struct sllm_memory {
    uint64_t peak, resident, anonymous, file;
} sllm_memory;
SLLM_API void sllm_memory_info(sllm_memory *memory);

/* ---------------------------------------------------------------- tensor files (inspect, compare, logits) */

/* A GGUF or safetensors file, a split or sharded set, or a checkpoint folder, seen as named tensors. */
typedef struct sllm_tensor_file sllm_tensor_file;
typedef struct sllm_tensor_info {
    const char *name, *type;
    int n_dims;
    int64_t shape[8];   /* outermost first, as numpy prints it: [out, in] for a matrix */
    uint64_t n_elements, bytes;
} sllm_tensor_info;

SLLM_API sllm_status sllm_tensor_file_open(const char *path, sllm_tensor_file **file, sllm_error *error);
SLLM_API void sllm_tensor_file_close(sllm_tensor_file *file);
SLLM_API size_t sllm_tensor_file_count(const sllm_tensor_file *file);
SLLM_API sllm_status sllm_tensor_file_info(const sllm_tensor_file *file, size_t index, sllm_tensor_info *info,
                                           sllm_error *error);
/* The index of a tensor by name, or -1. */
SLLM_API ptrdiff_t sllm_tensor_file_find(const sllm_tensor_file *file, const char *name);
/* Elements [first, first + n) widened to float / read as integers. Float types only / integer types only. */
SLLM_API sllm_status sllm_tensor_file_read_f32(const sllm_tensor_file *file, size_t index, uint64_t first, size_t n,
                                               float *out, sllm_error *error);
SLLM_API sllm_status sllm_tensor_file_read_i64(const sllm_tensor_file *file, size_t index, uint64_t first, size_t n,
                                               int64_t *out, sllm_error *error);
/* The file's metadata as a JSON object; long arrays are shortened to their length and first items. Caller frees. */
SLLM_API sllm_status sllm_tensor_file_metadata(const sllm_tensor_file *file, char **json, sllm_error *error);

/* Writes one f32 tensor as a safetensors file, row by row, so that it need not be held whole. Nothing appears under
 * `path` before _finish succeeds. */
typedef struct sllm_tensor_writer sllm_tensor_writer;
SLLM_API sllm_status sllm_tensor_writer_new(const char *path, const char *name, const int64_t *shape, int n_dims,
                                            sllm_tensor_writer **writer, sllm_error *error);
SLLM_API sllm_status sllm_tensor_writer_write(sllm_tensor_writer *writer, const float *values, size_t n,
                                              sllm_error *error);
SLLM_API sllm_status sllm_tensor_writer_finish(sllm_tensor_writer *writer, sllm_error *error); /* frees the writer */
SLLM_API void sllm_tensor_writer_abandon(sllm_tensor_writer *writer); /* removes what was written */

#ifdef __cplusplus
}
#endif
#endif
