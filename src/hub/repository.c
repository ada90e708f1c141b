#include "hub/hub.h"

#include "base/error.h"

sllm_status sl_repository_pull(sllm_hub *hub, const sl_source *source, sllm_error *error) {
    (void)hub;
    return sl_fail(error, SLLM_ERROR_UNSUPPORTED, "%s: downloads from a hub are not part of this build", source->name);
}
