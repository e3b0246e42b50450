// The filters that lay text out on lines: pprint, wordwrap, xmlattr.
#pragma once

#include "engine/jinja/objects.h"

namespace airllm::jinja {

Result<Value> pretty_print(Evaluator& evaluator, const Value& value, Call call);
Result<Value> word_wrap(Evaluator& evaluator, const Value& value, Call call);
Result<Value> xml_attributes(Evaluator& evaluator, const Value& value, Call call);

}  // namespace airllm::jinja
