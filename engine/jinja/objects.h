// Values that are neither data nor text: functions, namespaces, loops, iterators.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/jinja/evaluator.h"

namespace airllm::jinja {

// What may come to hold itself; the evaluator empties it at the end.
struct Cyclic : Object {
  virtual void clear() = 0;
};

struct Namespace : Cyclic {
  Dict attributes;
  std::string type_name() const override { return "Namespace"; }
  void clear() override { attributes = {}; }
};

struct Macro : Cyclic {
  std::shared_ptr<const MacroCode> code;
  Scope* scope = nullptr;  // where it was defined; the evaluator keeps it
  std::string type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
  void clear() override {}
};

// A function or a bound method.
struct Function : Object {
  using Body = std::function<Result<Value>(Evaluator&, Call)>;
  std::string name;
  Body body;
  int depth = 1;
  Function(std::string given_name, Body given_body, int given_depth = 1)
      : name(std::move(given_name)), body(std::move(given_body)), depth(given_depth) {}
  std::string type_name() const override { return "function"; }
  bool callable() const override { return true; }
  int nesting() const override { return depth; }
};

// A range, a view of a mapping, or an iterator (which is read once).
struct Items : Object {
  enum class Kind { kRange, kView, kIterator };
  Kind kind = Kind::kIterator;
  std::string name;  // of Python's type
  List values;
  size_t at = 0;               // of an iterator
  std::optional<Error> error;  // what follows the last element of an iterator
  std::string printed;         // of a range
  int depth = 1;
  size_t heaviness = 1;
  std::string type_name() const override { return name; }
  bool truth() const override { return kind == Kind::kIterator || !values.empty(); }
  int nesting() const override { return depth; }
  size_t weight() const override { return heaviness; }
};
Value make_items(Items::Kind kind, std::string name, List values);

struct Loop : Cyclic {
  List values;  // the elements, those that passed the condition so far
  List source;  // with a condition: the elements that are yet to be checked, from `source_at` on
  size_t source_at = 0;
  std::function<Result<bool>(const Value&)> condition;  // null: all pass
  std::function<Result<Value>(const Value&)> recurse;   // null: not recursive
  size_t next = 0;                                      // of the next iteration
  int depth0 = 0;
  std::optional<List> last_changed;
  std::string type_name() const override { return "LoopContext"; }
  bool callable() const override { return true; }
  void clear() override {
    values.clear();
    source.clear();
    last_changed.reset();
    condition = nullptr;
    recurse = nullptr;
  }
  // Whether there is an element at `index`; checks the condition as far as is needed.
  Result<bool> has(size_t index);
};

struct Cycler : Cyclic {
  List values;
  size_t at = 0;
  std::string type_name() const override { return "Cycler"; }
  void clear() override { values.clear(); }
};

struct Joiner : Object {
  Value separator;
  bool used = false;
  std::string type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  int nesting() const override { return 1 + separator.nesting(); }
};

inline Value make_function(std::string name, Function::Body body, int depth = 1) {
  return Value::object(std::make_shared<Function>(std::move(name), std::move(body), depth));
}

// What a function was called with, by the names of its parameters. Missing ones are nothing; too
// many, unknown or doubled ones, and fewer than `required`, are errors.
Result<std::vector<std::optional<Value>>> bind(Evaluator& evaluator, std::string_view function,
                                               Call call,
                                               std::initializer_list<std::string_view> parameters,
                                               size_t required);
// Reading a string from end to end costs time, too, even where nothing is made of it.
inline Status charge_for_reading(Evaluator& evaluator, const Value& value) {
  const text::MarkedText* text = value.as_string();
  return evaluator.charge(text == nullptr ? 0 : text->size());
}
// Looking a key up hashes all of it.
inline Status charge_for_key(Evaluator& evaluator, const Value& key) {
  AIRLLM_TRY_VOID(evaluator.step(key.weight() / 4));
  return charge_for_reading(evaluator, key);
}
// Python's int of an argument.
Result<int64_t> integer_argument(Evaluator& evaluator, const Value& value);

// Keywords as the mapping that a callee sees.
Value keywords_dict(std::vector<Keyword> keywords);

// The functions that every template sees.
Map global_functions();
// A method of a string, list or mapping, bound to it; nothing when Python has none of this name.
std::optional<Value> find_method(const Value& object, std::string_view name);
// str.format and the % operator.
Result<Value> format_braces(Evaluator& evaluator, const text::MarkedText& format, const Call& call);
Result<Value> format_percent(Evaluator& evaluator, const text::MarkedText& format,
                             const Value& arguments);
Result<Value> run_filter(Evaluator& evaluator, const std::string& name, const Value& value,
                         Call call);
Result<bool> run_test(Evaluator& evaluator, const std::string& name, const Value& value, Call call);
bool is_filter_name(std::string_view name);
bool is_test_name(std::string_view name);
// All there are, for tests that must miss none: the filters that are not refused, and the methods
// of strings, lists and mappings as "str.upper".
std::vector<std::string> filter_names();
std::vector<std::string> method_names();

}  // namespace airllm::jinja
