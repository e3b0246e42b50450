// Template source to syntax tree. What is not known (a tag, a filter, a test, an operator) is a
// kData error that names it with its line.
#pragma once

#include <string_view>

#include "base/result.h"
#include "engine/jinja/ast.h"

namespace airllm::jinja {

Result<Block> parse(std::string_view source, std::string_view what);

}  // namespace airllm::jinja
