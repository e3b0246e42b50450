#include "engine/jinja/value.h"

#include <algorithm>

namespace airllm::jinja {
namespace {
constexpr int kMaxCompareDepth = 32;
}  // namespace

Value Value::from_json(const Json& json) {
  if (json.is_null()) return none();
  if (json.is_boolean()) return boolean(json.get<bool>());
  if (json.is_number_integer()) return integer(json.get<int64_t>());
  if (json.is_number()) return real(json.get<double>());
  if (json.is_string()) return literal(json.get_ref<const std::string&>());
  if (json.is_array()) {
    List values;
    for (const Json& element : json) values.push_back(from_json(element));
    return list(std::move(values));
  }
  Map entries;
  for (const auto& [key, element] : json.items()) entries.emplace_back(key, from_json(element));
  return map(std::move(entries));
}

std::string_view Value::undefined_name() const {
  const auto* undefined = std::get_if<Undefined>(&data_);
  return undefined == nullptr ? std::string_view() : undefined->name;
}

double Value::number() const {
  if (const bool* flag = as_boolean()) return *flag ? 1 : 0;
  if (const int64_t* whole = as_integer()) return static_cast<double>(*whole);
  if (const double* value = as_real()) return *value;
  return 0;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const text::MarkedText* text = as_string()) return !text->empty();
  if (const List* values = as_list()) return !values->empty();
  if (const Map* entries = as_map()) return !entries->empty();
  return number() != 0;
}

std::string Value::type_name() const {
  if (is_undefined()) return "an undefined value";
  if (is_none()) return "none";
  if (as_boolean() != nullptr) return "a truth value";
  if (is_number()) return "a number";
  if (as_string() != nullptr) return "a string";
  return as_list() != nullptr ? "a list" : "a mapping";
}

bool Value::equal(const Value& a, const Value& b, int depth) {
  if (depth > kMaxCompareDepth) return false;
  if (a.as_string() != nullptr && b.as_string() != nullptr) {
    return a.as_string()->text() == b.as_string()->text();
  }
  if (a.as_integer() != nullptr && b.as_integer() != nullptr) {
    return *a.as_integer() == *b.as_integer();
  }
  const auto numeric = [](const Value& v) { return v.is_number() || v.as_boolean() != nullptr; };
  if (numeric(a) && numeric(b)) return a.number() == b.number();
  if (a.as_list() != nullptr && b.as_list() != nullptr) {
    return std::equal(a.as_list()->begin(), a.as_list()->end(), b.as_list()->begin(),
                      b.as_list()->end(),
                      [&](const Value& x, const Value& y) { return equal(x, y, depth + 1); });
  }
  if (a.as_map() != nullptr && b.as_map() != nullptr) {
    if (a.as_map()->size() != b.as_map()->size()) return false;
    return std::all_of(a.as_map()->begin(), a.as_map()->end(), [&](const auto& entry) {
      const Value* other = find(*b.as_map(), entry.first);
      return other != nullptr && equal(entry.second, *other, depth + 1);
    });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

const Value* find(const Map& map, std::string_view key) {
  for (const auto& [name, value] : map) {
    if (name == key) return &value;
  }
  return nullptr;
}

}  // namespace airllm::jinja
