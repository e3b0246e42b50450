// The filters of templates: `value | name`.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "engine/jinja/json.h"
#include "engine/jinja/layout_filters.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Text = text::MarkedText;
using Filter = Result<Value> (*)(Evaluator&, const Value&, Call);
using Optional = std::optional<Value>;

Value number(size_t n) { return Value::integer(static_cast<int64_t>(n)); }
bool truth(const Optional& value) { return value.has_value() && value->truth(); }
bool given_value(const Optional& value) { return value.has_value() && !value->is_none(); }

// The value as a string on which the method runs.
template <const char* name>
Result<Value> by_method(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(Text text, ev.to_text(value));
  const Value self = value.as_string() != nullptr ? value : Value::string(std::move(text));
  AIRLLM_TRY(const Value method, ev.attribute(self, name));
  return ev.call(method, std::move(call));
}
constexpr char kUpperName[] = "upper";
constexpr char kLowerName[] = "lower";
constexpr char kCapitalizeName[] = "capitalize";
constexpr char kStripName[] = "strip";

// What attribute="a.b.0" reaches.
class Getter {
 public:
  Getter(Evaluator& ev, const Optional& attribute) : ev_(ev) {
    if (!given_value(attribute)) return;
    const Text* path = attribute->as_string();
    if (path == nullptr) {
      parts_.push_back(*attribute);
      return;
    }
    for (const Text& part : split(*path, ".", -1)) {
      const std::string& name = part.text();
      const bool digits = !name.empty() && name.size() < 10 &&
                          name.find_first_not_of("0123456789") == std::string::npos;
      parts_.push_back(digits ? Value::integer(std::atoi(name.c_str())) : Value::string(part));
    }
  }
  Result<Value> operator()(const Value& value) const {
    Value result = value;
    for (const Value& part : parts_) {
      AIRLLM_TRY(result, ev_.item(result, part));
      if (given_value(fallback) && result.is_undefined()) result = *fallback;
    }
    if (ignore_case && result.as_string() != nullptr) {
      AIRLLM_TRY_VOID(ev_.charge(result.as_string()->size()));
      result = Value::string(change_case(*result.as_string(), Case::kLower));
    }
    return result;
  }
  bool ignore_case = false;
  Optional fallback;

 private:
  Evaluator& ev_;
  List parts_;
};

Result<Value> lazily(List values, std::optional<Error> error) {
  Value result = make_items(Items::Kind::kIterator, "generator", std::move(values));
  result.as<Items>()->error = std::move(error);
  return result;
}

Result<Value> length(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "length", std::move(call), {}, 0));
  if (value.is_undefined()) return number(0);
  if (value.as_string() != nullptr) return number(character_count(*value.as_string()));
  if (value.as_list() != nullptr) return number(value.as_list()->size());
  if (value.as_dict() != nullptr) return number(value.as_dict()->size());
  const auto* items = value.as<Items>();
  if (items != nullptr && items->kind != Items::Kind::kIterator)
    return number(items->values.size());
  if (auto* loop = value.as<Loop>()) {
    AIRLLM_TRY_VOID(loop->has(kMaxSteps));
    return number(loop->values.size());
  }
  return ev.error("a value of type " + value.type_name() + " has no length");
}

Result<Value> default_filter(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "default", std::move(call), {"default_value", "boolean"}, 0));
  if (value.is_undefined() || (truth(given[1]) && !value.truth()))
    return given[0].value_or(Value::literal(""));
  return value;
}

Result<Value> join(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "join", std::move(call), {"d", "attribute"}, 0));
  AIRLLM_TRY(const Text separator, ev.to_text(given[0].value_or(Value::literal(""))));
  const Getter getter(ev, given[1]);
  AIRLLM_TRY(const List values, ev.iterate(value));
  Text result;
  for (size_t i = 0; i < values.size(); ++i) {
    AIRLLM_TRY(const Value element, getter(values[i]));
    AIRLLM_TRY(const Text part, ev.to_text(element));
    AIRLLM_TRY_VOID(ev.charge(part.size() + separator.size()));
    if (i != 0) result.append(separator);
    result.append(part);
  }
  return Value::string(std::move(result));
}

