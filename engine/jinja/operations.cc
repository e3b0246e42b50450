// What operators do to values, as in Python: arithmetic, order, membership, items and slices.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

constexpr const char* kTooLarge = "a whole number does not fit into 64 bits";

std::optional<int64_t> as_whole(const Value& value) {
  if (value.as_integer() != nullptr) return *value.as_integer();
  if (value.as_boolean() != nullptr) return int64_t{*value.as_boolean()};
  return std::nullopt;
}

bool power(int64_t base, int64_t exponent, int64_t& result) {
  result = 1;
  while (exponent != 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return false;
    exponent >>= 1;
    if (exponent != 0 && __builtin_mul_overflow(base, base, &base)) return false;
  }
  return true;
}

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double float_modulo(double a, double b) {
  double result = std::fmod(a, b);
  if (result != 0) {
    if ((b < 0) != (result < 0)) result += b;
  } else {
    result = std::copysign(0.0, b);
  }
  return result;
}

double float_floor_divide(double a, double b) {
  const double modulo = std::fmod(a, b);
  double quotient = (a - modulo) / b;
  if (modulo != 0 && (b < 0) != (modulo < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Result<Value> whole_arithmetic(Evaluator& ev, const std::string& op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    if (b < 0 && a == 0) return ev.error("division by zero");
    if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
    overflow = !power(a, b, result);
  } else if (b == 0) {
    return ev.error("division by zero");
  } else if (op == "/") {
    return Value::real(
        static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
  } else if (b == -1) {
    overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    result = op == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
  }
  if (overflow) return ev.error(kTooLarge);
  return Value::integer(result);
}

Result<Value> real_arithmetic(Evaluator& ev, const std::string& op, double a, double b) {
  if (op == "+") return Value::real(a + b);
  if (op == "-") return Value::real(a - b);
  if (op == "*") return Value::real(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) return ev.error("division by zero");
    if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
      return ev.error("a complex number is not supported");
    }
    const double result = std::pow(a, b);
    if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
      return ev.error("a number is too large");
    }
    return Value::real(result);
  }
  if (b == 0) return ev.error("division by zero");
  if (op == "/") return Value::real(a / b);
  return Value::real(op == "//" ? float_floor_divide(a, b) : float_modulo(a, b));
}

Result<Value> repeat(Evaluator& ev, const Value& object, int64_t count) {
  const size_t times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (const text::MarkedText* text = object.as_string()) {
    if (!text->empty() && times > kMaxStringBytes / text->size()) {
      return ev.error("the template makes too much text");
    }
    AIRLLM_TRY_VOID(ev.charge(times * text->size()));
    text::MarkedText result;
    for (size_t i = 0; i < times && !text->empty(); ++i) result.append(*text);
    return object.is_markup() ? Value::markup(std::move(result)) : Value::string(std::move(result));
  }
  const List& values = *object.as_list();
  if (!values.empty() && times > kMaxSteps / values.size()) {
    return ev.error("the template runs too long");
  }
  AIRLLM_TRY_VOID(ev.step(times * values.size()));
  List result;
  for (size_t i = 0; i < times && !values.empty(); ++i) {
    result.insert(result.end(), values.begin(), values.end());
  }
  return object.is_tuple() ? Value::tuple(std::move(result)) : Value::list(std::move(result));
}

Result<Value> join_two(Evaluator& ev, const Value& left, const Value& right) {
  if (left.as_string() != nullptr) {
    const bool markup = left.is_markup() || right.is_markup();
    const auto part = [&](const Value& v) {
      return markup && !v.is_markup() ? escape_html(*v.as_string()) : *v.as_string();
    };
    text::MarkedText text = part(left);
    text.append(part(right));
    AIRLLM_TRY_VOID(ev.charge(text.size()));
    return markup ? Value::markup(std::move(text)) : Value::string(std::move(text));
  }
  AIRLLM_TRY_VOID(ev.step(left.as_list()->size() + right.as_list()->size()));
  List values = *left.as_list();
  values.insert(values.end(), right.as_list()->begin(), right.as_list()->end());
  return left.is_tuple() ? Value::tuple(std::move(values)) : Value::list(std::move(values));
}

}  // namespace

