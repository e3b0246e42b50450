// Values of the template language. Strings know which of their bytes a user wrote.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "engine/text/marked_text.h"

namespace airllm::jinja {

// The origin of text that the template or its variables supply; kUserOrigin is the other one.
inline constexpr int32_t kTemplateOrigin = 0;

class Value;
using List = std::vector<Value>;
using Map = std::vector<std::pair<std::string, Value>>;

// Copies share strings, lists and maps, which never change (but for a namespace(), a map that
// assignments change).
class Value {
 public:
  struct Undefined {
    std::string name;  // what was looked up, for messages
  };
  struct None {};

  Value() : data_(Undefined{}) {}
  static Value undefined(std::string name) { return Value(Data(Undefined{std::move(name)})); }
  static Value none() { return Value(Data(None{})); }
  static Value boolean(bool value) { return Value(Data(value)); }
  static Value integer(int64_t value) { return Value(Data(value)); }
  static Value real(double value) { return Value(Data(value)); }
  static Value string(text::MarkedText text) {
    return Value(Data(std::make_shared<const text::MarkedText>(std::move(text))));
  }
  static Value literal(std::string_view text) {
    return string(text::MarkedText(text, kTemplateOrigin));
  }
  static Value list(List values) {
    return Value(Data(std::make_shared<const List>(std::move(values))));
  }
  static Value map(Map entries) { return Value(Data(std::make_shared<Map>(std::move(entries)))); }
  static Value from_json(const Json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_number() const { return as_integer() != nullptr || as_real() != nullptr; }
  const bool* as_boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* as_integer() const { return std::get_if<int64_t>(&data_); }
  const double* as_real() const { return std::get_if<double>(&data_); }
  const text::MarkedText* as_string() const {
    return pointee<std::shared_ptr<const text::MarkedText>>();
  }
  const List* as_list() const { return pointee<std::shared_ptr<const List>>(); }
  Map* as_map() const { return pointee<std::shared_ptr<Map>>(); }
  // What was looked up in vain; empty for other values.
  std::string_view undefined_name() const;

  bool truth() const;             // as Python sees it
  std::string type_name() const;  // for messages
  double number() const;          // of a number or a boolean

  // As Python's ==; lists and maps down to a fixed depth.
  friend bool operator==(const Value& a, const Value& b) { return equal(a, b, 0); }

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const text::MarkedText>,
                   std::shared_ptr<const List>, std::shared_ptr<Map>>;
  explicit Value(Data data) : data_(std::move(data)) {}
  template <typename Pointer>
  auto pointee() const -> decltype(std::declval<Pointer>().get()) {
    const Pointer* pointer = std::get_if<Pointer>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  static bool equal(const Value& a, const Value& b, int depth);

  Data data_;
};

// The entry, or null.
const Value* find(const Map& map, std::string_view key);

}  // namespace airllm::jinja
