// Templates against what jinja2 printed (tools/jinja_fixtures/expressions.py).
#include <gtest/gtest.h>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"
#include "tests/engine/jinja/fixtures.h"

namespace airllm::jinja {
namespace {

// What is refused here by name, and known to be (docs/tokenizers.md).
bool is_known_refusal(const std::string& message) {
  for (const char* part : {"64 bits", "complex number", "escaped text", "cannot be sliced",
                           "function cannot be printed"}) {
    if (message.find(part) != std::string::npos) return true;
  }
  return false;
}

Result<text::MarkedText> run(const std::string& source, const Map& variables) {
  AIRLLM_TRY(const Block block, parse(source, "t"));
  return Evaluator("t", variables).run(block);
}

TEST(Expressions, EqualTheReference) {
  const Json rows = read_fixture("expressions.json");
  ASSERT_GT(rows.size(), 1500U);
  Map variables;
  for (const auto& [name, value] : rows[0].items()) {
    variables.emplace_back(name, Value::from_json(value));
  }
  size_t left_out = 0;
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto source = rows[i][0].get<std::string>();
    const Result<text::MarkedText> result = run(source, variables);
    if (!result.has_value() && is_known_refusal(result.error().message)) {
      ++left_out;
    } else if (rows[i][1].is_null()) {
      EXPECT_FALSE(result.has_value()) << source << " gives " << result->text();
    } else if (result.has_value()) {
      EXPECT_EQ(result->text(), rows[i][1].get<std::string>()) << source;
    } else {
      ADD_FAILURE() << source << ": " << result.error().message;
    }
  }
  EXPECT_LT(left_out, rows.size() / 20);
}

}  // namespace
}  // namespace airllm::jinja
