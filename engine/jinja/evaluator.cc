#include "engine/jinja/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/jinja/lexer.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Kind = Expression::Kind;

Map loop_variable(size_t index, size_t length) {
  const auto number = [](size_t n) { return Value::integer(static_cast<int64_t>(n)); };
  return {{"index", number(index + 1)},
          {"index0", number(index)},
          {"revindex", number(length - index)},
          {"revindex0", number(length - index - 1)},
          {"first", Value::boolean(index == 0)},
          {"last", Value::boolean(index + 1 == length)},
          {"length", number(length)}};
}

// A Python index into `size` elements, or nothing when it is out of range.
std::optional<size_t> absolute_index(int64_t index, size_t size) {
  const auto signed_size = static_cast<int64_t>(size);
  if (index < -signed_size || index >= signed_size) return std::nullopt;
  return static_cast<size_t>(index < 0 ? index + signed_size : index);
}

// A bound of a Python slice of `size` elements.
size_t slice_bound(const Value& bound, size_t size, size_t absent) {
  if (bound.as_integer() == nullptr) return absent;
  const auto signed_size = static_cast<int64_t>(size);
  const int64_t value = std::clamp(*bound.as_integer(), -signed_size, signed_size);
  return static_cast<size_t>(value < 0 ? value + signed_size : value);
}

}  // namespace

Evaluator::Evaluator(std::string_view what, Map variables) : what_(what) {
  scopes_.push_back(std::move(variables));
}

Unexpected Evaluator::error(int line, std::string_view problem) const {
  return template_error(what_, line, problem);
}

Status Evaluator::step(int line) {
  if (++steps_ > kMaxSteps) return error(line, "the template runs too long");
  return {};
}

Status Evaluator::charge(int line, size_t bytes) {
  string_bytes_ += bytes;
  if (string_bytes_ > kMaxStringBytes) return error(line, "the template makes too much text");
  return {};
}

Result<text::MarkedText> Evaluator::run(const Block& block) {
  AIRLLM_TRY_VOID(run_block(block));
  return std::move(output_);
}

Status Evaluator::run_block(const Block& block) {
  for (const Statement& statement : block) AIRLLM_TRY_VOID(run_statement(statement));
  return {};
}

Status Evaluator::run_statement(const Statement& statement) {
  AIRLLM_TRY_VOID(step(statement.line));
  switch (statement.kind) {
    case Statement::Kind::kIf: return run_if(statement);
    case Statement::Kind::kFor: return run_for(statement);
    case Statement::Kind::kSet: return run_set(statement);
    case Statement::Kind::kText:
    case Statement::Kind::kOutput: break;
  }
  return run_output(statement);
}

Status Evaluator::run_output(const Statement& statement) {
  text::MarkedText text(statement.text, kTemplateOrigin);
  if (statement.kind == Statement::Kind::kOutput) {
    AIRLLM_TRY(const Value value, evaluate(*statement.expression));
    AIRLLM_TRY(text, to_text(statement.line, value));
  }
  if (text.size() > kMaxOutputBytes - output_.size()) {
    return error(statement.line, "the prompt is longer than 64 MiB");
  }
  output_.append(text);
  return {};
}

Status Evaluator::run_if(const Statement& statement) {
  for (const Statement::Branch& branch : statement.branches) {
    bool taken = branch.condition == nullptr;
    if (!taken) {
      AIRLLM_TRY(const Value condition, evaluate(*branch.condition));
      taken = condition.truth();
    }
    if (taken) return run_block(branch.body);
  }
  return {};
}

Result<List> Evaluator::loop_elements(const Statement& statement) {
  AIRLLM_TRY(const Value value, evaluate(*statement.expression));
  List elements;
  if (const List* values = value.as_list()) {
    elements = *values;
  } else if (const Map* entries = value.as_map()) {
    // Keys do not know who wrote them, and mappings come from the caller.
    for (const auto& [key, entry] : *entries)
      elements.push_back(Value::string(text::MarkedText(key, text::kUserOrigin)));
  } else if (!value.is_undefined()) {
    return error(statement.line, value.type_name() + " cannot be looped over");
  }
  if (statement.condition == nullptr) return elements;
  List chosen;
  scopes_.emplace_back();
  for (Value& element : elements) {
    set_variable(statement.text, element);
    AIRLLM_TRY(const Value condition, evaluate(*statement.condition));
    if (condition.truth()) chosen.push_back(std::move(element));
  }
  scopes_.pop_back();
  return chosen;
}

