// Strict JSON from untrusted bytes: valid UTF-8, a limit on nesting, no duplicate keys.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm {

inline constexpr int kJsonMaxDepth = 64;

// Parses exactly one JSON value. `what` names the source in messages, such as a path. Malformed
// text, invalid UTF-8, nesting deeper than kJsonMaxDepth and duplicate keys are kData errors that
// give the byte offset.
Result<Json> parse_json(std::string_view text, std::string_view what);

// The same, of an object; another value is a kData error.
Result<Json> parse_json_object(std::string_view text, std::string_view what);

// One line of JSON; invalid UTF-8 in strings is replaced, never thrown on.
std::string dump_json(const Json& value);

}  // namespace airllm
