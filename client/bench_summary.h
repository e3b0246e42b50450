// What the benches of `airllm bench` print: one screen each.
#pragma once

#include <string>

#include "base/json_fwd.h"

namespace airllm::client {

// Several lines of the daemon's result; what it does not tell is shown as "-".
std::string bench_stream_text(const Json& result);
// The same of `airllm bench kernels`.
std::string bench_kernels_text(const Json& result);

}  // namespace airllm::client
