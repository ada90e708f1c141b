/* A folder being written: it appears under its name when it is complete. */
#ifndef SL_FORMAT_FOLDER_WRITE_H
#define SL_FORMAT_FOLDER_WRITE_H

#include "sllm.h"

enum { SL_FOLDER_PATH = 4096 };

typedef struct sl_folder_writer {
    char out[SL_FOLDER_PATH];  /* as given without slashes at its end, or where that leads to */
    char part[SL_FOLDER_PATH]; /* where it grows, beside it */
} sl_folder_writer;

/* SLLM_ERROR_ARGUMENT: something is there already that is not an empty folder (a link to one is followed). A run that is
 * killed leaves its unfinished folder, OUT.part-PID-N. */
sllm_status sl_folder_writer_begin(sl_folder_writer *writer, const char *out, sllm_error *error);
/* Path of a file in it; false: too long. */
bool sl_folder_writer_path(const sl_folder_writer *writer, const char *name, char path[SL_FOLDER_PATH]);
sllm_status sl_folder_writer_file(const sl_folder_writer *writer, const char *name, const void *data, size_t size, sllm_error *error);
/* A copy of another file under this name, in bounded memory. */
sllm_status sl_folder_writer_copy(const sl_folder_writer *writer, const char *name, const char *from, sllm_error *error);
/* Both end it: the folder takes its name; or its files, and it, are removed. A failed _finish removes too. */
sllm_status sl_folder_writer_finish(sl_folder_writer *writer, sllm_error *error);
void sl_folder_writer_abandon(sl_folder_writer *writer);

#endif
