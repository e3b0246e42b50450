// Values of the template language. Strings know which of their bytes a user wrote.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/json_fwd.h"
#include "engine/text/marked_text.h"

namespace airllm::jinja {

// The origin of text that the template or its variables supply; kUserOrigin is the other one.
inline constexpr int32_t kTemplateOrigin = 0;
// Lists, mappings and objects are nested no deeper than this in a running template, so that
// comparing, printing and destroying them by recursion is safe.
inline constexpr int kMaxNesting = 100;
// And a walk through one meets no more values than this, however they share parts.
inline constexpr size_t kMaxWeight = size_t{4} << 20;

class Value;
class Dict;
struct Object;
struct Sequence;
using List = std::vector<Value>;
using Map = std::vector<std::pair<std::string, Value>>;

// Copies share strings, lists and mappings, which never change, and objects, which may.
class Value {
 public:
  struct Undefined {
    std::string name;      // what was looked up, or the whole message
    bool is_hint = false;  // `name` is the whole message
  };
  struct None {};
  struct String {
    std::shared_ptr<const text::MarkedText> text;
    bool markup = false;  // made by escape or safe
  };

  Value() : data_(Undefined{}) {}
  static Value undefined(std::string name) { return Value(Data(Undefined{std::move(name)})); }
  static Value undefined_because(std::string hint) {
    return Value(Data(Undefined{std::move(hint), true}));
  }
  static Value none() { return Value(Data(None{})); }
  static Value boolean(bool value) { return Value(Data(value)); }
  static Value integer(int64_t value) { return Value(Data(value)); }
  static Value real(double value) { return Value(Data(value)); }
  static Value string(text::MarkedText text) {
    return Value(Data(String{std::make_shared<const text::MarkedText>(std::move(text))}));
  }
  static Value markup(text::MarkedText text) {
    return Value(Data(String{std::make_shared<const text::MarkedText>(std::move(text)), true}));
  }
  static Value literal(std::string_view text) {
    return string(text::MarkedText(text, kTemplateOrigin));
  }
  static Value list(List values);
  static Value tuple(List values);
  static Value map(Map entries);
  static Value dict(Dict entries);
  static Value object(std::shared_ptr<Object> object) { return Value(Data(std::move(object))); }
  static Value from_json(const Json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_number() const { return as_integer() != nullptr || as_real() != nullptr; }
  bool is_arithmetic() const { return is_number() || as_boolean() != nullptr; }
  bool is_tuple() const;
  bool is_markup() const;
  const bool* as_boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* as_integer() const { return std::get_if<int64_t>(&data_); }
  const double* as_real() const { return std::get_if<double>(&data_); }
  const text::MarkedText* as_string() const;
  const List* as_list() const;  // of a list or a tuple
  const Dict* as_dict() const;
  const std::shared_ptr<Object>* as_object() const {
    return std::get_if<std::shared_ptr<Object>>(&data_);
  }
  // Null unless the value is an object of this type.
  template <typename T>
  T* as() const {
    const auto* object = as_object();
    return object == nullptr ? nullptr : dynamic_cast<T*>(object->get());
  }
  // Why the value is undefined, as a message; empty for other values.
  std::string undefined_message() const;

  bool truth() const;                 // as Python sees it
  std::string type_name() const;      // of Python
  double number() const;              // of a number or a boolean
  int nesting() const;                // 0 for a value that holds no others
  size_t weight() const;              // how many values a walk through it meets, counted each time
  bool is(const Value& other) const;  // Python's `is`

  // As Python's ==.
  friend bool operator==(const Value& a, const Value& b) { return equal(a, b, 0); }

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, String, std::shared_ptr<const Sequence>,
                   std::shared_ptr<const Dict>, std::shared_ptr<Object>>;
  explicit Value(Data data) : data_(std::move(data)) {}
  static bool equal(const Value& a, const Value& b, int depth);

  Data data_;
};

struct Sequence {
  List values;
  bool is_tuple = false;
  int nesting = 1;
  size_t weight = 1;
};

// Whether Python can hash the value: lists and mappings it cannot.
bool is_hashable(const Value& value);
// Equal for equal hashable values.
size_t hash_of(const Value& value);

// A mapping in the order of insertion; keys are hashable.
class Dict {
 public:
  struct Entry {
    Value key, value;
  };
  void set(Value key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int nesting() const { return nesting_; }
  size_t weight() const { return weight_; }

 private:
  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, size_t> places_;
  int nesting_ = 1;
  size_t weight_ = 1;
};

// What is neither data nor shared with the caller of a template: functions, namespaces, iterators.
struct Object {
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;
  virtual bool truth() const { return true; }
  virtual bool callable() const { return false; }
  virtual int nesting() const { return 1; }
  virtual size_t weight() const { return 1; }
};

}  // namespace airllm::jinja
