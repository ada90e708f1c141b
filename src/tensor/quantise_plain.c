/* The quantisers for any processor. */
#define SL_QUANTISE_TABLE sl_quantise_plain
#include "tensor/quantise_types.h"
