/* Writing safetensors: the header first, then the tensors' bytes as they come, into a temporary file beside the target
 * that takes its name when everything is on the disk. */
#include "base/buffer.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/map.h"
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sl_safetensors_writer {
    sl_output output;
    uint64_t left;         /* bytes of tensor data still to come */
    sllm_status failed;    /* after a failed write nothing more is written, and _finish fails again */
};

/* Bytes of a declared tensor; type and shape must be something the format can say. */
static sllm_status measure(const char *path, const sl_tensor *tensor, uint64_t *bytes, sllm_error *error) {
    uint64_t n = 1;
    if (!tensor->name || !*tensor->name || !strcmp(tensor->name, "__metadata__"))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a tensor cannot be named '%s'", path,
                       tensor->name ? tensor->name : "");
    if (!sl_type_get(tensor->type)->safetensors_name)
        return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: tensor '%s': safetensors has no element type %s", path,
                       tensor->name, sl_type_get(tensor->type)->name);
    if (tensor->n_dims < 0 || tensor->n_dims > 8)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: tensor '%s': %d dimensions; 0 to 8 are possible", path,
                       tensor->name, tensor->n_dims);
    for (int i = 0; i < tensor->n_dims; i++)
        if (tensor->shape[i] < 0 || !sl_mul_u64(n, (uint64_t)tensor->shape[i], &n))
            return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: tensor '%s': dimension %d of %" PRId64 " is out of range",
                           path, tensor->name, i, tensor->shape[i]);
    if (!sl_type_bytes(tensor->type, n, bytes))
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: tensor '%s': its size overflows", path, tensor->name);
    return SLLM_OK;
}

static sllm_status write_header_json(const char *path, const sl_tensor *tensors, size_t count, sl_buffer *out,
                                     uint64_t *total, sllm_error *error) {
    sl_map names = {0};
    sllm_status status = SLLM_OK;
    *total = 0;
    sl_buffer_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}"); /* transformers wants to be told */
    for (size_t i = 0; i < count && !status; i++) {
        const sl_tensor *tensor = &tensors[i];
        uint64_t bytes, end = 0, other;
        status = measure(path, tensor, &bytes, error);
        if (status) break;
        if (sl_map_get(&names, tensor->name, strlen(tensor->name), &other))
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: tensor '%s' is declared twice", path, tensor->name);
        else if (!sl_map_put(&names, tensor->name, strlen(tensor->name), i))
            status = sl_fail_memory(error, path, 0);
        else if (!sl_add_u64(*total, bytes, &end))
            status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: tensor '%s': the sum of sizes overflows", path,
                             tensor->name);
        if (status) break;
        sl_json_key(out, tensor->name);
        sl_buffer_printf(out, "{\"dtype\":\"%s\",\"shape\":[", sl_type_get(tensor->type)->safetensors_name);
        for (int k = 0; k < tensor->n_dims; k++) sl_buffer_printf(out, "%s%" PRId64, k ? "," : "", tensor->shape[k]);
        sl_buffer_printf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *total, end);
        *total = end;
    }
    sl_buffer_putc(out, '}');
    while (out->length % 8 && !out->failed) sl_buffer_putc(out, ' '); /* so that the data begin aligned */
    sl_map_free(&names);
    if (!status && out->failed) status = sl_fail_memory(error, path, 0);
    return status;
}

static sllm_status write_all(sl_safetensors_writer *writer, const void *data, size_t size, sllm_error *error) {
    return writer->failed = sl_output_write(&writer->output, data, size, error);
}

void sl_safetensors_writer_abandon(sl_safetensors_writer *writer) {
    if (!writer) return;
    sl_output_abandon(&writer->output);
    free(writer);
}

sllm_status sl_safetensors_writer_new(const char *path, const sl_tensor *tensors, size_t count,
                                      sl_safetensors_writer **out, sllm_error *error) {
    sl_buffer header = {0};
    *out = NULL;
    sl_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return sl_fail_memory(error, path, 0);
    writer->output.descriptor = -1;
    sllm_status status = write_header_json(path, tensors, count, &header, &writer->left, error);
    if (!status) status = sl_output_open(&writer->output, path, error);
    uint64_t length = header.length;
    if (!status) status = write_all(writer, &length, sizeof length, error);
    if (!status) status = write_all(writer, header.data, header.length, error);
    sl_buffer_free(&header);
    if (status) sl_safetensors_writer_abandon(writer);
    else *out = writer;
    return status;
}

sllm_status sl_safetensors_writer_write(sl_safetensors_writer *writer, const void *data, size_t bytes,
                                        sllm_error *error) {
    if (writer->failed) return sl_fail(error, writer->failed, "%s: an earlier write failed", writer->output.path);
    if (bytes > writer->left)
        return writer->failed = sl_fail(error, SLLM_ERROR_ARGUMENT,
                                        "%s: %zu bytes written where only %" PRIu64 " of the declared ones are left",
                                        writer->output.path, bytes, writer->left);
    sllm_status status = write_all(writer, data, bytes, error);
    if (!status) writer->left -= bytes;
    return status;
}

sllm_status sl_safetensors_writer_finish(sl_safetensors_writer *writer, sllm_error *error) {
    sllm_status status = writer->failed;
    if (status) sl_fail(error, status, "%s: not written, because an earlier write failed", writer->output.path);
    else if (writer->left)
        status = sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: %" PRIu64 " of the declared bytes were never written",
                         writer->output.path, writer->left);
    else status = sl_output_finish(&writer->output, error);
    sl_safetensors_writer_abandon(writer);
    return status;
}
