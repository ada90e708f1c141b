#include "golden/golden.h"

void golden_real(golden *g, const char *directory) { golden_skip(g, directory, "real is not built yet"); }
