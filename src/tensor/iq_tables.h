/* Code points of the IQ types (iq_tables.c says how a word is read). */
#ifndef SL_TENSOR_IQ_TABLES_H
#define SL_TENSOR_IQ_TABLES_H

#include <stdint.h>

extern const uint16_t sl_iq1_grid[2048];
extern const uint16_t sl_iq2_xxs_grid[256];
extern const uint16_t sl_iq2_xs_grid[512];
extern const uint16_t sl_iq2_s_grid[1024];
extern const uint16_t sl_iq3_xxs_grid[256];
extern const uint16_t sl_iq3_s_grid[512];

#endif