Status Evaluator::run_for(const Statement& statement) {
  AIRLLM_TRY(const List elements, loop_elements(statement));
  if (elements.empty()) return run_block(statement.otherwise);
  for (size_t i = 0; i < elements.size(); ++i) {
    AIRLLM_TRY_VOID(step(statement.line));
    scopes_.emplace_back();
    set_variable("loop", Value::map(loop_variable(i, elements.size())));
    set_variable(statement.text, elements[i]);
    AIRLLM_TRY_VOID(run_block(statement.body));
    scopes_.pop_back();
  }
  return {};
}

Status Evaluator::run_set(const Statement& statement) {
  AIRLLM_TRY(Value value, evaluate(*statement.expression));
  if (statement.attribute.empty()) {
    set_variable(statement.text, std::move(value));
    return {};
  }
  const Value* object = find_variable(statement.text);
  Map* map = object == nullptr ? nullptr : object->as_map();
  // Only what namespace() made has this mark, so that messages and loop variables stay as they are.
  if (map == nullptr || map->empty() || map->front().first != kNamespaceMark) {
    return error(statement.line, "'" + statement.text + "' is not a namespace");
  }
  // A namespace that holds itself would never be freed.
  if (value.as_map() != nullptr || value.as_list() != nullptr) {
    return error(statement.line, "a namespace can hold no lists and mappings");
  }
  for (auto& [key, entry] : *map) {
    if (key == statement.attribute) {
      entry = std::move(value);
      return {};
    }
  }
  map->emplace_back(statement.attribute, std::move(value));
  return {};
}

