/* The rule of sllm.h for NULL, over every function it declares: a status, an empty answer, or nothing; never a fault. */
#include "unit/tiny_model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static sllm_model *model;
static sllm_session *session;
static const int32_t ids[] = {1, 2, 3};
static sllm_error error;

static int set_up(void **state) {
    (void)state;
    model = tiny_model(1);
    session = tiny_session(model, 32);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    sllm_session_free(session);
    sllm_model_free(model);
    return 0;
}

/* The call is refused with a message, and with nobody to tell it to. `e` stands for the error in the call. */
#define REFUSED(call)                                           \
    do {                                                        \
        sllm_error *e = &error;                                 \
        memset(&error, 0, sizeof error);                        \
        assert_int_equal(call, SLLM_ERROR_ARGUMENT);            \
        assert_int_equal(error.status, SLLM_ERROR_ARGUMENT);    \
        assert_non_null(strstr(error.message, "NULL"));         \
        e = NULL;                                               \
        assert_int_equal(call, SLLM_ERROR_ARGUMENT);            \
    } while (0)

static void nothing_is_initialised_or_freed(void **state) {
    (void)state;
    sllm_free(NULL);
    sllm_machine_info(NULL);
    sllm_model_params_init(NULL);
    sllm_sampler_params_init(NULL);
    sllm_generate_params_init(NULL);
    sllm_model_free(NULL);
    sllm_tokens_free(NULL);
    sllm_stream_free(NULL);
    sllm_session_free(NULL);
    sllm_sampler_free(NULL);
    sllm_generation_free(NULL);
    sllm_tensor_file_close(NULL);
    sllm_tensor_writer_abandon(NULL);
}

static void models(void **state) {
    (void)state;
    sllm_model *made = (sllm_model *)&error;
    sllm_model_info info;
    sllm_plan plan;
    char *json = NULL;
    REFUSED(sllm_kernels_force(NULL, e));
    REFUSED(sllm_model_load(NULL, NULL, &made, e));
    assert_null(made);
    REFUSED(sllm_model_load(TINY_MODEL, NULL, NULL, e));
    sllm_model_get_info(model, NULL);
    sllm_model_get_info(NULL, &info);
    assert_string_equal(info.path, "");
    assert_int_equal(info.n_layers, 0);
    REFUSED(sllm_model_describe(NULL, &json, e));
    REFUSED(sllm_model_describe(model, NULL, e));
    REFUSED(sllm_model_plan(NULL, NULL, &plan, e));
    REFUSED(sllm_model_plan(TINY_MODEL, NULL, NULL, e));
    REFUSED(sllm_model_plan_loaded(NULL, NULL, &plan, e));
    REFUSED(sllm_model_plan_loaded(model, NULL, NULL, e));
    REFUSED(sllm_bench(NULL, NULL, e));
}

static void text_and_tokens(void **state) {
    (void)state;
    sllm_tokens tokens;
    sllm_stream *stream = NULL;
    const char *piece;
    char *text;
    size_t length;
    REFUSED(sllm_tokenize(NULL, "a", 1, 0, &tokens, e));
    REFUSED(sllm_tokenize(model, NULL, 1, 0, &tokens, e));
    REFUSED(sllm_tokenize(model, "a", 1, 0, NULL, e));
    REFUSED(sllm_detokenize(NULL, ids, 3, false, &text, &length, e));
    REFUSED(sllm_detokenize(model, NULL, 3, false, &text, &length, e));
    REFUSED(sllm_detokenize(model, ids, 3, false, NULL, &length, e));
    REFUSED(sllm_stream_new(NULL, false, &stream, e));
    REFUSED(sllm_stream_new(model, false, NULL, e));
    assert_int_equal(sllm_stream_new(model, false, &stream, NULL), SLLM_OK);
    REFUSED(sllm_stream_push(NULL, 1, &piece, &length, e));
    REFUSED(sllm_stream_push(stream, 1, NULL, &length, e));
    REFUSED(sllm_stream_finish(NULL, &piece, &length, e));
    REFUSED(sllm_stream_finish(stream, NULL, &length, e));
    sllm_stream_free(stream);
    assert_null(sllm_token_text(NULL, 1));
    assert_int_equal(sllm_token_id(NULL, "a"), -1);
    assert_int_equal(sllm_token_id(model, NULL), -1);
    assert_int_equal(sllm_token_bos(NULL), -1);
    assert_false(sllm_token_ends(NULL, 1));
    REFUSED(sllm_infill_tokens(NULL, "a", 1, "b", 1, &tokens, e));
    REFUSED(sllm_infill_tokens(model, NULL, 1, "b", 1, &tokens, e));
    REFUSED(sllm_infill_tokens(model, "a", 1, NULL, 1, &tokens, e));
    REFUSED(sllm_infill_tokens(model, "a", 1, "b", 1, NULL, e));
}

