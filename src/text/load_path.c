/* A tokenizer from a folder or a file, whichever of the known forms is there. */
#include "base/error.h"
#include "base/file.h"
#include "text/parts.h"

sllm_status sl_tokenizer_from_path(const char *path, sl_tokenizer **tokenizer, sllm_error *error) {
    *tokenizer = NULL;
    return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%s: no loader yet", path);
}
