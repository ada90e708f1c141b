/* One GET through libcurl. Redirects are followed here, not by libcurl, so that the rules are in one place: at most
 * ten, never from https to http, and the access token goes to the hub's own origin (scheme, host and port) only. */
#ifndef SL_HUB_HTTP_H
#define SL_HUB_HTTP_H

#include "hub/hub.h"

typedef struct sl_http_response {
    long code;            /* of the last answer; 0: none came */
    char etag[256];       /* "" none */
    uint64_t length;      /* Content-Length; UINT64_MAX: not said */
    bool has_range;       /* Content-Range: the next two hold */
    uint64_t range_start; /* UINT64_MAX: "bytes * / N" */
    uint64_t range_total; /* UINT64_MAX: not said */
    uint64_t
        linked_size; /* of the large file behind a pointer, said by the hub before it redirects; UINT64_MAX: not said */
    char linked_sha256[65]; /* likewise; "" not said */
    char error_code[64];    /* the hub's own word for a refusal */
    double retry_after;     /* seconds the server asks to wait; 0: not said */
    bool may_retry;         /* after a failure: trying again may help */
} sl_http_response;

typedef struct sl_http_request {
    const char *url;
    uint64_t offset;      /* ask for the bytes from here */
    const char *if_range; /* with offset: only while the file still has this ETag; NULL: whatever it is */
    int time_limit;       /* seconds for the whole; 0: only the hub's stall limit */
    /* The body of a 200 or 206 answer; false ends the transfer (SLLM_ERROR_IO; the caller knows why). */
    bool (*on_body)(void *user, const sl_http_response *response, const char *data, size_t n);
    bool (*keep_going)(void *user); /* asked several times a second; false: SLLM_ERROR_CANCELLED */
    void *user;
} sl_http_request;

/* SLLM_OK: answered 200, 206 or 416 to the end. Otherwise the error says what to do about it; *response is always
 * filled with what is known. */
sllm_status sl_http_get(sllm_hub *hub, const sl_http_request *request, sl_http_response *response, sllm_error *error);

/* A JSON document into the arena, with the hub's retries. */
sllm_status sl_http_get_json(sllm_hub *hub, const char *url, sl_arena *arena, const sl_json **root, sllm_error *error);

/* Seconds to wait before attempt `attempt` (from 1): 0.5 doubling to 30, or what the server asked for, at most 60. */
double sl_http_backoff(int attempt, const sl_http_response *response);

#endif