Result<Value> tojson(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "tojson", std::move(call),
                                    {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonStyle style;
  style.ascii = truth(given[0]);
  style.sort_keys = truth(given[3]);
  if (given_value(given[1])) {
    if (const Text* text = given[1]->as_string()) {
      style.indent = *text;
    } else {
      AIRLLM_TRY(const int64_t width, integer_argument(ev, *given[1]));
      style.indent =
          Text(std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' '),
               kTemplateOrigin);
    }
    style.item_separator = Text(",", kTemplateOrigin);
  }
  if (given_value(given[2])) {
    AIRLLM_TRY(const List separators, ev.iterate(*given[2]));
    if (separators.size() != 2 || separators[0].as_string() == nullptr ||
        separators[1].as_string() == nullptr) {
      return ev.error("separators are two strings");
    }
    style.item_separator = *separators[0].as_string();
    style.key_separator = *separators[1].as_string();
  }
  AIRLLM_TRY(Text text, dump(ev, value, style));
  return Value::string(std::move(text));
}

Result<Value> to_list(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "list", std::move(call), {}, 0));
  AIRLLM_TRY(List values, ev.iterate(value));
  return Value::list(std::move(values));
}

Result<Value> first(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "first", std::move(call), {}, 0));
  if (auto* items = value.as<Items>(); items != nullptr && items->kind == Items::Kind::kIterator) {
    if (items->at < items->values.size()) return items->values[items->at++];
  }
  AIRLLM_TRY(const List values, ev.iterate(value));
  if (values.empty()) return Value::undefined_because("No first item, sequence was empty.");
  return values.front();
}

bool is_reversible(const Value& value) {
  const auto* items = value.as<Items>();
  return value.as_string() != nullptr || value.as_list() != nullptr || value.as_dict() != nullptr ||
         (items != nullptr && items->kind != Items::Kind::kIterator);
}

Result<Value> last(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "last", std::move(call), {}, 0));
  if (!value.is_undefined() && !is_reversible(value))
    return ev.error("a value of type " + value.type_name() + " cannot be reversed");
  AIRLLM_TRY(const List values, ev.iterate(value));
  if (values.empty()) return Value::undefined_because("No last item, sequence was empty.");
  return values.back();
}

Result<Value> reverse(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "reverse", std::move(call), {}, 0));
  if (value.as_string() != nullptr) {
    return ev.slice(value, Value::none(), Value::none(), Value::integer(-1));
  }
  const bool iterator =
      value.as<Items>() != nullptr && value.as<Items>()->kind == Items::Kind::kIterator;
  AIRLLM_TRY(List values, ev.iterate(value));
  std::reverse(values.begin(), values.end());
  if (iterator) return Value::list(std::move(values));
  return make_items(Items::Kind::kIterator, "list_reverseiterator", std::move(values));
}

Result<Value> sort(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "sort", std::move(call), {"reverse", "case_sensitive", "attribute"}, 0));
  AIRLLM_TRY(const List values, ev.iterate(value));
  std::vector<Getter> getters;
  if (given_value(given[2]) && given[2]->as_string() != nullptr) {
    for (const Text& part : split(*given[2]->as_string(), ",", -1))
      getters.emplace_back(ev, Value::string(part));
  } else {
    getters.emplace_back(ev, given[2]);
  }
  List keys;
  for (const Value& element : values) {
    List key;
    for (Getter& getter : getters) {
      getter.ignore_case = !truth(given[1]);
      AIRLLM_TRY(Value part, getter(element));
      key.push_back(std::move(part));
    }
    keys.push_back(Value::tuple(std::move(key)));
  }
  AIRLLM_TRY(const std::vector<size_t> order, sorted_order(ev, keys, truth(given[0])));
  List sorted;
  for (const size_t i : order) sorted.push_back(values[i]);
  return Value::list(std::move(sorted));
}

Result<Value> dictsort(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "dictsort", std::move(call), {"case_sensitive", "by", "reverse"}, 0));
  const Value by = given[1].value_or(Value::literal("key"));
  if (!(by == Value::literal("key")) && !(by == Value::literal("value")))
    return ev.error("dictsort sorts by key or by value");
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (value.as_dict() == nullptr) return ev.error("dictsort needs a mapping");
  Getter getter(ev, std::nullopt);
  getter.ignore_case = !truth(given[0]);
  List keys;
  for (const Dict::Entry& entry : value.as_dict()->entries()) {
    AIRLLM_TRY(Value key, getter(by == Value::literal("key") ? entry.key : entry.value));
    keys.push_back(std::move(key));
  }
  AIRLLM_TRY(const std::vector<size_t> order, sorted_order(ev, keys, truth(given[2])));
  List sorted;
  for (const size_t i : order) {
    const Dict::Entry& entry = value.as_dict()->entries()[i];
    sorted.push_back(Value::tuple({entry.key, entry.value}));
  }
  return Value::list(std::move(sorted));
}