Result<Value> Evaluator::binary(const std::string& op, const Value& left, const Value& right) {
  if (op == "%" && left.as_string() != nullptr) {
    if (left.is_markup()) return error("formatting escaped text is not supported");
    return format_percent(*this, *left.as_string(), right);
  }
  if (left.is_undefined()) return error(left.undefined_message());
  if (right.is_undefined()) return error(right.undefined_message());
  if (left.is_arithmetic() && right.is_arithmetic()) {
    const auto a = as_whole(left);
    const auto b = as_whole(right);
    if (a.has_value() && b.has_value()) return whole_arithmetic(*this, op, *a, *b);
    return real_arithmetic(*this, op, left.number(), right.number());
  }
  const bool same_kind = (left.as_string() != nullptr && right.as_string() != nullptr) ||
                         (left.as_list() != nullptr && right.as_list() != nullptr &&
                          left.is_tuple() == right.is_tuple());
  if (op == "+" && same_kind) return join_two(*this, left, right);
  const auto repeats = [](const Value& v) {
    return v.as_string() != nullptr || v.as_list() != nullptr;
  };
  if (op == "*" && repeats(left) && as_whole(right)) return repeat(*this, left, *as_whole(right));
  if (op == "*" && repeats(right) && as_whole(left)) return repeat(*this, right, *as_whole(left));
  return error("'" + op + "' does not work on " + left.type_name() + " and " + right.type_name());
}

Result<bool> Evaluator::equal(const Value& left, const Value& right) {
  AIRLLM_TRY_VOID(step(std::min(left.weight(), right.weight())));
  if (left.as_string() != nullptr && right.as_string() != nullptr) {
    AIRLLM_TRY_VOID(charge(std::min(left.as_string()->size(), right.as_string()->size()) / 64));
  }
  return left == right;
}

Result<bool> Evaluator::less(const Value& left, const Value& right) {
  AIRLLM_TRY_VOID(step());
  if (left.is_arithmetic() && right.is_arithmetic()) {
    const auto a = as_whole(left);
    const auto b = as_whole(right);
    if (a.has_value() && b.has_value()) return *a < *b;
    return static_cast<long double>(a.has_value() ? static_cast<long double>(*a) : left.number()) <
           static_cast<long double>(b.has_value() ? static_cast<long double>(*b) : right.number());
  }
  if (left.as_string() != nullptr && right.as_string() != nullptr) {
    AIRLLM_TRY_VOID(charge(std::min(left.as_string()->size(), right.as_string()->size()) / 64));
    return left.as_string()->text() < right.as_string()->text();
  }
  if (left.as_list() != nullptr && right.as_list() != nullptr &&
      left.is_tuple() == right.is_tuple()) {
    const List& x = *left.as_list();
    const List& y = *right.as_list();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (x[i].is(y[i])) continue;
      AIRLLM_TRY(const bool same, equal(x[i], y[i]));
      if (!same) return less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) return error(value->undefined_message());
  }
  return error(left.type_name() + " and " + right.type_name() + " have no order");
}

Result<bool> Evaluator::contains(const Value& container, const Value& element) {
  if (const text::MarkedText* text = container.as_string()) {
    if (element.as_string() == nullptr) {
      return error("a string holds strings only, not " + element.type_name());
    }
    AIRLLM_TRY_VOID(charge(text->size() / 2));
    return find_bytes(text->text(), element.as_string()->text(), 0) != std::string::npos;
  }
  if (const Dict* entries = container.as_dict()) {
    AIRLLM_TRY_VOID(charge_for_key(*this, element));
    if (!is_hashable(element)) return error("a " + element.type_name() + " cannot be a key");
    return entries->find(element) != nullptr;
  }
  AIRLLM_TRY(const List values, iterate(container));
  for (const Value& value : values) {
    if (value.is(element)) return true;
    AIRLLM_TRY(const bool same, equal(value, element));
    if (same) return true;
  }
  return false;
}

