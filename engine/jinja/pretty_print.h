// Python's pprint.pformat() with its defaults: 80 columns, mappings sorted.
#pragma once

#include "engine/jinja/objects.h"

namespace airllm::jinja {

Result<text::MarkedText> pretty(Evaluator& evaluator, const Value& value);

}  // namespace airllm::jinja