Result<Value> unique(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "unique", std::move(call), {"case_sensitive", "attribute"}, 0));
  Getter getter(ev, given[1]);
  getter.ignore_case = !truth(given[0]);
  AIRLLM_TRY(const List values, ev.iterate(value));
  List kept;
  Dict seen;
  for (const Value& element : values) {
    const Result<Value> key = getter(element);
    if (!key.has_value()) return lazily(std::move(kept), key.error());
    if (const Status counted = charge_for_key(ev, *key); !counted)
      return lazily(std::move(kept), counted.error());
    if (!is_hashable(*key))
      return lazily(std::move(kept),
                    ev.error("a " + key->type_name() + " cannot be a key").error());
    if (seen.find(*key) != nullptr) continue;
    seen.set(*key, Value::none());
    kept.push_back(element);
  }
  return lazily(std::move(kept), std::nullopt);
}

template <bool greatest>
Result<Value> extreme(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "min", std::move(call), {"case_sensitive", "attribute"}, 0));
  Getter getter(ev, given[1]);
  getter.ignore_case = !truth(given[0]);
  AIRLLM_TRY(const List values, ev.iterate(value));
  if (values.empty()) return Value::undefined_because("No aggregated item, sequence was empty.");
  size_t best = 0;
  AIRLLM_TRY(Value best_key, getter(values[0]));
  for (size_t i = 1; i < values.size(); ++i) {
    AIRLLM_TRY(Value key, getter(values[i]));
    AIRLLM_TRY(const bool better, greatest ? ev.less(best_key, key) : ev.less(key, best_key));
    if (!better) continue;
    best = i;
    best_key = std::move(key);
  }
  return values[best];
}

Result<Value> sum(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "sum", std::move(call), {"attribute", "start"}, 0));
  const Getter getter(ev, given[0]);
  AIRLLM_TRY(const List values, ev.iterate(value));
  Value total = given[1].value_or(Value::integer(0));
  if (total.as_string() != nullptr) return ev.error("sum() cannot add strings");
  for (const Value& element : values) {
    AIRLLM_TRY(const Value part, getter(element));
    AIRLLM_TRY(total, ev.binary("+", total, part));
  }
  return total;
}

Result<Value> map_filter(Evaluator& ev, const Value& value, Call call) {
  if (!value.truth()) return lazily({}, std::nullopt);
  std::optional<Getter> getter;
  std::string name;
  Call rest;  // what the filter of that name gets
  if (call.positional.empty() &&
      std::any_of(call.keywords.begin(), call.keywords.end(),
                  [](const Keyword& k) { return k.name.text() == "attribute"; })) {
    AIRLLM_TRY(const auto given, bind(ev, "map", std::move(call), {"attribute", "default"}, 1));
    getter.emplace(ev, given[0]);
    getter->fallback = given[1];
  } else if (call.positional.empty() || call.positional[0].as_string() == nullptr) {
    return ev.error("map needs the name of a filter");
  } else {
    name = call.positional[0].as_string()->text();
    call.positional.erase(call.positional.begin());
    rest = std::move(call);
  }
  AIRLLM_TRY(const List values, ev.iterate(value));
  List mapped;
  for (const Value& element : values) {
    Result<Value> result = getter.has_value() ? (*getter)(element) : ev.filter(name, element, rest);
    if (!result.has_value()) return lazily(std::move(mapped), result.error());
    mapped.push_back(std::move(result).value());
  }
  return lazily(std::move(mapped), std::nullopt);
}