Result<List> Evaluator::iterate(const Value& value) {
  if (const List* values = value.as_list()) {
    AIRLLM_TRY_VOID(step(values->size() / 4));
    return *values;
  }
  if (value.is_undefined()) return List();
  List result;
  if (const text::MarkedText* text = value.as_string()) {
    for (size_t at = 0; at < text->size();) {
      const size_t begin = at;
      text::next_code_point(text->text(), at);
      result.push_back(Value::string(text->substr(begin, at)));
    }
    AIRLLM_TRY_VOID(step(result.size()));
    return result;
  }
  if (const Dict* entries = value.as_dict()) {
    for (const Dict::Entry& entry : entries->entries()) result.push_back(entry.key);
    AIRLLM_TRY_VOID(step(result.size()));
    return result;
  }
  auto* items = value.as<Items>();
  if (items == nullptr)
    return error("a value of type " + value.type_name() + " cannot be looped over");
  AIRLLM_TRY_VOID(step(items->values.size()));
  if (items->kind != Items::Kind::kIterator) return items->values;
  result.assign(items->values.begin() + static_cast<std::ptrdiff_t>(items->at),
                items->values.end());
  items->at = items->values.size();
  if (items->error.has_value()) {
    Error problem = *items->error;
    items->error.reset();
    return Unexpected(std::move(problem));
  }
  return result;
}

namespace {

// What [] gives of an object itself; nothing when Python raises a TypeError or LookupError.
Result<std::optional<Value>> subscript(Evaluator& ev, const Value& object, const Value& key) {
  std::optional<Value> none;
  if (object.is_undefined()) return ev.error(object.undefined_message());
  if (const Dict* entries = object.as_dict()) {
    AIRLLM_TRY_VOID(charge_for_key(ev, key));
    if (!is_hashable(key)) return none;
    const Value* value = entries->find(key);
    return value == nullptr ? none : *value;
  }
  const auto index = as_whole(key);
  if (!index.has_value()) return none;
  const List* values = object.as_list();
  if (const auto* items = object.as<Items>();
      items != nullptr && items->kind == Items::Kind::kRange) {
    values = &items->values;
  }
  const text::MarkedText* text = object.as_string();
  if (values == nullptr && text == nullptr) return none;
  const auto size =
      static_cast<int64_t>(values != nullptr ? values->size() : character_count(*text));
  if (text != nullptr) AIRLLM_TRY_VOID(ev.charge(text->size() / 2));
  if (*index < -size || *index >= size) return none;
  const auto at = static_cast<size_t>(*index < 0 ? *index + size : *index);
  if (values != nullptr) return std::optional((*values)[at]);
  text::MarkedText one = characters(*text, at, at + 1);
  return std::optional(object.is_markup() ? Value::markup(std::move(one))
                                          : Value::string(std::move(one)));
}

Value missing(const Value& object, const std::string& name) {
  return Value::undefined_because("'" + object.type_name() + " object' has no attribute '" + name +
                                  "'");
}

// What Python's getattr gives, and whether the sandbox hides it.
Result<std::optional<Value>> member(Evaluator& ev, const Value& object, std::string_view name);

}  // namespace

Result<Value> Evaluator::attribute(const Value& object, std::string_view name) {
  if (object.is_undefined() && !name.starts_with("__")) return error(object.undefined_message());
  if (name.starts_with("__")) {
    if (object.as_dict() != nullptr && object.as_dict()->find(name) != nullptr &&
        !name.ends_with("__")) {
      return *object.as_dict()->find(name);
    }
    return Value::undefined_because("access to attribute '" + std::string(name) + "' is unsafe.");
  }
  AIRLLM_TRY(const std::optional<Value> found, member(*this, object, name));
  if (found.has_value()) return *found;
  AIRLLM_TRY(const std::optional<Value> value, subscript(*this, object, Value::literal(name)));
  return value.has_value() ? *value : missing(object, std::string(name));
}

Result<Value> Evaluator::item(const Value& object, const Value& key) {
  AIRLLM_TRY(const std::optional<Value> value, subscript(*this, object, key));
  if (value.has_value()) return *value;
  if (key.as_string() == nullptr) {
    return Value::undefined_because(object.type_name() + " object has no such element");
  }
  const std::string& name = key.as_string()->text();
  if (name.starts_with("__")) return missing(object, name);
  AIRLLM_TRY(const std::optional<Value> found, member(*this, object, name));
  return found.has_value() ? *found : missing(object, name);
}

