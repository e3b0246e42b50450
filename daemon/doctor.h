// What the daemon sees of its store, its limits and its machine, for `airllm doctor`.
#pragma once

#include "base/json_fwd.h"
#include "daemon/context.h"

namespace airllm::daemon {

// An array of {"name","status","message","remedy"}, as docs/protocol.md says. Looks at files of the
// store and of /proc and /sys; reads no weights. Belongs to the connection thread.
// Models are those that `viewer` sees.
Json doctor_checks(Context& context, const engine::Viewer& viewer);

}  // namespace airllm::daemon