static void templates(void **state) {
    (void)state;
    char *text;
    size_t length;
    REFUSED(sllm_template_render(NULL, "[]", NULL, &text, &length, e));
    REFUSED(sllm_template_render(model, NULL, NULL, &text, &length, e));
    REFUSED(sllm_template_render(model, "[]", NULL, NULL, &length, e));
    REFUSED(sllm_template_render_text(NULL, 1, "[]", NULL, &text, &length, e));
    REFUSED(sllm_template_render_text("a", 1, NULL, NULL, &text, &length, e));
    REFUSED(sllm_template_render_text("a", 1, "[]", NULL, NULL, &length, e));
}

static void sessions(void **state) {
    (void)state;
    sllm_session *made;
    float logits[4];
    REFUSED(sllm_session_new(NULL, NULL, &made, e));
    REFUSED(sllm_session_new(model, NULL, NULL, e));
    REFUSED(sllm_session_sync(NULL, ids, 3, NULL, e));
    REFUSED(sllm_session_sync(session, NULL, 3, NULL, e));
    REFUSED(sllm_session_append(NULL, ids, 3, e));
    REFUSED(sllm_session_append(session, NULL, 3, e));
    REFUSED(sllm_session_truncate(NULL, 0, e));
    REFUSED(sllm_session_all_logits(NULL, ids, 3, logits, e));
    REFUSED(sllm_session_all_logits(session, NULL, 3, logits, e));
    REFUSED(sllm_session_all_logits(session, ids, 3, NULL, e));
    assert_int_equal(sllm_session_length(NULL), 0);
    assert_int_equal(sllm_session_capacity(NULL), 0);
    assert_null(sllm_session_ids(NULL));
    assert_null(sllm_session_logits(NULL));
}

static void sampling_and_generation(void **state) {
    (void)state;
    sllm_sampler *sampler = NULL;
    sllm_generation out;
    sllm_generate_params params;
    static const char *const missing[] = {NULL};
    const float logits[320] = {0};
    int32_t id;
    REFUSED(sllm_sampler_params_check(NULL, 320, e));
    REFUSED(sllm_sampler_new(NULL, NULL, &sampler, e));
    REFUSED(sllm_sampler_new(model, NULL, NULL, e));
    assert_int_equal(sllm_sampler_new(model, NULL, &sampler, NULL), SLLM_OK);
    REFUSED(sllm_sampler_draw(NULL, logits, ids, 3, &id, e));
    REFUSED(sllm_sampler_draw(sampler, NULL, ids, 3, &id, e));
    REFUSED(sllm_sampler_draw(sampler, logits, NULL, 3, &id, e));
    REFUSED(sllm_sampler_draw(sampler, logits, ids, 3, NULL, e));
    sllm_sampler_free(sampler);
    REFUSED(sllm_generate(NULL, ids, 3, NULL, &out, e));
    REFUSED(sllm_generate(session, NULL, 3, NULL, &out, e));
    REFUSED(sllm_generate(session, ids, 3, NULL, NULL, e));
    sllm_generate_params_init(&params);
    params.n_stop = 1;
    REFUSED(sllm_generate(session, ids, 3, &params, &out, e));
    params.stop = missing;
    assert_int_equal(sllm_generate(session, ids, 3, &params, &out, NULL), SLLM_ERROR_ARGUMENT);
    sllm_generate_params_init(&params);
    params.n_choices = 1;
    REFUSED(sllm_generate(session, ids, 3, &params, &out, e));
    params.choices = missing;
    assert_int_equal(sllm_generate(session, ids, 3, &params, &out, NULL), SLLM_ERROR_ARGUMENT);
    sllm_generate_params_init(&params);
    params.sampler.n_bias = 1;
    REFUSED(sllm_generate(session, ids, 3, &params, &out, e));
}

