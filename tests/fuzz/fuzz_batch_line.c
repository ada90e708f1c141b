/* A line of `sllm batch`'s input as JSON of any kind, with and without a prompt file. */
#include "cli/batch_line.c"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The one function of prompt.c that a line needs; the rest of that file prints. */
bool cli_form_has_slot(const cli_form *form, const char *key, size_t length) {
    for (size_t i = 0; i < form->n; i++)
        if (form->pieces[i].slot && form->pieces[i].length == length && !memcmp(form->pieces[i].text, key, length))
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cli_piece pieces[] = {{"Say ", 4, 0, false}, {"word", 4, 1, true}, {"prompt", 6, 1, true}};
    cli_form form = {"form", pieces, 3};
    char *copy = malloc(size + 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    copy[size] = 0;
    for (int way = 0; way < 4; way++) {
        cli_batch_line line;
        sllm_error error;
        cli_batch_defaults defaults = {.form = way & 1 ? &form : NULL, .system = way & 2 ? NULL : "Be short.",
                                       .examples = way ? "" : "{\"role\":\"user\",\"content\":\"a\"}",
                                       .raw = (way & 2) != 0, .n_vocab = 320};
        sllm_generate_params_init(&defaults.params);
        cli_batch_line_read(&defaults, copy, size, &line, &error);
        cli_batch_line_free(&line);
    }
    free(copy);
    return 0;
}