template <bool wanted, bool by_attribute>
Result<Value> select(Evaluator& ev, const Value& value, Call call) {
  if (!value.truth()) return lazily({}, std::nullopt);
  Optional attribute;
  if (by_attribute) {
    if (call.positional.empty()) return ev.error("the name of an attribute is missing");
    attribute = call.positional[0];
    call.positional.erase(call.positional.begin());
  }
  std::string name;
  if (!call.positional.empty()) {
    if (call.positional[0].as_string() == nullptr)
      return ev.error("the name of a test is a string");
    name = call.positional[0].as_string()->text();
    call.positional.erase(call.positional.begin());
  }
  const Getter getter(ev, attribute);
  AIRLLM_TRY(const List values, ev.iterate(value));
  List kept;
  for (const Value& element : values) {
    const Result<Value> subject = getter(element);
    if (!subject.has_value()) return lazily(std::move(kept), subject.error());
    const Result<bool> passes =
        name.empty() ? Result<bool>(subject->truth()) : ev.test(name, *subject, call);
    if (!passes.has_value()) return lazily(std::move(kept), passes.error());
    if (*passes == wanted) kept.push_back(element);
  }
  return lazily(std::move(kept), std::nullopt);
}

Result<Value> groupby(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "groupby", std::move(call), {"attribute", "default", "case_sensitive"}, 1));
  Getter getter(ev, given[0]);
  getter.fallback = given[1];
  AIRLLM_TRY(const List values, ev.iterate(value));
  List keys;
  List shown;
  for (const Value& element : values) {
    getter.ignore_case = false;
    AIRLLM_TRY(Value key, getter(element));
    shown.push_back(key);
    if (!truth(given[2]) && key.as_string() != nullptr)
      key = Value::string(change_case(*key.as_string(), Case::kLower));
    keys.push_back(std::move(key));
  }
  AIRLLM_TRY(const std::vector<size_t> order, sorted_order(ev, keys, false));
  List groups;
  for (size_t i = 0; i < order.size();) {
    List members;
    const size_t begin = i;
    for (; i < order.size(); ++i) {
      AIRLLM_TRY(const bool same, ev.equal(keys[order[i]], keys[order[begin]]));
      if (!same && i != begin) break;
      members.push_back(values[order[i]]);
    }
    groups.push_back(Value::tuple({shown[order[begin]], Value::list(std::move(members))}));
  }
  return Value::list(std::move(groups));
}

Result<Value> items(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "items", std::move(call), {}, 0));
  if (value.is_undefined()) return lazily({}, std::nullopt);
  if (value.as_dict() == nullptr) return lazily({}, ev.error("items needs a mapping").error());
  List pairs;
  for (const Dict::Entry& entry : value.as_dict()->entries())
    pairs.push_back(Value::tuple({entry.key, entry.value}));
  AIRLLM_TRY_VOID(ev.step(pairs.size()));
  return lazily(std::move(pairs), std::nullopt);
}

Result<Value> replace_filter(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "replace", std::move(call), {"old", "new", "count"}, 2));
  AIRLLM_TRY(Text text, ev.to_text(value));
  AIRLLM_TRY(Text old, ev.to_text(*given[0]));
  AIRLLM_TRY(Text with, ev.to_text(*given[1]));
  Call inner{{Value::string(std::move(old)), Value::string(std::move(with))}, {}};
  if (given_value(given[2])) inner.positional.push_back(*given[2]);
  AIRLLM_TRY(const Value method, ev.attribute(Value::string(std::move(text)), "replace"));
  return ev.call(method, std::move(inner));
}

Result<Value> title(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "title", std::move(call), {}, 0));
  AIRLLM_TRY(const Text text, ev.to_text(value));
  AIRLLM_TRY_VOID(ev.charge(text.size()));
  const auto is_break = [](char32_t c) {
    return is_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) !=
                                           std::string_view::npos);
  };
  Text result;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (is_break(text::next_code_point(text.text(), at))) {
      result.append_range(text, begin, at);
      continue;
    }
    result.append(change_case(text.substr(begin, at), Case::kUpper));
    const size_t rest = at;
    size_t end = at;
    while (at < text.size() && !is_break(text::next_code_point(text.text(), at))) end = at;
    at = end;
    result.append(change_case(text.substr(rest, end), Case::kLower));
  }
  return Value::string(std::move(result));
}

