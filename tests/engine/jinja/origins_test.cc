// What a user wrote stays known as such through everything that a template can do to it, and what
// the template wrote is never taken for it. Whatever is added to the tables of filters, methods and
// functions needs a row here.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/parser.h"

namespace airllm::jinja {
namespace {

Value user(std::string_view text) {
  return Value::string(text::MarkedText(text, text::kUserOrigin));
}

// The user's strings: u, a control token; w, three of them on two lines; p, padded; c, by commas;
// d, a mapping; l, a list of mappings.
Map variables() {
  Dict mapping;
  mapping.set(user("<|k|>"), user("<|v|>"));
  Dict row;
  row.set(user("name"), user("<|r|>"));
  return {{"u", user("<|Im|>")},
          {"w", user("<|a|> <|b|>\n<|c|>")},
          {"p", user("  <|p|>  ")},
          {"c", user("<|x|>,<|y|>,<|z|>")},
          {"t", user("a\t<|t|>")},
          {"f", user("<|%s|>{}")},
          {"lt", user("<")},
          {"d", Value::dict(std::move(mapping))},
          {"l", Value::list({Value::dict(std::move(row))})}};
}

// The output with what is the user's in ⟦⟧.
std::string shown(const std::string& source) {
  const Result<Block> block = parse(source, "t");
  if (!block.has_value()) return "ERROR " + block.error().message;
  using namespace std::chrono;
  const LocalTime now = local_days(year(2024) / February / 29) + hours(5);
  const Result<text::MarkedText> text = Evaluator("t", variables(), now).run(*block);
  if (!text.has_value()) return "ERROR " + text.error().message;
  std::string out;
  size_t begin = 0;
  for (const text::MarkedText::Run& run : text->runs()) {
    const std::string part = text->text().substr(begin, run.end - begin);
    out += run.origin == text::kUserOrigin ? "⟦" + part + "⟧" : part;
    begin = run.end;
  }
  return out;
}

struct Row {
  const char* what;  // "filter NAME", "method TYPE.NAME", "function NAME", or the operation
  const char* source;
  const char* expected;
};

constexpr Row kRows[] = {
    {"filter abs", "{{ -3 | abs }}", "3"},
    {"filter attr", "{{ d | attr('<|k|>') }}{{ l[0] | attr('name') }}{{ (u | attr('upper'))() }}",
     "⟦<|IM|>⟧"},
    {"filter batch", "{{ [u, 'a', u] | batch(2, u) | map('join', '-') | join('/') }}",
     "⟦<|Im|>⟧-a/⟦<|Im|>⟧-⟦<|Im|>⟧"},
    {"filter capitalize", "{{ u | capitalize }}{{ 'aB' | capitalize }}", "⟦<|im|>⟧Ab"},
    {"filter center", "{{ u | center(10) }}|", "  ⟦<|Im|>⟧  |"},
    {"filter count", "{{ u | count }}", "6"},
    {"filter d", "{{ nope | d(u) }}{{ nope | d('a') }}{{ u | d('a') }}", "⟦<|Im|>⟧a⟦<|Im|>⟧"},
    {"filter default", "{{ nope | default(u) }}{{ '' | default('a', true) }}", "⟦<|Im|>⟧a"},
    {"filter dictsort", "{{ d | dictsort }}", "[('⟦<|k|>⟧', '⟦<|v|>⟧')]"},
    {"filter e", "{{ u | e }}{{ '<' | e }}", "⟦&lt;|Im|&gt;⟧&lt;"},
    {"filter escape", "{{ u | escape }}{{ ('<' ~ u) | escape }}",
     "⟦&lt;|Im|&gt;⟧&lt;⟦&lt;|Im|&gt;⟧"},
    {"filter filesizeformat", "{{ 1000 | filesizeformat }}", "1.0 kB"},
    {"filter first", "{{ u | first }}{{ [u] | first }}{{ 'ab' | first }}", "⟦<<|Im|>⟧a"},
    {"filter float", "{{ '1.5' | float }}{{ u | float(u) }}", "1.5⟦<|Im|>⟧"},
    {"filter forceescape", "{{ u | safe | forceescape }}", "⟦&lt;|Im|&gt;⟧"},
    {"filter format",
     "{{ 'a%s%5.3s%%' | format(u, u) }}{{ '%(k)s' | format(k=u) }}{{ f | format('T') }}",
     "a⟦<|Im|>⟧  ⟦<|I⟧%⟦<|Im|><|⟧T⟦|>{}⟧"},
    {"filter groupby", "{{ l | groupby('name') }}", "[('⟦<|r|>⟧', [{'⟦name⟧': '⟦<|r|>⟧'}])]"},
    {"filter indent", "{{ w | indent(1, true) }}/{{ 'a\nb' | indent(lt) }}",
     " ⟦<|a|> <|b|>⟧\n ⟦<|c|>⟧/a\n⟦<⟧b"},
    {"filter int", "{{ '7' | int }}{{ u | int(u) }}", "7⟦<|Im|>⟧"},
    {"filter items", "{% for k, v in d | items %}{{ k }}={{ v }}{% endfor %}", "⟦<|k|>⟧=⟦<|v|>⟧"},
    {"filter join",
     "{{ [u, 'a', u] | join(', ') }}{{ ['a', 'b'] | join(u) }}{{ l | join(attribute='name') }}",
     "⟦<|Im|>⟧, a, ⟦<|Im|>⟧a⟦<|Im|>⟧b⟦<|r|>⟧"},
    {"filter last", "{{ u | last }}{{ ['a', u] | last }}", "⟦><|Im|>⟧"},
    {"filter length", "{{ u | length }}", "6"},
    {"filter list", "{{ lt | list }}", "['⟦<⟧']"},
    {"filter lower", "{{ u | lower }}{{ 'A' | lower }}", "⟦<|im|>⟧a"},
    {"filter map",
     "{{ l | map(attribute='name') | first }}{{ [u] | map('upper') | first }}"
     "{{ l | map(attribute='no', default='a') | first }}{{ l | map(attribute='no', default=u) | "
     "first }}",
     "⟦<|r|><|IM|>⟧a⟦<|Im|>⟧"},
    {"filter max", "{{ [u, '!'] | max }}", "⟦<|Im|>⟧"},
    {"filter min", "{{ [u, '~'] | min }}", "⟦<|Im|>⟧"},
    {"filter reject", "{{ [u, 1] | reject('number') | list }}", "['⟦<|Im|>⟧']"},
    {"filter rejectattr", "{{ l | rejectattr('no') | list }}", "[{'⟦name⟧': '⟦<|r|>⟧'}]"},
    {"filter replace",
     "{{ u | replace('Im', 'a') }}{{ 'abc' | replace('b', u) }}{{ 'a<' | replace(lt, 'b') }}",
     "⟦<|⟧a⟦|>⟧a⟦<|Im|>⟧cab"},
    {"filter reverse", "{{ u | reverse }}{{ [u, 'a'] | reverse | list }}",
     "⟦>|mI|<⟧['a', '⟦<|Im|>⟧']"},
    {"filter round", "{{ 2.5 | round }}", "2.0"},
    {"filter safe", "{{ u | safe }}{{ 'a' | safe }}", "⟦<|Im|>⟧a"},
    {"filter select", "{{ [u, 1] | select('string') | list }}", "['⟦<|Im|>⟧']"},
    {"filter selectattr", "{{ l | selectattr('name') | list }}", "[{'⟦name⟧': '⟦<|r|>⟧'}]"},
    {"filter slice", "{{ [u, 'a', u] | slice(2, u) | list }}",
     "[['⟦<|Im|>⟧', 'a'], ['⟦<|Im|>⟧', '⟦<|Im|>⟧']]"},
    {"filter sort", "{{ ['b', u] | sort }}", "['⟦<|Im|>⟧', 'b']"},
    {"filter string", "{{ u | string }}{{ [u] | string }}", "⟦<|Im|>⟧['⟦<|Im|>⟧']"},
    {"filter sum", "{{ [[u], ['a']] | sum(start=[]) }}", "['⟦<|Im|>⟧', 'a']"},
    {"filter title", "{{ u | title }}{{ 'ab' | title }}", "⟦<|im|>⟧Ab"},
    {"filter tojson",
     "{{ {'a': u, u: 'b'} | tojson }}{{ u | tojson(indent=lt) }}{{ [u, 1] | tojson(indent=lt) }}",
     "{\"a\": \"⟦<|Im|>⟧\", \"⟦<|Im|>⟧\": \"b\"}\"⟦<|Im|>⟧\"[\n⟦<⟧\"⟦<|Im|>⟧\",\n⟦<⟧1\n]"},
    {"filter trim", "{{ p | trim }}{{ ' a ' | trim }}", "⟦<|p|>⟧a"},
    {"filter truncate",
     "{{ w | truncate(8, true, '~', 0) }}{{ 'abcdefgh' | truncate(4, true, lt, 0) }}",
     "⟦<|a|> <⟧~abc⟦<⟧"},
    {"filter unique", "{{ [u, u, 'a'] | unique | list }}", "['⟦<|Im|>⟧', 'a']"},
    {"filter upper", "{{ u | upper }}{{ 'ß' | upper }}", "⟦<|IM|>⟧SS"},
    {"filter urlencode", "{{ u | urlencode }}{{ {'a': lt} | urlencode }}{{ d | urlencode }}",
     "⟦%3C%7CIm%7C%3E⟧a=⟦%3C%3C%7Ck%7C%3E⟧=⟦%3C%7Cv%7C%3E⟧"},
    {"filter wordcount", "{{ w | wordcount }}", "3"},

    {"filter pprint", "{{ u | pprint }}{{ {'b': [u * 9, 1], lt: u * 9} | pprint }}",
     "'⟦<|Im|>⟧'{'⟦<⟧': '⟦<|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|>⟧',\n"
     " 'b': ['⟦<|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|><|Im|>⟧', 1]}"},
    {"filter wordwrap", "{{ w | wordwrap(6) }}{{ 'ab' | wordwrap(1, true, lt) }}",
     "⟦<|a|>⟧\n⟦<|b|>⟧\n⟦<|c|>⟧a⟦<⟧b"},
    {"filter xmlattr", "{{ {'a': u, lt: 'b'} | xmlattr }}", " a=\"⟦&lt;|Im|&gt;⟧\" ⟦&lt;⟧=\"b\""},

    {"method str.upper", "{{ u.upper() }}{{ 'a'.upper() }}", "⟦<|IM|>⟧A"},
    {"method str.lower", "{{ u.lower() }}", "⟦<|im|>⟧"},
    {"method str.title", "{{ u.title() }}", "⟦<|Im|>⟧"},
    {"method str.capitalize", "{{ u.capitalize() }}", "⟦<|im|>⟧"},
    {"method str.swapcase", "{{ u.swapcase() }}", "⟦<|iM|>⟧"},
    {"method str.casefold", "{{ u.casefold() }}", "⟦<|im|>⟧"},
    {"method str.strip", "{{ p.strip() }}{{ u.strip('<>') }}", "⟦<|p|>|Im|⟧"},
    {"method str.lstrip", "{{ p.lstrip() }}{{ 'xa'.lstrip('x') }}", "⟦<|p|>  ⟧a"},
    {"method str.rstrip", "{{ p.rstrip() }}", "⟦  <|p|>⟧"},
    {"method str.split", "{{ c.split(',') }}{{ w.split() }}",
     "['⟦<|x|>⟧', '⟦<|y|>⟧', '⟦<|z|>⟧']['⟦<|a|>⟧', '⟦<|b|>⟧', '⟦<|c|>⟧']"},
    {"method str.rsplit", "{{ c.rsplit(',', 1) }}{{ w.rsplit(none, 1) }}",
     "['⟦<|x|>,<|y|>⟧', '⟦<|z|>⟧']['⟦<|a|> <|b|>⟧', '⟦<|c|>⟧']"},
    {"method str.splitlines", "{{ w.splitlines() }}", "['⟦<|a|> <|b|>⟧', '⟦<|c|>⟧']"},
    {"method str.partition", "{{ c.partition(',') }}", "('⟦<|x|>⟧', '⟦,⟧', '⟦<|y|>,<|z|>⟧')"},
    {"method str.rpartition", "{{ c.rpartition(',') }}", "('⟦<|x|>,<|y|>⟧', '⟦,⟧', '⟦<|z|>⟧')"},
    {"method str.replace", "{{ c.replace(',', ';', 1) }}{{ 'ab'.replace('', lt) }}",
     "⟦<|x|>⟧;⟦<|y|>,<|z|><⟧a⟦<⟧b⟦<⟧"},
    {"method str.find", "{{ u.find('I') }}", "2"},
    {"method str.index", "{{ u.index('I') }}", "2"},
    {"method str.rfind", "{{ u.rfind('|') }}", "4"},
    {"method str.rindex", "{{ u.rindex('|') }}", "4"},
    {"method str.count", "{{ u.count('|') }}", "2"},
    {"method str.startswith", "{{ u.startswith('<') }}", "True"},
    {"method str.endswith", "{{ u.endswith('<') }}", "False"},
    {"method str.removeprefix", "{{ u.removeprefix('<') }}{{ ('a' + u).removeprefix('a<') }}",
     "⟦|Im|>|Im|>⟧"},
    {"method str.removesuffix", "{{ u.removesuffix('>') }}", "⟦<|Im|⟧"},
    {"method str.join", "{{ u.join(['a', 'b']) }}{{ '-'.join([u, u]) }}",
     "a⟦<|Im|>⟧b⟦<|Im|>⟧-⟦<|Im|>⟧"},
    {"method str.center", "{{ u.center(8, '*') }}{{ 'a'.center(3, lt) }}", "*⟦<|Im|>⟧*⟦<⟧a⟦<⟧"},
    {"method str.ljust", "{{ u.ljust(7, '*') }}{{ 'a'.ljust(2, lt) }}", "⟦<|Im|>⟧*a⟦<⟧"},
    {"method str.rjust", "{{ u.rjust(7, '*') }}{{ 'a'.rjust(2, lt) }}", "*⟦<|Im|><⟧a"},
    {"method str.zfill", "{{ u.zfill(8) }}{{ ('-' + u).zfill(8) }}", "00⟦<|Im|>⟧-0⟦<|Im|>⟧"},
    {"method str.expandtabs", "{{ t.expandtabs(4) }}", "⟦a   <|t|>⟧"},
    {"method str.isspace", "{{ u.isspace() }}", "False"},
    {"method str.isalpha", "{{ u.isalpha() }}", "False"},
    {"method str.isdecimal", "{{ u.isdecimal() }}", "False"},
    {"method str.isdigit", "{{ u.isdigit() }}", "False"},
    {"method str.isnumeric", "{{ u.isnumeric() }}", "False"},
    {"method str.isalnum", "{{ u.isalnum() }}", "False"},
    {"method str.islower", "{{ u.islower() }}", "False"},
    {"method str.isupper", "{{ u.isupper() }}", "False"},
    {"method str.istitle", "{{ u.istitle() }}", "True"},
    {"method str.isascii", "{{ u.isascii() }}", "True"},
    {"method str.isprintable", "{{ u.isprintable() }}", "True"},
    {"method str.format",
     "{{ 'a{}{k}{:*^8}{!r}'.format(u, u, u, k=u) }}{{ '{:{}}'.format('a', lt ~ '>3') }}{{ "
     "f.format('T') }}",
     "a⟦<|Im|><|Im|>⟧*⟦<|Im|>⟧*'⟦<|Im|>⟧'⟦<<⟧a⟦<|%s|>⟧T"},
    {"method list.index", "{{ ['a', u].index(u) }}", "1"},
    {"method list.count", "{{ [u].count(u) }}", "1"},
    {"method list.copy", "{{ [u, 'a'].copy() }}", "['⟦<|Im|>⟧', 'a']"},
    {"method dict.keys", "{{ d.keys() | list }}{{ d.keys() }}",
     "['⟦<|k|>⟧']dict_keys(['⟦<|k|>⟧'])"},
    {"method dict.values", "{{ d.values() | list }}", "['⟦<|v|>⟧']"},
    {"method dict.items", "{{ d.items() | list }}", "[('⟦<|k|>⟧', '⟦<|v|>⟧')]"},
    {"method dict.get", "{{ d.get('<|k|>') }}{{ d.get('', u) }}{{ d.get('', 'a') }}",
     "⟦<|v|><|Im|>⟧a"},
    {"method dict.copy", "{{ d.copy() }}", "{'⟦<|k|>⟧': '⟦<|v|>⟧'}"},

    {"function range", "{{ range(2) | list }}", "[0, 1]"},
    {"function dict", "{{ dict(d, a=u) }}{{ dict(**d) }}",
     "{'⟦<|k|>⟧': '⟦<|v|>⟧', 'a': '⟦<|Im|>⟧'}{'⟦<|k|>⟧': '⟦<|v|>⟧'}"},
    {"function namespace", "{% set n = namespace(a=u, **d) %}{{ n.a }}{{ n }}",
     "⟦<|Im|>⟧<Namespace {'a': '⟦<|Im|>⟧', '⟦<|k|>⟧': '⟦<|v|>⟧'}>"},
    {"function raise_exception", "{{ raise_exception('a') }}", "ERROR a"},
    {"function strftime_now",
     "{{ strftime_now('%Y') }}{{ strftime_now('%%' ~ u) }}{{ strftime_now(u) }}",
     "2024⟦%<|Im|><|Im|>⟧"},
    {"function cycler", "{% set c = cycler(u, 'a') %}{{ c.next() }}{{ c.next() }}{{ c.current }}",
     "⟦<|Im|>⟧a⟦<|Im|>⟧"},
    {"function joiner", "{% set j = joiner(u) %}{{ j() }}a{{ j() }}", "a⟦<|Im|>⟧"},
    {"function lipsum", "{{ lipsum() }}",
     "ERROR t: line 1: lipsum() is random, which is not supported"},

    {"print", "<|{{ u }}|>", "<|⟦<|Im|>⟧|>"},
    {"+", "{{ 'a' + u + 'b' }}{{ [u] + ['a'] }}", "a⟦<|Im|>⟧b['⟦<|Im|>⟧', 'a']"},
    {"~", "{{ 'a' ~ u ~ 1 }}", "a⟦<|Im|>⟧1"},
    {"*", "{{ lt * 3 }}{{ 2 * 'a' }}", "⟦<<<⟧aa"},
    {"%", "{{ 'a%s%r%-8s|%c' % (u, u, u, lt) }}{{ '%(k)s' % {'k': u} }}",
     "a⟦<|Im|>⟧'⟦<|Im|>⟧'⟦<|Im|>⟧  |⟦<<|Im|>⟧"},
    {"% of a number", "{{ '%c' % 60 }}", "⟦<⟧"},
    {"[]", "{{ u[0] }}{{ u[-1] }}{{ d['<|k|>'] }}{{ ('a' + u)[0] }}", "⟦<><|v|>⟧a"},
    {"[:]", "{{ u[1:3] }}{{ u[::-1] }}{{ ('a' + u)[:2] }}", "⟦|I>|mI|<⟧a⟦<⟧"},
    {".", "{{ l[0].name }}", "⟦<|r|>⟧"},
    {"if", "{{ u if true }}{{ u if false else 'a' }}{{ u or 'a' }}{{ '' and u }}{{ 'a' and u }}",
     "⟦<|Im|>⟧a⟦<|Im|><|Im|>⟧"},
    {"for",
     "{% for x in lt %}{{ x }}{{ loop.cycle(u, 'a') }}{% endfor %}"
     "{% for k in d %}{{ k }}{% endfor %}{% for x in [u, 'a'] %}{{ loop.previtem }}{{ "
     "loop.nextitem }}{% endfor %}",
     "⟦<<|Im|><|k|>⟧a⟦<|Im|>⟧"},
    {"recursive for",
     "{% for x in [[u]] recursive %}({{ loop(x) if x is not string else x }}){% endfor %}",
     "((⟦<|Im|>⟧))"},
    {"set",
     "{% set a = u %}{{ a }}{% set b %}a{{ u }}{% endset %}{{ b }}"
     "{% set b | upper %}a{{ u }}{% endset %}{{ b }}{% set a, b = lt ~ 'b' %}{{ a }}{{ b }}",
     "⟦<|Im|>⟧a⟦<|Im|>⟧A⟦<|IM|><⟧b"},
    {"with", "{% with a = u %}{{ a }}{% endwith %}", "⟦<|Im|>⟧"},
    {"filter block", "{% filter upper %}a{{ u }}{% endfilter %}", "A⟦<|IM|>⟧"},
    {"macro",
     "{% macro m(a, b=u) %}x{{ a }}{{ b }}{{ kwargs }}{{ varargs }}{% endmacro %}"
     "{{ m(u, 'b', u, k=u) }}{{ m('a', 'b', **d) }}",
     "x⟦<|Im|>⟧b{'k': '⟦<|Im|>⟧'}('⟦<|Im|>⟧',)xab{'⟦<|k|>⟧': '⟦<|v|>⟧'}()"},
    {"call", "{% macro m() %}x{{ caller(u) }}{% endmacro %}{% call(y) m() %}{{ y }}a{% endcall %}",
     "x⟦<|Im|>⟧a"},
    {"str()", "{{ [u, (u,), {'a': u}] }}", "['⟦<|Im|>⟧', ('⟦<|Im|>⟧',), {'a': '⟦<|Im|>⟧'}]"},
    {"fromkeys", "{{ dict.fromkeys([u], u) }}", "{'⟦<|Im|>⟧': '⟦<|Im|>⟧'}"},
    {"markup", "{{ ('<' | safe) + u }}{{ u | e | replace('Im', '<' | safe) }}",
     "<⟦&lt;|Im|&gt;&lt;|⟧<⟦|&gt;⟧"},
};

TEST(Origins, StayThroughEverything) {
  for (const Row& row : kRows) EXPECT_EQ(shown(row.source), row.expected) << row.what;
}

TEST(Origins, EveryFilterMethodAndFunctionHasARow) {
  std::set<std::string> rows;
  for (const Row& row : kRows) EXPECT_TRUE(rows.insert(row.what).second) << row.what << " twice";
  std::set<std::string> known;
  for (const std::string& name : filter_names()) known.insert("filter " + name);
  for (const std::string& name : method_names()) known.insert("method " + name);
  for (const auto& [name, value] : global_functions()) known.insert("function " + name);
  for (const std::string& name : known) EXPECT_TRUE(rows.contains(name)) << name << " has no row";
  for (const Row& row : kRows) {
    const std::string what = row.what;
    const bool named = what.starts_with("filter ") && what != "filter block";
    if (!named && !what.starts_with("method ") && !what.starts_with("function ")) continue;
    EXPECT_TRUE(known.contains(what)) << what << " is not there";
    // It must be its own name that the row tries.
    const std::string name = what.substr(what.find_first_of(" ") + 1);
    EXPECT_NE(std::string(row.source).find(name.substr(name.find('.') + 1)), std::string::npos)
        << what;
  }
}

}  // namespace
}  // namespace airllm::jinja
