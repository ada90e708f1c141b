#include "golden/golden.h"

void golden_models(golden *g, const char *directory) { golden_skip(g, directory, "models is not built yet"); }
