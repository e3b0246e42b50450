// The tests of templates: `value is name`.
#include <algorithm>
#include <map>

#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Test = Result<bool> (*)(Evaluator&, const Value&, const List&);

Result<Value> modulo(Evaluator& ev, const Value& value, const Value& by) {
  return ev.binary("%", value, by);
}

bool is_iterable(const Value& v) {
  return v.is_undefined() || v.as_string() != nullptr || v.as_list() != nullptr ||
         v.as_dict() != nullptr || v.as<Items>() != nullptr || v.as<Loop>() != nullptr;
}

bool is_sequence(const Value& v) {
  if (const auto* items = v.as<Items>()) return items->kind == Items::Kind::kRange;
  // Undefined has a length, and jinja2 finds its __getitem__.
  return v.is_undefined() || v.as_string() != nullptr || v.as_list() != nullptr ||
         v.as_dict() != nullptr;
}

template <bool upper>
Result<bool> is_case(Evaluator& ev, const Value& v, const List&) {
  AIRLLM_TRY(text::MarkedText text, ev.to_text(v));
  AIRLLM_TRY(const Value method,
             ev.attribute(Value::string(std::move(text)), upper ? "isupper" : "islower"));
  AIRLLM_TRY(const Value result, ev.call(method, {}));
  return result.truth();
}

Result<bool> is_equal(Evaluator& ev, const Value& v, const List& a) { return ev.equal(v, a[0]); }
Result<bool> is_less(Evaluator& ev, const Value& v, const List& a) { return ev.less(v, a[0]); }
Result<bool> is_greater(Evaluator& ev, const Value& v, const List& a) { return ev.less(a[0], v); }
Result<bool> is_unequal(Evaluator& ev, const Value& v, const List& a) {
  AIRLLM_TRY(const bool same, ev.equal(v, a[0]));
  return !same;
}
bool is_nan(const Value& v) { return v.as_real() != nullptr && *v.as_real() != *v.as_real(); }
Result<bool> is_at_most(Evaluator& ev, const Value& v, const List& a) {
  AIRLLM_TRY(const bool more, ev.less(a[0], v));
  return !more && !is_nan(v) && !is_nan(a[0]);
}
Result<bool> is_at_least(Evaluator& ev, const Value& v, const List& a) {
  AIRLLM_TRY(const bool less, ev.less(v, a[0]));
  return !less && !is_nan(v) && !is_nan(a[0]);
}

template <bool (*holds)(const Value&)>
Result<bool> plain(Evaluator&, const Value& v, const List&) {
  return holds(v);
}
bool is_callable(const Value& v) {
  return v.is_undefined() || (v.as_object() != nullptr && (*v.as_object())->callable());
}

struct Entry {
  size_t arguments;
  Test test;
};

template <int rest>
Result<bool> is_modulo(Evaluator& ev, const Value& v, const List&) {
  AIRLLM_TRY(const Value result, modulo(ev, v, Value::integer(2)));
  return result == Value::integer(rest);
}
Result<bool> is_divisible(Evaluator& ev, const Value& v, const List& a) {
  AIRLLM_TRY(const Value result, modulo(ev, v, a[0]));
  return result == Value::integer(0);
}
template <bool (*known)(std::string_view)>
Result<bool> is_name_of(Evaluator& ev, const Value& v, const List&) {
  if (!is_hashable(v)) return ev.error("a " + v.type_name() + " is no name");
  return v.as_string() != nullptr && known(v.as_string()->text());
}

std::map<std::string_view, Entry> make_tests() {
  std::map<std::string_view, Entry> table;
  const auto add = [&](std::string_view name, size_t arguments, Test test) {
    table.emplace(name, Entry{arguments, test});
  };
  add("odd", 0, is_modulo<1>);
  add("even", 0, is_modulo<0>);
  add("divisibleby", 1, is_divisible);
  add("defined", 0,
      [](Evaluator&, const Value& v, const List&) -> Result<bool> { return !v.is_undefined(); });
  add("undefined", 0,
      [](Evaluator&, const Value& v, const List&) -> Result<bool> { return v.is_undefined(); });
  add("none", 0,
      [](Evaluator&, const Value& v, const List&) -> Result<bool> { return v.is_none(); });
  add("boolean", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_boolean() != nullptr;
  });
  add("false", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_boolean() != nullptr && !*v.as_boolean();
  });
  add("true", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_boolean() != nullptr && *v.as_boolean();
  });
  add("integer", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_integer() != nullptr;
  });
  add("float", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_real() != nullptr;
  });
  add("string", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_string() != nullptr;
  });
  add("mapping", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.as_dict() != nullptr;
  });
  add("number", 0, [](Evaluator&, const Value& v, const List&) -> Result<bool> {
    return v.is_number() || v.as_boolean() != nullptr;
  });
  add("escaped", 0,
      [](Evaluator&, const Value& v, const List&) -> Result<bool> { return v.is_markup(); });
  add("sequence", 0, plain<is_sequence>);
  add("iterable", 0, plain<is_iterable>);
  add("callable", 0, plain<is_callable>);
  add("lower", 0, is_case<false>);
  add("upper", 0, is_case<true>);
  add("sameas", 1,
      [](Evaluator&, const Value& v, const List& a) -> Result<bool> { return v.is(a[0]); });
  add("in", 1, [](Evaluator& ev, const Value& v, const List& a) { return ev.contains(a[0], v); });
  add("filter", 0, is_name_of<is_filter_name>);
  add("test", 0, is_name_of<is_test_name>);
  add("==", 1, is_equal);
  add("eq", 1, is_equal);
  add("equalto", 1, is_equal);
  add("!=", 1, is_unequal);
  add("ne", 1, is_unequal);
  add(">", 1, is_greater);
  add("gt", 1, is_greater);
  add("greaterthan", 1, is_greater);
  add("ge", 1, is_at_least);
  add(">=", 1, is_at_least);
  add("<", 1, is_less);
  add("lt", 1, is_less);
  add("lessthan", 1, is_less);
  add("<=", 1, is_at_most);
  add("le", 1, is_at_most);
  return table;
}

const std::map<std::string_view, Entry>& tests() {
  static const std::map<std::string_view, Entry> table = make_tests();
  return table;
}

}  // namespace

bool is_test_name(std::string_view name) { return tests().contains(name); }

Result<bool> run_test(Evaluator& ev, const std::string& name, const Value& value, Call call) {
  const Entry& entry = tests().at(name);
  if (!call.keywords.empty() &&
      !(call.keywords.size() == 1 && entry.arguments == 1 && call.positional.empty())) {
    return ev.error("the test '" + name + "' does not take these arguments");
  }
  for (auto& [keyword, argument] : call.keywords) {
    const std::string_view expected = name == "divisibleby" ? "num"
                                      : name == "sameas"    ? "other"
                                      : name == "in"        ? "seq"
                                                            : "";
    if (keyword.text() != expected)
      return ev.error("the test '" + name + "' has no argument '" + keyword.text() + "'");
    call.positional.push_back(std::move(argument));
  }
  if (call.positional.size() != entry.arguments) {
    return ev.error("the test '" + name + "' takes " + std::to_string(entry.arguments) +
                    " arguments");
  }
  return entry.test(ev, value, call.positional);
}

}  // namespace airllm::jinja
