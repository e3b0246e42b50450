// The name of a JSON value, for headers that only hand one on: base/json.h costs every file that
// includes it more than two seconds of compilation.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace airllm {

// Objects keep the order of the file.
using Json = nlohmann::ordered_json;

}  // namespace airllm
