// How the evaluator computes expressions.
#include <algorithm>

#include "engine/jinja/evaluator.h"
#include "engine/jinja/objects.h"

namespace airllm::jinja {

using Kind = Expression::Kind;

Result<Value> Evaluator::evaluate(const Expression& e) {
  if (guard_.nearly_full()) return error("the template calls itself too deeply");
  line_ = e.line;
  AIRLLM_TRY_VOID(step());
  AIRLLM_TRY(Value value, evaluate_kind(e));
  if (value.nesting() > kMaxNesting) return error("values are nested too deeply");
  if (value.weight() > kMaxWeight) return error("a value holds too many others");
  return value;
}

Result<Value> Evaluator::evaluate_kind(const Expression& e) {
  switch (e.kind) {
    case Kind::kLiteral: return e.value;
    case Kind::kName: {
      const Value* value = find_variable(e.name);
      return value == nullptr ? Value::undefined(e.name) : *value;
    }
    case Kind::kList:
    case Kind::kTuple: {
      AIRLLM_TRY(List values, evaluate_all(e.children));
      return e.kind == Kind::kList ? Value::list(std::move(values))
                                   : Value::tuple(std::move(values));
    }
    case Kind::kDict: return dict(e);
    case Kind::kAttribute: {
      AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
      return attribute(object, e.name);
    }
    case Kind::kSubscript: {
      AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
      AIRLLM_TRY(const Value key, evaluate(*e.children[1]));
      return item(object, key);
    }
    case Kind::kSlice: {
      AIRLLM_TRY(const Value object, evaluate(*e.children[0]));
      AIRLLM_TRY(const Value begin, evaluate_or_none(e.children[1]));
      AIRLLM_TRY(const Value end, evaluate_or_none(e.children[2]));
      AIRLLM_TRY(const Value step_value, evaluate_or_none(e.children[3]));
      return slice(object, begin, end, step_value);
    }
    case Kind::kCall: {
      AIRLLM_TRY(const Value function, evaluate(*e.children[0]));
      AIRLLM_TRY(Call arguments, evaluate_arguments(e.arguments));
      return call(function, std::move(arguments));
    }
    case Kind::kFilter: return apply_filter(e, nullptr);
    case Kind::kTest: return apply_test(e);
    case Kind::kNot:
    case Kind::kNegative:
    case Kind::kPositive: return unary(e);
    case Kind::kBinary: {
      AIRLLM_TRY(const Value left, evaluate(*e.children[0]));
      AIRLLM_TRY(const Value right, evaluate(*e.children[1]));
      return binary(e.name, left, right);
    }
    case Kind::kConcat: return concatenate(e);
    case Kind::kCompare: return compare(e);
    case Kind::kAnd:
    case Kind::kOr: {
      AIRLLM_TRY(Value left, evaluate(*e.children[0]));
      if (left.truth() == (e.kind == Kind::kOr)) return left;
      return evaluate(*e.children[1]);
    }
    case Kind::kConditional: return conditional(e);
    case Kind::kMember: break;
  }
  return error("this is no value");
}

Result<Value> Evaluator::evaluate_or_none(const ExpressionPtr& e) {
  if (e == nullptr) return Value::none();
  return evaluate(*e);
}

Result<List> Evaluator::evaluate_all(const std::vector<ExpressionPtr>& expressions) {
  List values;
  values.reserve(expressions.size());
  for (const ExpressionPtr& expression : expressions) {
    AIRLLM_TRY(Value value, evaluate(*expression));
    values.push_back(std::move(value));
  }
  return values;
}

Result<Value> Evaluator::dict(const Expression& e) {
  Dict entries;
  for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
    AIRLLM_TRY(Value key, evaluate(*e.children[i]));
    AIRLLM_TRY(Value value, evaluate(*e.children[i + 1]));
    AIRLLM_TRY_VOID(charge_for_key(*this, key));
    if (!is_hashable(key)) return error("a " + key.type_name() + " cannot be a key");
    entries.set(std::move(key), std::move(value));
  }
  return Value::dict(std::move(entries));
}

Result<Call> Evaluator::evaluate_arguments(const Arguments& arguments) {
  Call result;
  AIRLLM_TRY(result.positional, evaluate_all(arguments.positional));
  for (const auto& [name, expression] : arguments.keywords) {
    AIRLLM_TRY(Value value, evaluate(*expression));
    result.keywords.push_back({{name, kTemplateOrigin}, std::move(value)});
  }
  if (arguments.more_positional != nullptr) {
    AIRLLM_TRY(const Value more, evaluate(*arguments.more_positional));
    AIRLLM_TRY(const List values, iterate(more));
    result.positional.insert(result.positional.end(), values.begin(), values.end());
  }
  if (arguments.more_keywords == nullptr) return result;
  AIRLLM_TRY(const Value more, evaluate(*arguments.more_keywords));
  if (more.as_dict() == nullptr) return error("the argument after ** is no mapping");
  AIRLLM_TRY_VOID(step(more.as_dict()->size()));
  for (const Dict::Entry& entry : more.as_dict()->entries()) {
    if (entry.key.as_string() == nullptr) return error("a keyword is no string");
    const std::string& name = entry.key.as_string()->text();
    // The mapping's own keys differ from each other.
    for (size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (arguments.keywords[i].first == name)
        return error("the argument '" + name + "' is given twice");
    }
    result.keywords.push_back({*entry.key.as_string(), entry.value});
  }
  return result;
}

