// Values as JSON, and in order.
#pragma once

#include <optional>
#include <vector>

#include "engine/jinja/objects.h"

namespace airllm::jinja {

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<text::MarkedText> indent;
  text::MarkedText item_separator = text::MarkedText(", ", kTemplateOrigin);
  text::MarkedText key_separator = text::MarkedText(": ", kTemplateOrigin);
};

// As Python's json.dumps. Strings keep their origins; the structure is the template's.
Result<text::MarkedText> dump(Evaluator& evaluator, const Value& value, const JsonStyle& style);

// What is done about keys that Python cannot order: pprint orders them by their types' names.
enum class Unordered { kError, kByType };
// The places of the keys in their order, which is stable.
Result<std::vector<size_t>> sorted_order(Evaluator& evaluator, const List& keys, bool reverse,
                                         Unordered unordered = Unordered::kError);

}  // namespace airllm::jinja
