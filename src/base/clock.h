/* Monotonic seconds. */
#ifndef SL_BASE_CLOCK_H
#define SL_BASE_CLOCK_H

double sl_clock(void);

#endif