namespace {

Result<std::optional<Value>> loop_member(Evaluator& ev, Loop& loop, std::string_view name) {
  const size_t index0 = loop.next - 1;
  const auto number = [](size_t n) {
    return std::optional(Value::integer(static_cast<int64_t>(n)));
  };
  if (name == "index") return number(index0 + 1);
  if (name == "index0") return number(index0);
  if (name == "first") return std::optional(Value::boolean(index0 == 0));
  if (name == "depth") return number(static_cast<size_t>(loop.depth0) + 1);
  if (name == "depth0") return number(static_cast<size_t>(loop.depth0));
  if (name == "previtem") {
    if (index0 == 0) return std::optional(Value::undefined_because("there is no previous item"));
    return std::optional(loop.values[index0 - 1]);
  }
  if (name == "last" || name == "nextitem") {
    AIRLLM_TRY(const bool more, loop.has(loop.next));
    if (name == "last") return std::optional(Value::boolean(!more));
    if (!more) return std::optional(Value::undefined_because("there is no next item"));
    return std::optional(loop.values[loop.next]);
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    AIRLLM_TRY_VOID(loop.has(kMaxSteps));
    const size_t length = loop.values.size();
    return number(name == "length"     ? length
                  : name == "revindex" ? length - index0
                                       : length - loop.next);
  }
  auto* self = &loop;  // kept by the evaluator until its end
  if (name == "cycle") {
    return std::optional(
        make_function("cycle", [self](Evaluator& inner, const Call& call) -> Result<Value> {
          if (call.positional.empty()) return inner.error("no items for cycling given");
          return call.positional[(self->next - 1) % call.positional.size()];
        }));
  }
  if (name == "changed") {
    return std::optional(
        make_function("changed", [self](Evaluator& inner, const Call& call) -> Result<Value> {
          if (self->last_changed.has_value()) {
            AIRLLM_TRY(const bool same, inner.equal(Value::tuple(*self->last_changed),
                                                    Value::tuple(call.positional)));
            if (same) return Value::boolean(false);
          }
          self->last_changed = call.positional;
          return Value::boolean(true);
        }));
  }
  (void)ev;
  return std::optional<Value>();
}

std::optional<Value> cycler_member(Cycler& cycler, std::string_view name) {
  auto* self = &cycler;
  if (name == "current") return cycler.values[cycler.at];
  if (name == "reset") {
    return make_function("reset", [self](Evaluator&, const Call&) -> Result<Value> {
      self->at = 0;
      return Value::none();
    });
  }
  if (name != "next") return std::nullopt;
  return make_function("next", [self](Evaluator&, const Call&) -> Result<Value> {
    const Value value = self->values[self->at];
    self->at = (self->at + 1) % self->values.size();
    return value;
  });
}

std::optional<Value> macro_member(const Macro& macro, std::string_view name) {
  const MacroCode& code = *macro.code;
  if (name == "name") return code.name.empty() ? Value::none() : Value::literal(code.name);
  if (name == "catch_kwargs") return Value::boolean(code.uses_kwargs);
  if (name == "catch_varargs") return Value::boolean(code.uses_varargs);
  if (name == "caller") return Value::boolean(code.uses_caller);
  if (name != "arguments") return std::nullopt;
  List names;
  for (const std::string& parameter : code.parameters) names.push_back(Value::literal(parameter));
  return Value::tuple(std::move(names));
}

Result<std::optional<Value>> member(Evaluator& ev, const Value& object, std::string_view name) {
  if (const auto* space = object.as<Namespace>()) {
    const Value* value = space->attributes.find(name);
    return value == nullptr ? std::optional<Value>() : *value;
  }
  if (name.starts_with('_')) return std::optional<Value>();
  if (auto* loop = object.as<Loop>()) return loop_member(ev, *loop, name);
  if (auto* cycler = object.as<Cycler>()) return cycler_member(*cycler, name);
  if (const auto* macro = object.as<Macro>()) return macro_member(*macro, name);
  if (const auto* function = object.as<Function>();
      function != nullptr && function->name == "dict" && name == "fromkeys") {
    return std::optional(
        make_function("fromkeys", [](Evaluator& inner, const Call& call) -> Result<Value> {
          if (call.positional.empty()) return inner.error("fromkeys() needs keys");
          AIRLLM_TRY(const List keys, inner.iterate(call.positional[0]));
          Dict entries;
          for (const Value& key : keys) {
            AIRLLM_TRY_VOID(charge_for_key(inner, key));
            if (!is_hashable(key)) return inner.error("a key cannot be hashed");
            entries.set(key, call.positional.size() > 1 ? call.positional[1] : Value::none());
          }
          return Value::dict(std::move(entries));
        }));
  }
  return find_method(object, name);
}

}  // namespace

