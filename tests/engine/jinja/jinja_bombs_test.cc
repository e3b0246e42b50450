// Templates that would take all time or memory. Slow under sanitizers, so a program of its own.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace airllm::jinja {
namespace {

Result<text::MarkedText> run(const std::string& source) {
  AIRLLM_TRY(const Block block, parse(source, "t"));
  return Evaluator("t", {}).run(block);
}

// "a1=1,a2=1,…": as many names as fit into a template.
std::string many_names(const std::string& value) {
  std::string names;
  for (int i = 0; i < 60'000; ++i) names += "a" + std::to_string(i) + value + ",";
  return names;
}

std::vector<std::string> bombs() {
  const std::string forever = "{% for i in range(99999) %}{% for j in range(999) %}";
  const std::string forever_end = "{% endfor %}{% endfor %}";
  const std::string long_text = "{% set s = 'a' * 9999999 %}" + forever;
  const std::string spaces = "{% set s = ' ' * 9999999 %}" + forever;
  return {
      long_text + "{{ s | length }}" + forever_end,
      long_text + "{{ s | wordcount }}" + forever_end,
      long_text + "{{ s | int }}" + forever_end,
      long_text + "{{ s is lower }}" + forever_end,
      long_text + "{{ s.isalnum() }}" + forever_end,
      long_text + "{{ s[9] }}" + forever_end,
      long_text + "{{ 'b' in s }}" + forever_end,
      long_text + "{{ s in {'a': 1} }}" + forever_end,
      long_text + "{{ {'a': 1}[s] }}" + forever_end,
      spaces + "{{ s.strip() }}" + forever_end,
      spaces + "{{ s | trim }}" + forever_end,
      spaces + "{{ s | wordwrap }}" + forever_end,
      "{% macro m(" + many_names("") + "b=1) %}{% endmacro %}" + forever + "{{ m() }}" +
          forever_end,
      "{% macro m(" + many_names("") + "b=1) %}{% endmacro %}" + forever + "{{ m(" +
          many_names("=1") + ") }}" + forever_end,
      "{{ nope(" + many_names("=1") + ") }}",
      "{% set ns = namespace(t=(1, 2)) %}{% for i in range(20) %}{% set ns.t = (ns.t, ns.t) %}"
      "{% endfor %}" +
          forever + "{{ ns.t in {} }}" + forever_end,
      "{% set d = dict.fromkeys(range(99999)) %}" + forever + "{% set e = d.copy() %}" +
          forever_end,
      "{% set d = dict.fromkeys(range(99999)) %}" + forever + "{% set e = dict(d) %}" + forever_end,
      "{% set a = ['a' * 9000] * 999 %}" + forever + "{{ a | pprint }}" + forever_end,

      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s }}",
      "{{ 'a' * 99999999999 }}",
      "{{ ('a' * 9999999).replace('a', 'b' * 9999) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ " + std::string(50'000, '(') + "1" + std::string(50'000, ')') + " }}"};
}

// A case of its own for each, so that none hides behind another: whatever the build, it ends in
// seconds.
class Bombs : public testing::TestWithParam<size_t> {};

TEST_P(Bombs, AreErrors) {
  const std::string bomb = bombs()[GetParam()];
  const auto result = run(bomb);
  ASSERT_FALSE(result.has_value()) << bomb.substr(0, 200);
  EXPECT_EQ(result.error().code, ErrorCode::kData) << result.error().message;
}

INSTANTIATE_TEST_SUITE_P(Jinja, Bombs, testing::Range<size_t>(0, bombs().size()));

}  // namespace
}  // namespace airllm::jinja