static void tensor_files(void **state) {
    (void)state;
    sllm_tensor_file *file = NULL;
    sllm_tensor_info info;
    sllm_tensor_writer *writer = NULL;
    const int64_t shape[] = {2};
    float f32;
    int64_t i64;
    char *json, path[64];
    REFUSED(sllm_tensor_file_open(NULL, &file, e));
    REFUSED(sllm_tensor_file_open(TINY_MODEL, NULL, e));
    assert_int_equal(sllm_tensor_file_open(TINY_MODEL, &file, NULL), SLLM_OK);
    assert_int_equal(sllm_tensor_file_count(NULL), 0);
    assert_int_equal(sllm_tensor_file_find(NULL, "a"), -1);
    assert_int_equal(sllm_tensor_file_find(file, NULL), -1);
    REFUSED(sllm_tensor_file_info(NULL, 0, &info, e));
    REFUSED(sllm_tensor_file_info(file, 0, NULL, e));
    REFUSED(sllm_tensor_file_read_f32(NULL, 0, 0, 1, &f32, e));
    REFUSED(sllm_tensor_file_read_f32(file, 0, 0, 1, NULL, e));
    REFUSED(sllm_tensor_file_read_i64(NULL, 0, 0, 1, &i64, e));
    REFUSED(sllm_tensor_file_read_i64(file, 0, 0, 1, NULL, e));
    REFUSED(sllm_tensor_file_metadata(NULL, &json, e));
    REFUSED(sllm_tensor_file_metadata(file, NULL, e));
    sllm_tensor_file_close(file);
    snprintf(path, sizeof path, "test-api-%ld.safetensors", (long)getpid());
    REFUSED(sllm_tensor_writer_new(NULL, "x", shape, 1, &writer, e));
    REFUSED(sllm_tensor_writer_new(path, NULL, shape, 1, &writer, e));
    REFUSED(sllm_tensor_writer_new(path, "x", NULL, 1, &writer, e));
    REFUSED(sllm_tensor_writer_new(path, "x", shape, 1, NULL, e));
    assert_int_equal(sllm_tensor_writer_new(path, "x", shape, 1, &writer, NULL), SLLM_OK);
    REFUSED(sllm_tensor_writer_write(NULL, &f32, 1, e));
    REFUSED(sllm_tensor_writer_write(writer, NULL, 1, e));
    REFUSED(sllm_tensor_writer_finish(NULL, e));
    sllm_tensor_writer_abandon(writer);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* A vocabulary of no tokens, or fewer, has nothing to draw from. */
static void a_vocabulary_has_a_size(void **state) {
    (void)state;
    sllm_sampler_params params;
    sllm_sampler_params_init(&params);
    assert_int_equal(sllm_sampler_params_check(&params, 1, NULL), SLLM_OK);
    assert_int_equal(sllm_sampler_params_check(&params, 0, NULL), SLLM_ERROR_ARGUMENT);
    assert_int_equal(sllm_sampler_params_check(&params, -5, NULL), SLLM_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_initialised_or_freed),
        cmocka_unit_test(models),
        cmocka_unit_test(text_and_tokens),
        cmocka_unit_test(templates),
        cmocka_unit_test(sessions),
        cmocka_unit_test(sampling_and_generation),
        cmocka_unit_test(tensor_files),
        cmocka_unit_test(a_vocabulary_has_a_size),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
