/* Allocation-failure injection: makes the n-th allocation of the program fail. Linked with --wrap=malloc and friends
 * (tests/CMakeLists.txt), so the library itself carries no hook. */
#ifndef TESTS_FAIL_ALLOC_H
#define TESTS_FAIL_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Counts from now; the n-th allocation (from 1) and, when `sticky`, all later ones fail. 0: none fails. */
void fail_alloc_arm(long n, bool sticky);
/* Stops failing; true when the armed failure happened. */
bool fail_alloc_disarm(void);
/* Bytes asked for by all allocations of the program so far: the difference is what a call allocates. */
size_t fail_alloc_asked(void);

#endif
