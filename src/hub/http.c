#include "hub/http.h"

#include "base/error.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_REDIRECTS = 10, HEADER_LIMIT = 128 << 10, ERROR_BODY_LIMIT = 64 << 10, ORIGIN = 300 };

/* One hop of a request. */
typedef struct hop {
    sllm_hub *hub;
    const sl_http_request *request;
    sl_http_response *response;
    CURL *curl;
    size_t header_bytes, error_bytes;
    bool headers_too_long, body_refused, cancelled, is_hub;
    char message[CURL_ERROR_SIZE];
} hop;

/* ---------------------------------------------------------------- addresses */

typedef struct origin {
    char text[ORIGIN]; /* scheme://host:port, small letters */
    bool secure, loopback;
} origin;

static bool is_loopback(const char *host) {
    return !strcasecmp(host, "localhost") || !strcmp(host, "[::1]") || !strncmp(host, "127.", 4);
}

/* False for what is not an http or https address, or holds a user name. */
static bool find_origin(const char *url, origin *out) {
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
    CURLU *parsed = curl_url();
    bool ok = parsed && !curl_url_set(parsed, CURLUPART_URL, url, 0) &&
              !curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) && !curl_url_get(parsed, CURLUPART_HOST, &host, 0) &&
              !curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
              curl_url_get(parsed, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;
    if (ok) {
        int n = snprintf(out->text, sizeof out->text, "%s://%s:%s", scheme, host, port);
        for (char *c = out->text; *c; c++) *c = (char)tolower((unsigned char)*c);
        out->secure = !strcasecmp(scheme, "https");
        out->loopback = is_loopback(host);
        ok = n > 0 && n < ORIGIN && (out->secure || !strcasecmp(scheme, "http"));
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(parsed);
    return ok;
}

/* ---------------------------------------------------------------- headers */

static void copy_value(char *out, size_t size, const char *value, size_t length) {
    if (length >= size) length = 0; /* a value too long to be what we look for is as good as none */
    memcpy(out, value, length);
    out[length] = 0;
}

/* Digits only, no sign, no overflow. */
static bool read_number(const char *text, size_t length, uint64_t *out) {
    uint64_t value = 0;
    if (!length) return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

/* "bytes 100-199/1000", "bytes * / 1000" (RFC 9110, section 14.4) */
static void read_content_range(const char *text, size_t length, sl_http_response *response) {
    const char *end = text + length, *slash = memchr(text, '/', length), *dash;
    if (length < 6 || strncasecmp(text, "bytes ", 6) || !slash) return;
    text += 6;
    response->range_start = response->range_total = UINT64_MAX;
    if (!read_number(slash + 1, (size_t)(end - slash - 1), &response->range_total) && slash[1] != '*') return;
    if (*text == '*') {
        response->has_range = true;
    } else if (slash > text && (dash = memchr(text, '-', (size_t)(slash - text)))) {
        response->has_range = read_number(text, (size_t)(dash - text), &response->range_start);
    }
}

static void read_linked_sha256(const char *text, size_t length, char out[65]) {
    if (length == 66 && text[0] == '"' && text[65] == '"') text++, length -= 2;
    if (length == 64 && strspn(text, "0123456789abcdef") >= 64) copy_value(out, 65, text, 64);
}

static bool is_header(const char *line, size_t name_length, const char *name) {
    return strlen(name) == name_length && !strncasecmp(line, name, name_length);
}

static void read_header(hop *at, const char *line, size_t length) {
    sl_http_response *response = at->response;
    const char *colon = memchr(line, ':', length);
    if (!colon) return;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + length;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && strchr(" \t\r\n", end[-1])) end--;
    size_t n = (size_t)(end - value);
    uint64_t number;
    if (is_header(line, name, "etag")) copy_value(response->etag, sizeof response->etag, value, n);
    else if (is_header(line, name, "content-length")) read_number(value, n, &response->length);
    else if (is_header(line, name, "content-range")) read_content_range(value, n, response);
    else if (is_header(line, name, "retry-after") && read_number(value, n, &number))
        response->retry_after = (double)number;
    else if (at->is_hub && is_header(line, name, "x-linked-size")) read_number(value, n, &response->linked_size);
    else if (at->is_hub && is_header(line, name, "x-linked-etag"))
        read_linked_sha256(value, n, response->linked_sha256);
    else if (at->is_hub && is_header(line, name, "x-error-code"))
        copy_value(response->error_code, sizeof response->error_code, value, n);
}

static size_t on_header(char *line, size_t size, size_t n, void *user) {
    hop *at = user;
    size_t length = size * n;
    at->header_bytes += length;
    if (at->header_bytes > HEADER_LIMIT) {
        at->headers_too_long = true;
        return 0;
    }
    if (length > 5 &&
        !strncmp(line, "HTTP/", 5)) { /* a new answer: forget the one before (100 Continue, a proxy's 200) */
        sl_http_response *r = at->response;
        r->etag[0] = 0, r->length = UINT64_MAX, r->has_range = false, r->retry_after = 0;
    } else {
        read_header(at, line, length);
    }
    return length;
}

/* ---------------------------------------------------------------- one hop */

static size_t on_data(char *data, size_t size, size_t n, void *user) {
    hop *at = user;
    size_t length = size * n;
    curl_easy_getinfo(at->curl, CURLINFO_RESPONSE_CODE, &at->response->code);
    if (at->response->code != 200 && at->response->code != 206) { /* a page for people, or a redirect's */
        at->error_bytes += length;
        return at->error_bytes > ERROR_BODY_LIMIT ? 0 : length;
    }
    if (at->request->on_body(at->request->user, at->response, data, length)) return length;
    at->body_refused = true;
    return 0;
}

static int on_progress(void *user, curl_off_t total, curl_off_t done, curl_off_t up_total, curl_off_t up_done) {
    hop *at = user;
    (void)total, (void)done, (void)up_total, (void)up_done;
    if (at->request->keep_going(at->request->user)) return 0;
    at->cancelled = true;
    return 1;
}

/* Adds a header line; frees the list when memory runs out. */
static bool add_header(struct curl_slist **list, const char *name, const char *value) {
    sl_buffer line = {0};
    sl_buffer_printf(&line, "%s: %s", name, value);
    struct curl_slist *longer = line.failed ? NULL : curl_slist_append(*list, line.data);
    if (line.data) explicit_bzero(line.data, line.length); /* it may be the token */
    sl_buffer_free(&line);
    if (longer) *list = longer;
    return longer != NULL;
}

static CURLcode perform(hop *at, const char *url, const origin *where) {
    const sl_http_request *request = at->request;
    struct curl_slist *headers = NULL;
    char range[32];
    bool ok = true;
    CURL *curl = at->curl;
    curl_easy_reset(curl);
    if (at->is_hub && at->hub->token) {
        sl_buffer bearer = {0};
        sl_buffer_printf(&bearer, "Bearer %s", at->hub->token);
        ok = !bearer.failed && add_header(&headers, "Authorization", bearer.data);
        if (bearer.data) explicit_bzero(bearer.data, bearer.length);
        sl_buffer_free(&bearer);
    }
    if (request->offset) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)request->offset);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
        if (request->if_range) ok = ok && add_header(&headers, "If-Range", request->if_range);
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "sllm/" SLLM_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)at->hub->stall_seconds);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)at->hub->stall_seconds);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)request->time_limit);
    if (where->loopback)
        curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* a proxy could not reach this machine's own ports */
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, at);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, at);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, at);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, at->message);
    at->message[0] = 0;
    CURLcode result = ok ? curl_easy_perform(curl) : CURLE_OUT_OF_MEMORY;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &at->response->code);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    return result;
}