Value* Evaluator::find_variable(std::string_view name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    for (auto& [key, value] : *scope) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Evaluator::set_variable(const std::string& name, Value value) {
  for (auto& [key, old] : scopes_.back()) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  scopes_.back().emplace_back(name, std::move(value));
}

Result<text::MarkedText> Evaluator::to_text(int line, const Value& value) const {
  if (const text::MarkedText* text = value.as_string()) return *text;
  const auto plain = [](std::string_view text) { return text::MarkedText(text, kTemplateOrigin); };
  if (value.is_undefined()) return text::MarkedText();
  if (value.is_none()) return plain("None");
  if (const bool* flag = value.as_boolean()) return plain(*flag ? "True" : "False");
  if (const int64_t* whole = value.as_integer()) return plain(std::to_string(*whole));
  if (const double* real = value.as_real()) {
    std::string text = fmt::format("{}", *real);
    if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
    return plain(text);
  }
  return error(line, "printing " + value.type_name() + " is not supported");
}

Result<Value> Evaluator::evaluate(const Expression& e) {
  AIRLLM_TRY_VOID(step(e.line));
  switch (e.kind) {
    case Kind::kLiteral: return e.value;
    case Kind::kName: return lookup(e);
    case Kind::kList: return list(e);
    case Kind::kAttribute: return attribute(e);
    case Kind::kSubscript: return subscript(e);
    case Kind::kSlice: return slice(e);
    case Kind::kCall: return call(e);
    case Kind::kFilter: return filter(e);
    case Kind::kTest: return test(e);
    case Kind::kNegative: return negative(e);
    case Kind::kBinary: return binary(e);
    case Kind::kCompare: return compare(e);
    case Kind::kNot:
    case Kind::kAnd:
    case Kind::kOr:
    case Kind::kConditional: break;
  }
  return logical(e);
}

Result<Value> Evaluator::lookup(const Expression& e) {
  if (const Value* value = find_variable(e.name)) return *value;
  return Value::undefined(e.name);
}

Result<Value> Evaluator::list(const Expression& e) {
  List values;
  for (const ExpressionPtr& child : e.children) {
    AIRLLM_TRY(Value value, evaluate(*child));
    values.push_back(std::move(value));
  }
  return Value::list(std::move(values));
}

Result<Value> Evaluator::attribute(const Expression& e) {
  AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
  if (object.is_undefined()) {
    return error(e.line, "'" + std::string(object.undefined_name()) + "' is undefined");
  }
  if (const Map* map = object.as_map()) {
    if (const Value* entry = find(*map, e.name)) return *entry;
  }
  return Value::undefined(e.name);
}

Result<Value> Evaluator::subscript(const Expression& e) {
  AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
  AIRLLM_TRY(const Value key, evaluate(*e.children[1]));
  if (object.is_undefined()) {
    return error(e.line, "'" + std::string(object.undefined_name()) + "' is undefined");
  }
  if (object.as_map() != nullptr && key.as_string() != nullptr) {
    if (const Value* entry = find(*object.as_map(), key.as_string()->text())) return *entry;
    return Value::undefined(key.as_string()->text());
  }
  const int64_t* index = key.as_integer();
  if (object.as_list() != nullptr && index != nullptr) {
    const auto at = absolute_index(*index, object.as_list()->size());
    if (at.has_value()) return (*object.as_list())[*at];
  }
  if (object.as_string() != nullptr && index != nullptr) {
    AIRLLM_TRY_VOID(charge(e.line, object.as_string()->size()));
    const auto at = absolute_index(*index, character_count(*object.as_string()));
    if (at.has_value()) return Value::string(characters(*object.as_string(), *at, *at + 1));
  }
  return Value::undefined("element");
}

Result<Value> Evaluator::slice(const Expression& e) {
  AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
  AIRLLM_TRY(const Value from, evaluate(*e.children[1]));
  AIRLLM_TRY(const Value to, evaluate(*e.children[2]));
  if (const List* values = object.as_list()) {
    const size_t begin = slice_bound(from, values->size(), 0);
    const size_t end = std::max(begin, slice_bound(to, values->size(), values->size()));
    AIRLLM_TRY_VOID(charge(e.line, (end - begin) * sizeof(Value)));
    return Value::list(List(values->begin() + static_cast<std::ptrdiff_t>(begin),
                            values->begin() + static_cast<std::ptrdiff_t>(end)));
  }
  if (const text::MarkedText* text = object.as_string()) {
    AIRLLM_TRY_VOID(charge(e.line, text->size()));
    const size_t size = character_count(*text);
    const size_t begin = slice_bound(from, size, 0);
    return Value::string(characters(*text, begin, std::max(begin, slice_bound(to, size, size))));
  }
  return error(e.line, object.type_name() + " cannot be cut");
}

Result<Value> Evaluator::call(const Expression& e) {
  const Expression& callee = *e.children[0];
  if (callee.kind == Kind::kAttribute) return call_method(e);
  if (callee.kind == Kind::kName && callee.name == "raise_exception") {
    if (e.children.size() != 2) return error(e.line, "raise_exception() takes one text");
    AIRLLM_TRY(const Value value, evaluate(*e.children[1]));
    AIRLLM_TRY(const text::MarkedText text, to_text(e.line, value));
    return Unexpected(ErrorCode::kUsage,
                      "the model's chat template refuses these messages: " + text.text());
  }
  if (callee.kind == Kind::kName && callee.name == "namespace" && e.children.size() == 1) {
    Map entries;
    entries.emplace_back(kNamespaceMark, Value::none());
    for (const auto& [name, argument] : e.keywords) {
      AIRLLM_TRY(Value value, evaluate(*argument));
      entries.emplace_back(name, std::move(value));
    }
    return Value::map(std::move(entries));
  }
  return error(e.line, "the function '" + callee.name + "' is not supported");
}

Result<Value> Evaluator::call_method(const Expression& e) {
  const std::string& name = e.children[0]->name;
  AIRLLM_TRY(const Value object, evaluate(*e.children[0]->children[0]));
  const text::MarkedText* text = object.as_string();
  const Unexpected unknown =
      error(e.line, "the method '" + name + "' of " + object.type_name() + " is not supported");
  if (text == nullptr || !e.keywords.empty()) return unknown;
  AIRLLM_TRY_VOID(charge(e.line, text->size()));
  if (e.children.size() == 1) {
    if (name == "strip") return Value::string(trim(*text, true, true));
    if (name == "lstrip") return Value::string(trim(*text, true, false));
    if (name == "rstrip") return Value::string(trim(*text, false, true));
    if (name == "upper") return Value::string(change_case(*text, true));
    if (name == "lower") return Value::string(change_case(*text, false));
  }
  if (e.children.size() == 2 && (name == "startswith" || name == "endswith")) {
    AIRLLM_TRY(const Value affix, evaluate(*e.children[1]));
    if (affix.as_string() != nullptr) {
      const std::string& part = affix.as_string()->text();
      return Value::boolean(name == "startswith" ? text->text().starts_with(part)
                                                 : text->text().ends_with(part));
    }
  }
  return unknown;
}

Result<Value> Evaluator::filter(const Expression& e) {
  AIRLLM_TRY(const Value value, evaluate(*e.children[0]));
  if (e.name == "default") {
    bool if_false = false;
    if (e.children.size() > 2) {
      AIRLLM_TRY(const Value flag, evaluate(*e.children[2]));
      if_false = flag.truth();
    }
    const bool replaced = value.is_undefined() || (if_false && !value.truth());
    if (!replaced) return value;
    if (e.children.size() < 2) return Value::literal("");
    return evaluate(*e.children[1]);
  }
  if (e.children.size() > 1 || !e.keywords.empty()) {
    return error(e.line, "the arguments of the filter '" + e.name + "' are not supported");
  }
  if (e.name == "length" || e.name == "count") {
    size_t size = 0;
    if (const text::MarkedText* text = value.as_string())
      size = character_count(*text);
    else if (const List* values = value.as_list())
      size = values->size();
    else if (const Map* entries = value.as_map())
      size = entries->size();
    else if (!value.is_undefined())
      return error(e.line, value.type_name() + " has no length");
    return Value::integer(static_cast<int64_t>(size));
  }
  if (e.name == "first" || e.name == "last") {
    const List* values = value.as_list();
    if (values == nullptr) return error(e.line, value.type_name() + " is not a list");
    if (values->empty()) return Value::undefined("element");
    return e.name == "first" ? values->front() : values->back();
  }
  AIRLLM_TRY(text::MarkedText text, to_text(e.line, value));
  AIRLLM_TRY_VOID(charge(e.line, text.size()));
  if (e.name == "trim") return Value::string(trim(text, true, true));
  if (e.name == "string") return Value::string(std::move(text));
  return Value::string(change_case(text, e.name == "upper"));
}

Result<Value> Evaluator::test(const Expression& e) {
  AIRLLM_TRY(const Value value, evaluate(*e.children[0]));
  const std::string& name = e.name;
  const bool* flag = value.as_boolean();
  const int64_t* whole = value.as_integer();
  const bool holds_elements =
      value.as_string() != nullptr || value.as_list() != nullptr || value.as_map() != nullptr;
  bool result = false;
  if (name == "defined")
    result = !value.is_undefined();
  else if (name == "undefined")
    result = value.is_undefined();
  else if (name == "none")
    result = value.is_none();
  else if (name == "string")
    result = value.as_string() != nullptr;
  else if (name == "number")
    result = value.is_number() || flag != nullptr;
  else if (name == "boolean")
    result = flag != nullptr;
  else if (name == "true")
    result = flag != nullptr && *flag;
  else if (name == "false")
    result = flag != nullptr && !*flag;
  else if (name == "mapping")
    result = value.as_map() != nullptr;
  else if (name == "sequence" || name == "iterable")
    result = holds_elements;
  else if (whole == nullptr)
    return error(e.line, value.type_name() + " is not a whole number");
  else
    result = (*whole % 2 != 0) == (name == "odd");
  return Value::boolean(result);
}

Result<Value> Evaluator::negative(const Expression& e) {
  AIRLLM_TRY(const Value value, evaluate(*e.children[0]));
  if (const int64_t* whole = value.as_integer()) {
    int64_t result = 0;
    if (__builtin_sub_overflow(int64_t{0}, *whole, &result)) return error(e.line, "overflow");
    return Value::integer(result);
  }
  if (const double* real = value.as_real()) return Value::real(-*real);
  return error(e.line, value.type_name() + " has no negative");
}

Result<Value> Evaluator::concatenate(int line, const text::MarkedText& left,
                                     const text::MarkedText& right) {
  AIRLLM_TRY_VOID(charge(line, left.size() + right.size()));
  text::MarkedText result = left;
  result.append(right);
  return Value::string(std::move(result));
}

Result<Value> Evaluator::binary(const Expression& e) {
  AIRLLM_TRY(const Value left, evaluate(*e.children[0]));
  AIRLLM_TRY(const Value right, evaluate(*e.children[1]));
  if (e.name == "~") {
    AIRLLM_TRY(const text::MarkedText left_text, to_text(e.line, left));
    AIRLLM_TRY(const text::MarkedText right_text, to_text(e.line, right));
    return concatenate(e.line, left_text, right_text);
  }
  if (e.name == "+" && left.as_string() != nullptr && right.as_string() != nullptr) {
    return concatenate(e.line, *left.as_string(), *right.as_string());
  }
  if (e.name == "+" && left.as_list() != nullptr && right.as_list() != nullptr) {
    List values = *left.as_list();
    AIRLLM_TRY_VOID(charge(e.line, (values.size() + right.as_list()->size()) * sizeof(Value)));
    values.insert(values.end(), right.as_list()->begin(), right.as_list()->end());
    return Value::list(std::move(values));
  }
  return arithmetic(e, left, right);
}

Result<Value> Evaluator::arithmetic(const Expression& e, const Value& left, const Value& right) {
  const auto numeric = [](const Value& v) { return v.is_number() || v.as_boolean() != nullptr; };
  for (const Value* operand : {&left, &right}) {
    if (operand->is_undefined()) {
      return error(e.line, "'" + std::string(operand->undefined_name()) + "' is undefined");
    }
  }
  if (!numeric(left) || !numeric(right)) {
    return error(
        e.line, "'" + e.name + "' does not join " + left.type_name() + " and " + right.type_name());
  }
  const bool divides = e.name == "/" || e.name == "//" || e.name == "%";
  if (divides && right.number() == 0) return error(e.line, "division by zero");
  if (left.as_real() != nullptr || right.as_real() != nullptr || e.name == "/") {
    const double a = left.number();
    const double b = right.number();
    if (e.name == "+") return Value::real(a + b);
    if (e.name == "-") return Value::real(a - b);
    if (e.name == "*") return Value::real(a * b);
    if (e.name == "/") return Value::real(a / b);
    if (e.name == "//") return Value::real(std::floor(a / b));
    return Value::real(a - std::floor(a / b) * b);
  }
  const auto whole = [](const Value& v) {
    return v.as_integer() != nullptr ? *v.as_integer() : int64_t{*v.as_boolean()};
  };
  const int64_t a = whole(left);
  const int64_t b = whole(right);
  int64_t result = 0;
  bool overflow = false;
  if (e.name == "+")
    overflow = __builtin_add_overflow(a, b, &result);
  else if (e.name == "-")
    overflow = __builtin_sub_overflow(a, b, &result);
  else if (e.name == "*")
    overflow = __builtin_mul_overflow(a, b, &result);
  // Not even computed: INT64_MIN / -1 traps.
  else if (b == -1)
    overflow = e.name == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  // Python rounds towards minus infinity.
  else if (e.name == "//")
    result = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
  else
    result = (a % b + b) % b;
  if (overflow) return error(e.line, "a number is too large");
  return Value::integer(result);
}

Result<Value> Evaluator::compare(const Expression& e) {
  AIRLLM_TRY(Value left, evaluate(*e.children[0]));
  for (size_t i = 0; i < e.operators.size(); ++i) {
    AIRLLM_TRY(Value right, evaluate(*e.children[i + 1]));
    AIRLLM_TRY(const bool holds, compare_pair(e.line, e.operators[i], left, right));
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<bool> Evaluator::compare_pair(int line, const std::string& op, const Value& left,
                                     const Value& right) {
  if (op == "==") return left == right;
  if (op == "!=") return !(left == right);
  if (op == "in" || op == "not in") {
    AIRLLM_TRY(const bool found, contains(line, right, left));
    return found == (op == "in");
  }
  int order = 0;
  if (left.as_string() != nullptr && right.as_string() != nullptr) {
    // Bytes of UTF-8 sort as code points do.
    order = left.as_string()->text().compare(right.as_string()->text());
  } else if (left.is_number() && right.is_number()) {
    order = left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
  } else {
    return error(line, left.type_name() + " and " + right.type_name() + " have no order");
  }
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

Result<bool> Evaluator::contains(int line, const Value& container, const Value& element) {
  if (const List* values = container.as_list()) {
    AIRLLM_TRY_VOID(charge(line, values->size()));
    return std::find(values->begin(), values->end(), element) != values->end();
  }
  if (const text::MarkedText* text = container.as_string();
      text != nullptr && element.as_string()) {
    AIRLLM_TRY_VOID(charge(line, text->size()));
    return text->text().find(element.as_string()->text()) != std::string::npos;
  }
  if (const Map* entries = container.as_map(); entries != nullptr && element.as_string()) {
    return find(*entries, element.as_string()->text()) != nullptr;
  }
  if (container.is_undefined()) return false;
  return error(line,
               "'in' does not search " + element.type_name() + " in " + container.type_name());
}

Result<Value> Evaluator::logical(const Expression& e) {
  if (e.kind == Kind::kConditional) {
    AIRLLM_TRY(const Value condition, evaluate(*e.children[1]));
    return evaluate(*e.children[condition.truth() ? 0 : 2]);
  }
  AIRLLM_TRY(const Value left, evaluate(*e.children[0]));
  if (e.kind == Kind::kNot) return Value::boolean(!left.truth());
  // As in Python, the result is the operand that decides.
  if (left.truth() == (e.kind == Kind::kOr)) return left;
  return evaluate(*e.children[1]);
}

}  // namespace airllm::jinja
