#include "engine/jinja/evaluator.h"

#include <algorithm>

#include "engine/jinja/lexer.h"
#include "engine/jinja/objects.h"

namespace airllm::jinja {

using Kind = Expression::Kind;

// A scope inside the current one, for as long as this lives.
class Evaluator::ScopeGuard {
 public:
  explicit ScopeGuard(Evaluator& evaluator) : ScopeGuard(evaluator, evaluator.scope_) {}
  ScopeGuard(Evaluator& evaluator, Scope* parent)
      : evaluator_(evaluator), outer_(evaluator.scope_), scope_(std::make_unique<Scope>()) {
    scope_->parent = parent;
    evaluator.scope_ = scope_.get();
  }
  ~ScopeGuard() {
    evaluator_.scope_ = outer_;
    if (scope_->captured) evaluator_.kept_scopes_.push_back(std::move(scope_));
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Evaluator& evaluator_;
  Scope* outer_;
  std::unique_ptr<Scope> scope_;
};

namespace {
constexpr size_t kFewVariables = 16;
}  // namespace

size_t Variables::place(std::string_view name) const {
  if (!places_.empty()) {
    const auto found = places_.find(name);
    return found == places_.end() ? entries_.size() : found->second;
  }
  size_t at = 0;
  while (at < entries_.size() && entries_[at].first != name) ++at;
  return at;
}

const Value* Variables::find(std::string_view name) const {
  const size_t at = place(name);
  return at == entries_.size() ? nullptr : &entries_[at].second;
}

void Variables::set(const std::string& name, Value value) {
  const size_t at = place(name);
  if (at < entries_.size()) {
    entries_[at].second = std::move(value);
    return;
  }
  entries_.emplace_back(name, std::move(value));
  if (entries_.size() <= kFewVariables) return;
  for (size_t i = places_.size(); i < entries_.size(); ++i) places_.emplace(entries_[i].first, i);
}

Evaluator::Evaluator(std::string_view what, const Map& variables, std::optional<LocalTime> now)
    : what_(what), now_(now) {
  for (const auto& [name, value] : global_functions()) set_variable(name, value);
  for (const auto& [name, value] : variables) set_variable(name, value);
}

Evaluator::~Evaluator() {
  for (const auto& object : kept_objects_) {
    if (auto* cyclic = dynamic_cast<Cyclic*>(object.get())) cyclic->clear();
  }
}

Unexpected Evaluator::error(std::string_view problem) const {
  return template_error(what_, line_, problem);
}

Status Evaluator::step(size_t count) {
  steps_ += std::min(count, kMaxSteps + 1);
  if (steps_ > kMaxSteps) return error("the template runs too long");
  return {};
}

Status Evaluator::charge(size_t bytes) {
  string_bytes_ += std::min(bytes, kMaxStringBytes + 1);
  if (string_bytes_ > kMaxStringBytes) return error("the template makes too much text");
  return {};
}

Result<Value> Evaluator::make_text(text::MarkedText text) {
  AIRLLM_TRY_VOID(charge(text.size()));
  return Value::string(std::move(text));
}

Value Evaluator::keep(std::shared_ptr<Object> object) {
  kept_objects_.push_back(object);
  return Value::object(std::move(object));
}

const Value* Evaluator::find_variable(std::string_view name) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    if (const Value* value = scope->variables.find(name)) return value;
  }
  return nullptr;
}

void Evaluator::set_variable(const std::string& name, Value value) {
  scope_->variables.set(name, std::move(value));
}

Result<text::MarkedText> Evaluator::run(const Block& block) {
  AIRLLM_TRY_VOID(run_block(block));
  return std::move(output_);
}