Result<Value> indent(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "indent", std::move(call), {"width", "first", "blank"}, 0));
  if (value.as_string() == nullptr)
    return ev.error("indent needs a string, not " + value.type_name());
  Text indention(std::string(4, ' '), kTemplateOrigin);
  if (given[0].has_value() && given[0]->as_string() != nullptr) {
    indention = *given[0]->as_string();
  } else if (given[0].has_value()) {
    AIRLLM_TRY(const int64_t width, integer_argument(ev, *given[0]));
    AIRLLM_TRY_VOID(ev.charge(static_cast<size_t>(std::max<int64_t>(width, 0))));
    indention =
        Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), kTemplateOrigin);
  }
  Text text = *value.as_string();
  text.append("\n", kTemplateOrigin);
  const std::vector<Text> lines = split_lines(text, false);
  Text result;
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i == 0 ? truth(given[1]) : truth(given[2]) || !lines[i].empty();
    AIRLLM_TRY_VOID(ev.charge(lines[i].size() + indention.size()));
    if (i != 0) result.append("\n", kTemplateOrigin);
    if (indented) result.append(indention);
    result.append(lines[i]);
  }
  return Value::string(std::move(result));
}

Result<Value> truncate(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "truncate", std::move(call), {"length", "killwords", "end", "leeway"}, 0));
  AIRLLM_TRY(const int64_t length, integer_argument(ev, given[0].value_or(Value::integer(255))));
  AIRLLM_TRY(const int64_t leeway,
             integer_argument(ev, given_value(given[3]) ? *given[3] : Value::integer(5)));
  const Value end = given[2].value_or(Value::literal("..."));
  if (end.as_string() == nullptr) return ev.error("truncate needs a string for its end");
  const auto end_size = static_cast<int64_t>(character_count(*end.as_string()));
  if (length < end_size || leeway < 0) return ev.error("truncate cannot keep this little");
  // Whatever has a length is let through while it is short.
  AIRLLM_TRY(const Value measured, airllm::jinja::length(ev, value, {}));
  const int64_t size = *measured.as_integer();
  if (size <= length || size - length <= leeway) return value;
  if (value.as_string() == nullptr) return ev.error("truncate needs a string");
  const Text& text = *value.as_string();
  Text kept = characters(text, 0, static_cast<size_t>(length - end_size));
  const size_t space = kept.text().rfind(' ');
  if (!truth(given[1]) && space != std::string::npos) kept = kept.substr(0, space);
  kept.append(*end.as_string());
  return ev.make_text(std::move(kept));
}

// Python's int() of text; nothing when it is none.
std::optional<int64_t> parse_whole(std::string_view text, int64_t base, bool& too_large) {
  text.remove_prefix(spaces_at_begin(text));
  text.remove_suffix(spaces_at_end(text));
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefix = [&](char letter) {
    return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == letter;
  };
  const int64_t named = prefix('x') ? 16 : prefix('o') ? 8 : prefix('b') ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
    base = named;
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos)
      return std::nullopt;
    base = 10;
  }
  __int128 value = 0;
  bool digit_before = false;
  for (const char c : text) {
    if (c == '_' && digit_before) {
      digit_before = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                               : 99;
    if (digit >= base) return std::nullopt;
    value = std::min<__int128>(value * base + digit, static_cast<__int128>(1) << 80);
    digit_before = true;
  }
  if (!digit_before) return std::nullopt;
  if (negative) value = -value;
  too_large = value > INT64_MAX || value < INT64_MIN;
  return static_cast<int64_t>(value);
}

// Python's float() of text.
std::optional<double> parse_real(std::string_view text) {
  text.remove_prefix(spaces_at_begin(text));
  text.remove_suffix(spaces_at_end(text));
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit_at = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] == '_' && i > 0 && is_digit_at(i - 1) && is_digit_at(i + 1)) continue;
    digits += text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
  }
  const std::string_view size = digits.starts_with('-') || digits.starts_with('+')
                                    ? std::string_view(digits).substr(1)
                                    : digits;
  const bool named = size == "inf" || size == "infinity" || size == "nan";
  if (!named && size.find_first_not_of("0123456789.e+-") != std::string_view::npos)
    return std::nullopt;
  if (size.empty() || size.starts_with('+') || size.starts_with('-')) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  if (end != digits.c_str() + digits.size()) return std::nullopt;
  return value;
}

Result<Value> real_to_whole(Evaluator& ev, double real, const Value& fallback, bool raises) {
  if (std::isinf(real) && raises) return ev.error("cannot convert float infinity to integer");
  if (!std::isfinite(real)) return fallback;
  if (!(std::fabs(real) < 9223372036854774784.0))
    return ev.error("a whole number does not fit into 64 bits");
  return Value::integer(static_cast<int64_t>(real));
}

