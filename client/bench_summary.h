// The one screen that `airllm bench stream` prints.
#pragma once

#include <string>

#include "base/json_fwd.h"

namespace airllm::client {

// Several lines of the daemon's result; what it does not tell is shown as "-".
std::string bench_stream_text(const Json& result);

}  // namespace airllm::client
