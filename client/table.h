// Results as text: columns, and "key: value" lines.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::client {

// Columns two spaces apart, as wide as their longest cell; no spaces at the end of a line.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

// An object as aligned "key: value" lines; objects inside become "outer.inner", arrays of objects
// one line for each. "bytes" and "bytes_per_…" at a key's end are shown as sizes.
std::string format_object(const Json& object);

// One value of a cell: a size for a key that ends in "bytes", "-" for what is absent or null.
std::string cell(const Json& object, const std::string& key);

// A whole number, 0 for what is absent or none.
uint64_t count_of(const Json& object, const char* key);

// The daemon's result, parsed; kProtocol when it is no JSON.
Result<Json> parse_result(const std::string& text);
// Prints the daemon's result as it came: one line of JSON.
Status print_result_json(const std::string& text);

}  // namespace airllm::client
