#include "golden/golden.h"

void golden_gguf(golden *g, const char *directory) { golden_skip(g, directory, "gguf is not built yet"); }