Result<bool> Loop::has(size_t index) {
  while (values.size() <= index && source_at < source.size()) {
    const auto passes = condition;
    const Value element = source[source_at++];
    AIRLLM_TRY(const bool taken, passes(element));
    if (taken) values.push_back(element);
  }
  return index < values.size();
}

Result<Value> Evaluator::slice(const Value& object, const Value& begin, const Value& end,
                               const Value& step_value) {
  if (object.is_undefined()) return error(object.undefined_message());
  const text::MarkedText* text = object.as_string();
  const List* values = object.as_list();
  if (const auto* items = object.as<Items>();
      items != nullptr && items->kind == Items::Kind::kRange) {
    values = &items->values;
  }
  if (text == nullptr && values == nullptr) {
    return error("a value of type " + object.type_name() + " cannot be sliced");
  }
  for (const Value* bound : {&begin, &end, &step_value}) {
    if (!bound->is_none() && !as_whole(*bound)) return error("a slice needs whole numbers");
  }
  const int64_t stride = step_value.is_none() ? 1 : *as_whole(step_value);
  if (stride == 0) return error("a slice cannot step by zero");
  const auto size =
      static_cast<int64_t>(values != nullptr ? values->size() : character_count(*text));
  const int64_t lowest = stride < 0 ? -1 : 0;
  const int64_t highest = stride < 0 ? size - 1 : size;
  const auto place = [&](const Value& bound, int64_t absent) {
    if (bound.is_none()) return absent;
    int64_t at = *as_whole(bound);
    if (at < 0) at = at < -size ? lowest : std::max(at + size, lowest);
    return std::min(at, highest);
  };
  const int64_t first = place(begin, stride < 0 ? highest : lowest);
  const int64_t last = place(end, stride < 0 ? lowest : highest);
  if (text != nullptr && stride == 1) {
    AIRLLM_TRY_VOID(charge(text->size()));
    text::MarkedText part =
        first < last ? characters(*text, static_cast<size_t>(first), static_cast<size_t>(last))
                     : text::MarkedText();
    return object.is_markup() ? Value::markup(std::move(part)) : Value::string(std::move(part));
  }
  List letters;
  if (text != nullptr) {
    AIRLLM_TRY(letters, iterate(object));
    values = &letters;
  }
  List result;
  for (int64_t at = first; stride > 0 ? at < last : at > last;) {
    result.push_back((*values)[static_cast<size_t>(at)]);
    if (__builtin_add_overflow(at, stride, &at)) break;
  }
  AIRLLM_TRY_VOID(step(result.size()));
  if (text == nullptr)
    return object.is_tuple() ? Value::tuple(std::move(result)) : Value::list(std::move(result));
  text::MarkedText joined;
  for (const Value& letter : result) joined.append(*letter.as_string());
  return object.is_markup() ? Value::markup(std::move(joined)) : Value::string(std::move(joined));
}

Value make_items(Items::Kind kind, std::string name, List values) {
  auto items = std::make_shared<Items>();
  items->kind = kind;
  items->name = std::move(name);
  for (const Value& value : values) {
    items->depth = std::max(items->depth, 1 + value.nesting());
    items->heaviness = std::min(items->heaviness + value.weight(), 2 * kMaxWeight);
  }
  items->values = std::move(values);
  return Value::object(std::move(items));
}

}  // namespace airllm::jinja