/* ---------------------------------------------------------------- what an answer means */

static bool may_try_again(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM: return true;
    default: return false;
    }
}

static sllm_status explain_transfer(hop *at, CURLcode code, const char *url, sllm_error *error) {
    if (at->cancelled) return sl_hub_cancelled(url, error);
    if (at->body_refused) return SLLM_ERROR_IO; /* the caller refused it and says why */
    if (at->headers_too_long)
        return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: the server's headers do not end within %d kB", url,
                       HEADER_LIMIT >> 10);
    if (code == CURLE_OUT_OF_MEMORY) return sl_fail_memory(error, "a download", 0);
    at->response->may_retry = may_try_again(code);
    const char *why = at->message[0] ? at->message : curl_easy_strerror(code);
    const char *advice = "";
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
        advice = " (the certificate is not trusted: install ca-certificates, check the clock and the proxy)";
    else if (code == CURLE_COULDNT_RESOLVE_HOST) advice = " (check the network, or the proxy settings)";
    return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: %s%s", url, why, advice);
}

static sllm_status explain_refusal(hop *at, const char *url, sllm_error *error) {
    sl_http_response *response = at->response;
    const char *word = response->error_code;
    long code = response->code;
    if (!strcmp(word, "GatedRepo") || code == 403)
        return sl_fail(
            error, SLLM_ERROR_NETWORK,
            "%.300s: HTTP %ld%s%s: access is granted by the owner: accept the licence on the model's page of the hub, "
            "then pull with a token file of that account (--token-file)",
            url, code, word[0] ? " " : "", word);
    if (code == 401)
        return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: HTTP 401: %s", url,
                       at->hub->token ? "the hub refuses the token: is it still valid, and may it read this repository?"
                                      : "no such repository, or one that needs an access token (--token-file)");
    if (code == 404)
        return sl_fail(error, SLLM_ERROR_NOT_FOUND, "%.300s: HTTP 404: the hub has no such %s: check the spelling", url,
                       !strcmp(word, "RevisionNotFound") ? "revision"
                       : !strcmp(word, "EntryNotFound")  ? "file"
                                                         : "repository, revision or file");
    response->may_retry = code == 408 || code == 429 || (code >= 500 && code != 501);
    return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: HTTP %ld%s", url, code,
                   code == 429   ? " (too many requests: wait a while)"
                   : code >= 500 ? " (the server has a problem: try later)"
                                 : "");
}

