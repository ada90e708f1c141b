/* Messages and options as JSON of any kind, up to the first NUL and after it, through a template that reads them all.
 */
#include "sllm.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char source[] =
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.thinking }}{% for c in m.tool_calls %}{{ c|tojson "
        "}}{% endfor "
        "%}{% endfor %}{{ tools|tojson }}{{ documents }}{{ x }}{{ messages|tojson(indent=2) }}";
    char *text = NULL, *copy = malloc(size + 2);
    sllm_error error;
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    copy[size] = copy[size + 1] = 0;
    const char *options = copy + strlen(copy) + 1; /* at least an empty text */
    sllm_template_render_text(source, sizeof source - 1, copy, *options ? options : NULL, &text, NULL, &error);
    sllm_free(text);
    free(copy);
    return 0;
}