Result<Value> to_int(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "int", std::move(call), {"default", "base"}, 0));
  const Value fallback = given[0].value_or(Value::integer(0));
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (value.as_integer() != nullptr) return value;
  if (value.as_boolean() != nullptr) return Value::integer(*value.as_boolean());
  if (value.as_real() != nullptr) return real_to_whole(ev, *value.as_real(), fallback, true);
  if (value.as_string() == nullptr) return fallback;
  AIRLLM_TRY(const int64_t base, integer_argument(ev, given[1].value_or(Value::integer(10))));
  const std::string& text = value.as_string()->text();
  bool too_large = false;
  if (base == 0 || (base >= 2 && base <= 36)) {
    if (const auto whole = parse_whole(text, base, too_large)) {
      if (too_large) return ev.error("a whole number does not fit into 64 bits");
      return Value::integer(*whole);
    }
  }
  const auto real = parse_real(text);
  return real.has_value() ? real_to_whole(ev, *real, fallback, false) : fallback;
}

Result<Value> to_float(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "float", std::move(call), {"default"}, 0));
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (value.is_number() || value.as_boolean() != nullptr) return Value::real(value.number());
  if (const Text* text = value.as_string()) {
    if (const auto real = parse_real(text->text())) return Value::real(*real);
  }
  return given[0].value_or(Value::real(0));
}

Result<Value> absolute(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "abs", std::move(call), {}, 0));
  if (value.as_real() != nullptr) return Value::real(std::fabs(*value.as_real()));
  AIRLLM_TRY(const int64_t whole, integer_argument(ev, value));
  if (whole >= 0) return Value::integer(whole);
  return ev.binary("-", Value::integer(0), Value::integer(whole));
}

// Rounds as Python does: the decimal form to `digits`, half to even.
double round_real(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 320) return value;
  if (digits < -320) return std::copysign(0.0, value);
  if (digits >= 0)
    return std::strtod(fmt::format("{:.{}f}", value, static_cast<int>(digits)).c_str(), nullptr);
  const std::string exact = fmt::format("{:.0f}e-{}", std::trunc(value), -digits);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  (void)exact;
  return std::nearbyint(value / scale) * scale;
}

Result<Value> round(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "round", std::move(call), {"precision", "method"}, 0));
  AIRLLM_TRY(const int64_t digits, integer_argument(ev, given[0].value_or(Value::integer(0))));
  const Value method = given[1].value_or(Value::literal("common"));
  const bool common = method == Value::literal("common");
  if (!common && !(method == Value::literal("ceil")) && !(method == Value::literal("floor"))) {
    return ev.error("round goes by common, ceil or floor");
  }
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (!value.is_number() && value.as_boolean() == nullptr)
    return ev.error("round needs a number, not " + value.type_name());
  if (common && value.as_real() != nullptr)
    return Value::real(round_real(*value.as_real(), digits));
  if (common) {
    AIRLLM_TRY(const int64_t whole, integer_argument(ev, value));
    if (digits >= 0) return Value::integer(whole);
    if (digits < -18) return Value::integer(0);
    int64_t scale = 1;
    for (int64_t i = 0; i < -digits; ++i) scale *= 10;
    const int64_t low = (whole % scale + scale) % scale;
    const int64_t base = whole - low;
    const bool up = low * 2 > scale || (low * 2 == scale && (base / scale) % 2 != 0);
    return Value::integer(up ? base + scale : base);
  }
  AIRLLM_TRY(const Value scale, ev.binary("**", Value::integer(10), Value::integer(digits)));
  AIRLLM_TRY(const Value scaled, ev.binary("*", value, scale));
  const double whole =
      method == Value::literal("ceil") ? std::ceil(scaled.number()) : std::floor(scaled.number());
  AIRLLM_TRY(const Value rounded, real_to_whole(ev, whole, Value::none(), true));
  return ev.binary("/", rounded, scale);
}

Result<Value> escape(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "escape", std::move(call), {}, 0));
  if (value.is_markup()) return value;
  AIRLLM_TRY(const Text text, ev.to_text(value));
  AIRLLM_TRY_VOID(ev.charge(text.size() * 2));
  return Value::markup(escape_html(text));
}

Result<Value> forceescape(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(Text text, ev.to_text(value));
  return escape(ev, Value::string(std::move(text)), std::move(call));
}

