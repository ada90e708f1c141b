/* One file from an address into the cache, resumed until it is whole. */
#ifndef SL_HUB_DOWNLOAD_H
#define SL_HUB_DOWNLOAD_H

#include "hub/hub.h"

typedef struct sl_download {
    const char *url;
    const char *what; /* for progress and messages */
    const char *path; /* final name; PATH.partial holds what has arrived, PATH.partial.etag which version of the file */
    uint64_t bytes;   /* expected; UINT64_MAX: not known. Set to the size when done */
    char sha256[65];  /* expected; "" not known. Set to the file's when done */
    uint64_t done_before, total; /* progress of the whole that this file is a part of; total 0: not known */
} sl_download;

/* The file appears under its final name when its size and checksum are right, and not before. After an interruption,
 * a full disk or a lost connection the partial file is kept and the next call continues there, provided the server
 * still has the same version (strong ETag, or a checksum that proves it at the end). A wrong checksum or size removes
 * it. */
sllm_status sl_download_file(sllm_hub *hub, sl_download *download, sllm_error *error);

#endif