Result<Evaluator::Flow> Evaluator::run_block(const Block& block) {
  if (guard_.nearly_full()) return error("the template calls itself too deeply");
  for (const Statement& statement : block) {
    AIRLLM_TRY(const Flow flow, run_statement(statement));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Result<Evaluator::Flow> Evaluator::run_statement(const Statement& statement) {
  line_ = statement.line;
  AIRLLM_TRY_VOID(step());
  switch (statement.kind) {
    case Statement::Kind::kText: AIRLLM_TRY_VOID(emit({statement.text, kTemplateOrigin})); break;
    case Statement::Kind::kOutput: AIRLLM_TRY_VOID(run_output(statement)); break;
    case Statement::Kind::kIf: return run_if(statement);
    case Statement::Kind::kFor: return run_for(statement);
    case Statement::Kind::kSet: AIRLLM_TRY_VOID(run_set(statement)); break;
    case Statement::Kind::kSetBlock: return run_set_block(statement);
    case Statement::Kind::kMacro:
      set_variable(statement.macro->name, make_macro(statement.macro));
      break;
    case Statement::Kind::kCall: AIRLLM_TRY_VOID(run_call_block(statement)); break;
    case Statement::Kind::kFilter: return run_filter_block(statement);
    case Statement::Kind::kWith: return run_with(statement);
    case Statement::Kind::kScope: {
      const ScopeGuard scope(*this);
      return run_block(statement.body);
    }
    case Statement::Kind::kBreak: return Flow::kBreak;
    case Statement::Kind::kContinue: return Flow::kContinue;
  }
  return Flow::kNormal;
}

Status Evaluator::emit(const text::MarkedText& text) {
  if (text.size() > kMaxOutputBytes - std::min(buffer_->size(), kMaxOutputBytes)) {
    return error("the prompt is longer than 64 MiB");
  }
  AIRLLM_TRY_VOID(charge(text.size()));
  buffer_->append(text);
  return {};
}

Status Evaluator::run_output(const Statement& statement) {
  AIRLLM_TRY(const Value value, evaluate(*statement.expression));
  AIRLLM_TRY(const text::MarkedText text, to_text(value));
  return emit(text);
}

Result<Evaluator::Flow> Evaluator::run_if(const Statement& statement) {
  for (const Statement::Branch& branch : statement.branches) {
    bool taken = branch.condition == nullptr;
    if (!taken) {
      AIRLLM_TRY(const Value condition, evaluate(*branch.condition));
      taken = condition.truth();
    }
    if (taken) return run_block(branch.body);
  }
  return Flow::kNormal;
}

Result<Value> Evaluator::captured(const Block& block, Flow& flow) {
  text::MarkedText text;
  text::MarkedText* outer = std::exchange(buffer_, &text);
  Result<Flow> result = run_block(block);
  buffer_ = outer;
  if (!result.has_value()) return Unexpected(std::move(result).error());
  flow = *result;
  return Value::string(std::move(text));
}

Result<Evaluator::Flow> Evaluator::run_for(const Statement& statement) {
  AIRLLM_TRY(const Value iterable, evaluate(*statement.expression));
  AIRLLM_TRY_VOID(run_loop(statement, iterable, 0));
  return Flow::kNormal;
}

Status Evaluator::run_loop(const Statement& statement, const Value& iterable, int depth) {
  auto loop = std::make_shared<Loop>();
  AIRLLM_TRY(loop->values, iterate(iterable));
  loop->depth0 = depth;
  Scope* outer = scope_;
  if (statement.condition != nullptr) {
    loop->condition = [this, &statement, outer](const Value& element) -> Result<bool> {
      const ScopeGuard scope(*this, outer);
      AIRLLM_TRY_VOID(assign(*statement.target, element));
      AIRLLM_TRY(const Value condition, evaluate(*statement.condition));
      return condition.truth();
    };
    std::swap(loop->values, loop->source);
  }
  if (statement.recursive) {
    loop->recurse = [this, &statement, outer, depth](const Value& inner) -> Result<Value> {
      text::MarkedText text;
      text::MarkedText* buffer = std::exchange(buffer_, &text);
      Scope* current = std::exchange(scope_, outer);
      const Status status = run_loop(statement, inner, depth + 1);
      buffer_ = buffer;
      scope_ = current;
      if (!status.has_value()) return Unexpected(status.error());
      return Value::string(std::move(text));
    };
  }
  const Value loop_value = keep(loop);
  bool completed = false;
  while (true) {
    AIRLLM_TRY(const bool more, loop->has(loop->next));
    if (!more) break;
    const Value element = loop->values[loop->next++];
    const ScopeGuard scope(*this);
    AIRLLM_TRY_VOID(assign(*statement.target, element));
    set_variable("loop", loop_value);
    AIRLLM_TRY(const Flow flow, run_block(statement.body));
    if (flow == Flow::kBreak) break;
    completed = completed || flow == Flow::kNormal;
  }
  if (!completed && !statement.otherwise.empty()) {
    const ScopeGuard scope(*this);
    AIRLLM_TRY_VOID(run_block(statement.otherwise));
  }
  loop->condition = nullptr;  // these borrow scopes that end here
  loop->recurse = nullptr;
  return {};
}

Status Evaluator::assign(const Expression& target, const Value& value) {
  if (target.kind == Kind::kName) {
    set_variable(target.name, value);
    return {};
  }
  if (target.kind == Kind::kMember) {
    const Value* object = find_variable(target.name);
    auto* space = object == nullptr ? nullptr : object->as<Namespace>();
    if (space == nullptr) return error("'" + target.name + "' is not a namespace to assign to");
    if (target.member.starts_with('_')) return error("'" + target.member + "' cannot be assigned");
    space->attributes.set(Value::literal(target.member), value);
    return {};
  }
  AIRLLM_TRY(const List values, iterate(value));
  if (values.size() != target.children.size()) {
    return error(std::to_string(values.size()) + " values for " +
                 std::to_string(target.children.size()) + " names");
  }
  for (size_t i = 0; i < values.size(); ++i) {
    AIRLLM_TRY_VOID(assign(*target.children[i], values[i]));
  }
  return {};
}

Status Evaluator::run_set(const Statement& statement) {
  AIRLLM_TRY(const Value value, evaluate(*statement.expression));
  return assign(*statement.target, value);
}

Result<Evaluator::Flow> Evaluator::run_set_block(const Statement& statement) {
  Value value;
  Flow flow = Flow::kNormal;
  {
    const ScopeGuard scope(*this);
    AIRLLM_TRY(value, captured(statement.body, flow));
    if (flow != Flow::kNormal) return flow;
    if (statement.expression != nullptr) {
      AIRLLM_TRY(value, apply_filter(*statement.expression, &value));
    }
  }
  AIRLLM_TRY_VOID(assign(*statement.target, value));
  return flow;
}

Result<Evaluator::Flow> Evaluator::run_filter_block(const Statement& statement) {
  const ScopeGuard scope(*this);
  Flow flow = Flow::kNormal;
  AIRLLM_TRY(Value value, captured(statement.body, flow));
  if (flow != Flow::kNormal) return flow;
  AIRLLM_TRY(value, apply_filter(*statement.expression, &value));
  AIRLLM_TRY(const text::MarkedText text, to_text(value));
  AIRLLM_TRY_VOID(emit(text));
  return flow;
}

Result<Evaluator::Flow> Evaluator::run_with(const Statement& statement) {
  List values;
  for (const auto& [target, expression] : statement.assignments) {
    AIRLLM_TRY(Value value, evaluate(*expression));
    values.push_back(std::move(value));
  }
  const ScopeGuard scope(*this);
  for (size_t i = 0; i < values.size(); ++i) {
    AIRLLM_TRY_VOID(assign(*statement.assignments[i].first, values[i]));
  }
  return run_block(statement.body);
}

Value Evaluator::make_macro(const std::shared_ptr<const MacroCode>& code) {
  auto macro = std::make_shared<Macro>();
  macro->code = code;
  macro->scope = scope_;
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->captured = true;
  return keep(std::move(macro));
}

Status Evaluator::run_call_block(const Statement& statement) {
  const Expression& e = *statement.expression;
  AIRLLM_TRY(const Value function, evaluate(*e.children[0]));
  AIRLLM_TRY(Call arguments, evaluate_arguments(e.arguments));
  arguments.keywords.push_back({{"caller", kTemplateOrigin}, make_macro(statement.macro)});
  AIRLLM_TRY(const Value value, call(function, std::move(arguments)));
  AIRLLM_TRY(const text::MarkedText text, to_text(value));
  return emit(text);
}

Result<Value> Evaluator::call_macro(const Macro& macro, Call arguments) {
  const ScopeGuard scope(*this, macro.scope);
  AIRLLM_TRY_VOID(bind_parameters(macro, arguments));
  Flow flow = Flow::kNormal;
  return captured(macro.code->body, flow);
}

Status Evaluator::bind_parameters(const Macro& macro, Call& arguments) {
  const MacroCode& code = *macro.code;
  const size_t count = code.parameters.size();
  const auto take_keyword = [&](std::string_view name) -> std::optional<Value> {
    for (auto it = arguments.keywords.begin(); it != arguments.keywords.end(); ++it) {
      if (it->name.text() != name) continue;
      Value value = std::move(it->value);
      arguments.keywords.erase(it);
      return value;
    }
    return std::nullopt;
  };
  const bool names_caller =
      std::find(code.parameters.begin(), code.parameters.end(), "caller") != code.parameters.end();
  // The work below is as much as this, and in a loop it comes again and again.
  AIRLLM_TRY_VOID(step(count + arguments.keywords.size()));
  AIRLLM_TRY_VOID(step(count * arguments.keywords.size() / 16));
  std::vector<std::optional<Value>> given(count);
  for (size_t i = 0; i < count; ++i) {
    given[i] = i < arguments.positional.size() ? std::optional(arguments.positional[i])
                                               : take_keyword(code.parameters[i]);
  }
  if (code.uses_caller && !names_caller) {
    set_variable("caller", take_keyword("caller").value_or(Value::undefined("caller")));
  }
  if (code.uses_kwargs) {
    set_variable("kwargs", keywords_dict(std::move(arguments.keywords)));
  } else if (!arguments.keywords.empty()) {
    return error("the macro '" + code.name + "' takes no keyword argument '" +
                 arguments.keywords.front().name.text() + "'");
  }
  if (code.uses_varargs) {
    const auto more = static_cast<std::ptrdiff_t>(std::min(count, arguments.positional.size()));
    set_variable("varargs", Value::tuple(List(arguments.positional.begin() + more,
                                              arguments.positional.end())));
  } else if (arguments.positional.size() > count) {
    return error("the macro '" + code.name + "' takes not more than " + std::to_string(count) +
                 " arguments");
  }
  for (size_t i = 0; i < count; ++i) {
    if (given[i].has_value()) set_variable(code.parameters[i], *given[i]);
  }
  const size_t first_default = count - code.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    if (given[i].has_value()) continue;
    Value value =
        Value::undefined_because("parameter '" + code.parameters[i] + "' was not provided");
    if (i >= first_default) {
      AIRLLM_TRY(value, evaluate(*code.defaults[i - first_default]));
    }
    set_variable(code.parameters[i], std::move(value));
  }
  return {};
}

Result<Value> Evaluator::call(const Value& function, Call arguments) {
  if (function.is_undefined()) return error(function.undefined_message());
  if (++call_depth_ > kMaxCallDepth || guard_.nearly_full()) {
    return error("the template calls itself too deeply");
  }
  AIRLLM_TRY_VOID(step());
  const int line = line_;
  Result<Value> result = Value();
  const Value held = function;  // the variable that holds it may change
  if (const auto* native = held.as<Function>()) {
    result = native->body(*this, std::move(arguments));
  } else if (const auto* macro = held.as<Macro>()) {
    result = call_macro(*macro, std::move(arguments));
  } else if (auto* joiner = held.as<Joiner>()) {
    result = std::exchange(joiner->used, true) ? joiner->separator : Value::literal("");
  } else if (auto* loop = held.as<Loop>()) {
    if (loop->recurse == nullptr) return error("this loop is not recursive");
    if (arguments.positional.size() != 1) return error("loop() takes one argument");
    const auto recurse = loop->recurse;
    result = recurse(arguments.positional[0]);
  } else {
    return error("a value of type " + function.type_name() + " cannot be called");
  }
  line_ = line;
  --call_depth_;
  return result;
}

}  // namespace airllm::jinja