Result<Value> safe(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "safe", std::move(call), {}, 0));
  AIRLLM_TRY(Text text, ev.to_text(value));
  return Value::markup(std::move(text));
}

Result<Value> to_string(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "string", std::move(call), {}, 0));
  if (value.as_string() != nullptr) return value;
  AIRLLM_TRY(Text text, ev.to_text(value));
  return Value::string(std::move(text));
}

Result<Value> center(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "center", std::move(call), {"width"}, 0));
  AIRLLM_TRY(Text text, ev.to_text(value));
  AIRLLM_TRY(const Value method, ev.attribute(Value::string(std::move(text)), "center"));
  return ev.call(method, {{given[0].value_or(Value::integer(80))}, {}});
}

Result<Value> format(Evaluator& ev, const Value& value, Call call) {
  if (!call.positional.empty() && !call.keywords.empty())
    return ev.error("format takes positional or named arguments");
  AIRLLM_TRY(const Text text, ev.to_text(value));
  if (!call.keywords.empty())
    return format_percent(ev, text, keywords_dict(std::move(call.keywords)));
  return format_percent(ev, text, Value::tuple(std::move(call.positional)));
}

Result<Value> batch(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "batch", std::move(call), {"linecount", "fill_with"}, 1));
  AIRLLM_TRY(const List values, ev.iterate(value));
  List batches;
  List row;
  for (const Value& element : values) {
    if (number(row.size()) == *given[0]) batches.push_back(Value::list(std::exchange(row, {})));
    row.push_back(element);
  }
  if (!row.empty()) {
    if (given_value(given[1])) {
      AIRLLM_TRY(const int64_t width, integer_argument(ev, *given[0]));
      const int64_t missing = width - static_cast<int64_t>(row.size());
      if (missing > 0) AIRLLM_TRY_VOID(ev.step(static_cast<size_t>(missing)));
      for (int64_t i = 0; i < missing; ++i) row.push_back(*given[1]);
    }
    batches.push_back(Value::list(std::move(row)));
  }
  return lazily(std::move(batches), std::nullopt);
}

Result<Value> slice_filter(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "slice", std::move(call), {"slices", "fill_with"}, 1));
  AIRLLM_TRY(const List values, ev.iterate(value));
  AIRLLM_TRY(const int64_t slices, integer_argument(ev, *given[0]));
  if (slices == 0) return lazily({}, ev.error("division by zero").error());
  if (slices < 0) return lazily({}, std::nullopt);
  AIRLLM_TRY_VOID(ev.step(static_cast<size_t>(slices)));
  const auto count = static_cast<size_t>(slices);
  const size_t each = values.size() / count;
  const size_t extra = values.size() % count;
  List result;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t end = at + each + (i < extra ? 1 : 0);
    List part(values.begin() + static_cast<std::ptrdiff_t>(at),
              values.begin() + static_cast<std::ptrdiff_t>(end));
    if (given_value(given[1]) && i >= extra) part.push_back(*given[1]);
    result.push_back(Value::list(std::move(part)));
    at = end;
  }
  return lazily(std::move(result), std::nullopt);
}

Result<Value> attr(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "attr", std::move(call), {"name"}, 1));
  if (given[0]->as_string() == nullptr) return ev.error("the name of an attribute is a string");
  const std::string& name = given[0]->as_string()->text();
  if (value.as_dict() != nullptr && !find_method(value, name).has_value()) {
    return Value::undefined_because("dict object has no attribute '" + name + "'");
  }
  return ev.attribute(value, name);
}

Result<Value> wordcount(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "wordcount", std::move(call), {}, 0));
  AIRLLM_TRY(const Text text, ev.to_text(value));
  size_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = text::next_code_point(text.text(), at);
    const bool is_word = is_alphanumeric(c) || c == '_';
    words += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  }
  return number(words);
}

// As urllib's quote(): in a query the slash is quoted, too, and a space becomes a plus.
Result<Text> quote_url(Evaluator& ev, const Value& value, bool in_query) {
  AIRLLM_TRY(const Text text, ev.to_text(value));
  AIRLLM_TRY_VOID(ev.charge(text.size() * 3));
  const std::string_view kept = in_query ? "_.-~" : "_.-~/";
  Text result;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text.text()[at];
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte < 0x80 && std::isalnum(byte) != 0) || kept.find(c) != kept.npos;
    std::string quoted = plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
    if (in_query && c == ' ') quoted = "+";
    result.append(quoted, text.origin_at(at));
  }
  return result;
}

