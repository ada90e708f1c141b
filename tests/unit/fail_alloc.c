#include "unit/fail_alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static _Atomic long countdown;
static _Atomic bool armed, hit, stay;
static _Atomic size_t asked;

void fail_alloc_arm(long n, bool sticky) { countdown = n; stay = sticky; hit = false; armed = n > 0; }
bool fail_alloc_disarm(void) { armed = false; return hit; }
size_t fail_alloc_asked(void) { return asked; }

static bool fails(size_t bytes) {
    asked += bytes;
    if (!armed) return false;
    long left = --countdown;
    if (left > 0 || (left < 0 && !stay)) return false;
    hit = true;
    return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
int __real_posix_memalign(void **p, size_t a, size_t n);
void *__real_aligned_alloc(size_t a, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
int __wrap_posix_memalign(void **p, size_t a, size_t n);
void *__wrap_aligned_alloc(size_t a, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n) { return fails(n) ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t m) { return fails(n * m) ? NULL : __real_calloc(n, m); }
void *__wrap_realloc(void *p, size_t n) { return fails(n) ? NULL : __real_realloc(p, n); }
int __wrap_posix_memalign(void **p, size_t a, size_t n) { return fails(n) ? ENOMEM : __real_posix_memalign(p, a, n); }
void *__wrap_aligned_alloc(size_t a, size_t n) { return fails(n) ? NULL : __real_aligned_alloc(a, n); }
char *__wrap_strndup(const char *s, size_t n) {
    size_t length = strnlen(s, n);
    char *copy = __wrap_malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, s, length);
    copy[length] = 0;
    return copy;
}
char *__wrap_strdup(const char *s) { return __wrap_strndup(s, strlen(s)); }