Result<Value> Evaluator::conditional(const Expression& e) {
  AIRLLM_TRY(const Value condition, evaluate(*e.children[1]));
  if (condition.truth()) return evaluate(*e.children[0]);
  if (e.children[2] != nullptr) return evaluate(*e.children[2]);
  return Value::undefined_because("the inline if-expression on line " + std::to_string(e.line) +
                                  " evaluated to false and no else section was defined.");
}

Result<Value> Evaluator::concatenate(const Expression& e) {
  text::MarkedText result;
  AIRLLM_TRY(const List values, evaluate_all(e.children));
  for (const Value& value : values) {
    AIRLLM_TRY(const text::MarkedText part, to_text(value));
    AIRLLM_TRY_VOID(charge(part.size()));
    result.append(part);
  }
  return Value::string(std::move(result));
}

Result<Value> Evaluator::unary(const Expression& e) {
  AIRLLM_TRY(const Value value, evaluate(*e.children[0]));
  if (e.kind == Kind::kNot) return Value::boolean(!value.truth());
  if (value.is_undefined()) return error(value.undefined_message());
  const bool negative = e.kind == Kind::kNegative;
  if (const double* real = value.as_real()) return Value::real(negative ? -*real : *real);
  if (value.as_integer() == nullptr && value.as_boolean() == nullptr) {
    return error("a value of type " + value.type_name() + " has no sign");
  }
  const int64_t whole =
      value.as_integer() != nullptr ? *value.as_integer() : int64_t{*value.as_boolean()};
  if (!negative) return Value::integer(whole);
  return binary("-", Value::integer(0), Value::integer(whole));
}

Result<Value> Evaluator::compare(const Expression& e) {
  AIRLLM_TRY(Value left, evaluate(*e.children[0]));
  bool result = true;
  for (size_t i = 0; i < e.operators.size() && result; ++i) {
    AIRLLM_TRY(Value right, evaluate(*e.children[i + 1]));
    line_ = e.line;
    AIRLLM_TRY(result, compare_pair(e.operators[i], left, right));
    left = std::move(right);
  }
  return Value::boolean(result);
}

Result<bool> Evaluator::compare_pair(const std::string& op, const Value& left, const Value& right) {
  bool result = false;
  if (op == "==" || op == "!=") {
    AIRLLM_TRY(result, equal(left, right));
    return result == (op == "==");
  }
  if (op == "in" || op == "not in") {
    AIRLLM_TRY(result, contains(right, left));
    return result == (op == "in");
  }
  const bool has_nan = (left.as_real() != nullptr && *left.as_real() != *left.as_real()) ||
                       (right.as_real() != nullptr && *right.as_real() != *right.as_real());
  if (op == "<" || op == ">=") {
    AIRLLM_TRY(result, less(left, right));
  } else {
    AIRLLM_TRY(result, less(right, left));
  }
  if (has_nan) return false;
  return result == (op == "<" || op == ">");
}

Result<Value> Evaluator::apply_filter(const Expression& e, const Value* block_text) {
  Value value;
  if (e.children[0] == nullptr) {
    value = *block_text;
  } else if (e.children[0]->kind == Kind::kFilter) {
    AIRLLM_TRY(value, apply_filter(*e.children[0], block_text));
  } else {
    AIRLLM_TRY(value, evaluate(*e.children[0]));
  }
  AIRLLM_TRY(Call arguments, evaluate_arguments(e.arguments));
  line_ = e.line;
  return filter(e.name, value, std::move(arguments));
}

Result<Value> Evaluator::apply_test(const Expression& e) {
  AIRLLM_TRY(const Value value, evaluate(*e.children[0]));
  AIRLLM_TRY(Call arguments, evaluate_arguments(e.arguments));
  line_ = e.line;
  AIRLLM_TRY(const bool result, test(e.name, value, std::move(arguments)));
  return Value::boolean(result);
}

Result<Value> Evaluator::filter(const std::string& name, const Value& value, Call arguments) {
  if (!is_filter_name(name)) return error("unknown filter '" + name + "'");
  AIRLLM_TRY_VOID(step());
  AIRLLM_TRY_VOID(charge_for_reading(*this, value));
  return run_filter(*this, name, value, std::move(arguments));
}

Result<bool> Evaluator::test(const std::string& name, const Value& value, Call arguments) {
  if (!is_test_name(name)) return error("unknown test '" + name + "'");
  AIRLLM_TRY_VOID(step());
  AIRLLM_TRY_VOID(charge_for_reading(*this, value));
  return run_test(*this, name, value, std::move(arguments));
}

}  // namespace airllm::jinja