Result<Value> urlencode(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "urlencode", std::move(call), {}, 0));
  const bool pairs = value.is_undefined() || value.as_list() != nullptr ||
                     value.as_dict() != nullptr || value.as<Items>() != nullptr;
  if (!pairs) {
    AIRLLM_TRY(Text text, quote_url(ev, value, false));
    return Value::string(std::move(text));
  }
  List list;
  if (const Dict* dict = value.as_dict()) {
    for (const Dict::Entry& entry : dict->entries()) {
      list.push_back(Value::tuple({entry.key, entry.value}));
    }
  } else {
    AIRLLM_TRY(list, ev.iterate(value));
  }
  Text result;
  for (const Value& pair : list) {
    AIRLLM_TRY(const List sides, ev.iterate(pair));
    if (sides.size() != 2) return ev.error("urlencode takes pairs of name and value");
    if (!result.empty()) result.append("&", kTemplateOrigin);
    AIRLLM_TRY(const Text name, quote_url(ev, sides[0], true));
    AIRLLM_TRY(const Text content, quote_url(ev, sides[1], true));
    result.append(name);
    result.append("=", kTemplateOrigin);
    result.append(content);
  }
  return Value::string(std::move(result));
}

Result<Value> filesizeformat(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "filesizeformat", std::move(call), {"binary"}, 0));
  AIRLLM_TRY(const Value real, to_float(ev, value, {{Value::none()}, {}}));
  if (real.as_real() == nullptr || !std::isfinite(*real.as_real()))
    return ev.error("filesizeformat needs a number");
  const double bytes = *real.as_real();
  const bool binary = truth(given[0]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::literal("1 Byte");
  if (bytes < base) return Value::literal(fmt::format("{:.0f} Bytes", std::trunc(bytes)));
  double unit = base;
  for (const char prefix : std::string_view("kMGTPEZY")) {
    unit *= base;
    if (bytes < unit || prefix == 'Y') {
      const std::string name = binary ? std::string(1, prefix == 'k' ? 'K' : prefix) + "iB"
                                      : std::string(1, prefix) + "B";
      return Value::literal(fmt::format("{:.1f} {}", base * bytes / unit, name));
    }
  }
  return Value::none();
}

// Null: a filter that no chat template needs, refused by name.
const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> table = {
      {"abs", absolute},
      {"attr", attr},
      {"batch", batch},
      {"capitalize", by_method<kCapitalizeName>},
      {"center", center},
      {"count", length},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"filesizeformat", filesizeformat},
      {"first", first},
      {"float", to_float},
      {"forceescape", forceescape},
      {"format", format},
      {"groupby", groupby},
      {"indent", indent},
      {"int", to_int},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", to_list},
      {"lower", by_method<kLowerName>},
      {"items", items},
      {"map", map_filter},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"pprint", pretty_print},
      {"random", nullptr},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"replace", replace_filter},
      {"reverse", reverse},
      {"round", round},
      {"safe", safe},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"slice", slice_filter},
      {"sort", sort},
      {"string", to_string},
      {"striptags", nullptr},
      {"sum", sum},
      {"title", title},
      {"trim", by_method<kStripName>},
      {"truncate", truncate},
      {"unique", unique},
      {"upper", by_method<kUpperName>},
      {"urlencode", urlencode},
      {"urlize", nullptr},
      {"wordcount", wordcount},
      {"wordwrap", word_wrap},
      {"xmlattr", xml_attributes},
      {"tojson", tojson}};
  return table;
}

}  // namespace

std::vector<std::string> filter_names() {
  std::vector<std::string> names;
  for (const auto& [name, filter] : filters()) {
    if (filter != nullptr) names.emplace_back(name);
  }
  return names;
}

bool is_filter_name(std::string_view name) { return filters().contains(name); }

Result<Value> run_filter(Evaluator& ev, const std::string& name, const Value& value, Call call) {
  const Filter filter = filters().at(name);
  if (filter == nullptr) {
    return ev.error("the filter '" + name + "' is not supported in a chat template");
  }
  return filter(ev, value, std::move(call));
}

}  // namespace airllm::jinja