/* ---------------------------------------------------------------- the whole */

static sllm_status check_hop(const sllm_hub *hub, const char *url, const origin *before, origin *where, bool *is_hub,
                             sllm_error *error) {
    origin home;
    if (!find_origin(url, where))
        return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: not an http or https address without a user name", url);
    if (before && before->secure && !where->secure)
        return sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: the server redirects from https to http, which is refused",
                       url);
    *is_hub = find_origin(hub->endpoint, &home) && !strcmp(home.text, where->text);
    if (*is_hub && hub->token && !where->secure && !where->loopback)
        return sl_fail(error, SLLM_ERROR_ARGUMENT, "%s: a token is not sent over http: use an https address",
                       hub->endpoint);
    return SLLM_OK;
}

sllm_status sl_http_get(sllm_hub *hub, const sl_http_request *request, sl_http_response *response, sllm_error *error) {
    char *url = strdup(request->url);
    origin where, before = {0};
    sllm_status status = SLLM_OK;
    *response = (sl_http_response){.length = UINT64_MAX, .linked_size = UINT64_MAX};
    if (!hub->curl) hub->curl = curl_easy_init();
    if (!url || !hub->curl) status = sl_fail_memory(error, "a download", 0);
    for (int redirects = 0; !status; redirects++) {
        hop at = {.hub = hub, .request = request, .response = response, .curl = hub->curl};
        char *next = NULL;
        status = check_hop(hub, url, redirects ? &before : NULL, &where, &at.is_hub, error);
        if (status) break;
        before = where;
        CURLcode code = perform(&at, url, &where);
        bool answered = code == CURLE_OK || at.error_bytes > ERROR_BODY_LIMIT;
        curl_easy_getinfo(hub->curl, CURLINFO_REDIRECT_URL, &next);
        if (!answered) status = explain_transfer(&at, code, url, error);
        else if (response->code >= 300 && response->code < 400 && next) {
            if (redirects == MAX_REDIRECTS)
                status =
                    sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: more than %d redirects", request->url, MAX_REDIRECTS);
            free(url);
            if (!(url = strdup(next)) && !status) status = sl_fail_memory(error, "a redirect", 0);
            continue;
        } else if (response->code != 200 && response->code != 206 && response->code != 416)
            status = explain_refusal(&at, url, error);
        break;
    }
    free(url);
    return status;
}

double sl_http_backoff(int attempt, const sl_http_response *response) {
    double seconds = 0.5;
    if (response->retry_after > 0) return response->retry_after < 60 ? response->retry_after : 60;
    while (attempt-- > 1 && seconds < 30) seconds *= 2;
    return seconds < 30 ? seconds : 30;
}

/* ---------------------------------------------------------------- JSON */

typedef struct document {
    sllm_hub *hub;
    sl_buffer text;
} document;

static bool on_document(void *user, const sl_http_response *response, const char *data, size_t n) {
    document *got = user;
    (void)response;
    return sl_buffer_append(&got->text, data, n);
}

static bool on_wait(void *user) {
    document *got = user;
    return sl_hub_progress(got->hub, "asking the hub", 0, 0, false);
}

sllm_status sl_http_get_json(sllm_hub *hub, const char *url, sl_arena *arena, const sl_json **root, sllm_error *error) {
    enum { TIME_LIMIT = 300 };
    document got = {.hub = hub, .text = {.limit = SL_HUB_JSON_LIMIT}};
    sl_http_request request = {
        .url = url, .time_limit = TIME_LIMIT, .on_body = on_document, .keep_going = on_wait, .user = &got};
    sl_http_response response;
    sllm_status status;
    for (int attempt = 1;; attempt++) {
        got.text.length = 0;
        status = sl_http_get(hub, &request, &response, error);
        if (!status || !response.may_retry || attempt > hub->retries) break;
        if (!sl_hub_sleep(hub, sl_http_backoff(attempt, &response))) {
            status = sl_hub_cancelled(url, error);
            break;
        }
    }
    if (got.text.failed)
        status =
            sl_fail(error, SLLM_ERROR_FORMAT, "%.300s: the answer is larger than %d MB", url, SL_HUB_JSON_LIMIT >> 20);
    if (!status && response.code != 200)
        status = sl_fail(error, SLLM_ERROR_NETWORK, "%.300s: HTTP %ld where a list of files is expected", url,
                         response.code);
    if (!status) status = sl_json_parse(arena, got.text.data ? got.text.data : "", got.text.length, url, root, error);
    sl_buffer_free(&got.text);
    return status;
}
