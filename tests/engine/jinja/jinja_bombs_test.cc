// Templates that would take all time or memory. Slow under sanitizers, so a program of its own.
#include <gtest/gtest.h>

#include <string>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace airllm::jinja {
namespace {

Result<text::MarkedText> run(const std::string& source) {
  AIRLLM_TRY(const Block block, parse(source, "t"));
  return Evaluator("t", {}).run(block);
}

TEST(Jinja, BombsAreErrors) {
  const char* bombs[] = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s }}",
      "{{ 'a' * 99999999999 }}",
      "{{ ('a' * 9999999).replace('a', 'b' * 9999) }}",
      "{{ '%999999999d' % 1 }}"};
  for (const char* bomb : bombs) {
    const auto result = run(bomb);
    ASSERT_FALSE(result.has_value()) << bomb;
    EXPECT_EQ(result.error().code, ErrorCode::kData) << bomb;
  }
  EXPECT_FALSE(
      run("{{ " + std::string(50'000, '(') + "1" + std::string(50'000, ')') + " }}").has_value());
}

}  // namespace
}  // namespace airllm::jinja
