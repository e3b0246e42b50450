#include <gtest/gtest.h>

#include <string>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace airllm::jinja {
namespace {

Result<text::MarkedText> run(const std::string& source, const Map& variables = {}) {
  AIRLLM_TRY(const Block block, parse(source, "t"));
  return Evaluator("t", variables,
                   std::chrono::local_days(std::chrono::year(2024) / std::chrono::January / 9))
      .run(block);
}

std::string text_of(const std::string& source, const Map& variables = {}) {
  const auto result = run(source, variables);
  return result.has_value() ? result->text() : "ERROR " + result.error().message;
}

TEST(Jinja, EqualsTheReference) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ 2**3**2 }} {{ -2**2 }} {{ 1 ~ 2 + 3|string }}", "64 4 123"},
      {"{{ 2**3**2 }} {{ -2**2 }}", "64 4"},
      {"{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }}", "True False"},
      {"{{ [1, 'a', \"it's\", 1e16, none, (1,), {'k': 2.5}] }}",
       "[1, 'a', \"it's\", 1e+16, None, (1,), {'k': 2.5}]"},
      {"{% for x in [1,2,3] if x != 2 %}{{ loop.index }}{{ x }}{{ loop.last }} {% endfor %}",
       "11False 23True "},
      {"{% for x in [1,2] %}{% continue %}{% else %}none{% endfor %}", "none"},
      {"{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
       "{% call m(1) %}c{% endcall %}",
       "12c"},
      {"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}"
       "{{ ns.n }}",
       "6"},
      {"{{ 'a,b'.split(',') }} {{ '%s-%03d' % ('x', 7) }} {{ '{0}{a:>3}'.format(1, a=2) }}",
       "['a', 'b'] x-007 1  2"},
      {"{{ {'a': '<é>', 'b': [1, none]} | tojson }}", "{\"a\": \"<é>\", \"b\": [1, null]}"},
      {"{{ nope.x | default('y') }}", "ERROR"},
      {"{{ nope is sequence }}{{ nope }}", "True"},
      {"{% if false %}{{ 1 | unknown }}{% endif %}ok", "ok"},
      {"{{ 'ΑΣ'.lower() }}", "ας"},
      {"{{ [1].append(2) }}", "ERROR"},
      {"{{ range(100001) }}", "ERROR"},
      {"{{ 2.5 | round }} {{ 3.5 | round }}", "2.0 4.0"},
      {"{{ {'items': 1}['items'] }}", "1"},
      {"{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
      {"{% generation %}a{% endgeneration %}", "a"},
      {"{{ [3,1,2] | sort | join(',') }} {{ ['b','A'] | sort }}", "1,2,3 ['A', 'b']"},
      {"{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'equalto', 2) | list }}", "[{'a': 2}]"},
      {"{{ 'abc'[::-1] }} {{ 'abc'[-2:] }}", "cba bc"},
      {"{{ strftime_now('%Y-%m-%d') }}", "2024-01-09"}};
  for (const auto& [source, expected] : cases) {
    const std::string actual = text_of(source);
    if (std::string(expected) == "ERROR") {
      EXPECT_TRUE(actual.starts_with("ERROR")) << source << " gives " << actual;
    } else {
      EXPECT_EQ(actual, expected) << source;
    }
  }
}

TEST(Jinja, WhatAUserWroteStaysKnown) {
  const Map variables = {{"u", Value::string(text::MarkedText(" Us<er ", text::kUserOrigin))}};
  for (const char* source :
       {"{{ u }}", "{{ u.strip() }}", "{{ u | upper }}", "{{ u[1:3] }}", "{{ u[::-1] }}",
        "{{ u.split('s')[0] }}", "{{ ('x' + u).removeprefix('x') }}", "{{ u | replace('<', '<') }}",
        "{{ [u] | join }}", "{{ '%s' % u }}", "{{ '{}'.format(u) }}", "{{ u | trim }}"}) {
    const auto result = run(source, variables);
    ASSERT_TRUE(result.has_value()) << source << result.error().message;
    EXPECT_EQ(result->origin_at(0), text::kUserOrigin) << source;
  }
  const auto json = run("{{ {'k': u} | tojson }}", variables);
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(json->origin_at(0), kTemplateOrigin);
  EXPECT_EQ(json->origin_at(json->text().find("Us")), text::kUserOrigin);
}

TEST(Jinja, NamespacesMayHoldThemselves) {
  EXPECT_EQ(text_of("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}ok"), "ok");
}

}  // namespace
}  // namespace airllm::jinja
