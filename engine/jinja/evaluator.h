// Runs a syntax tree. Steps, memory, nesting and output are limited, so that a hostile template
// ends with an error.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/stack_guard.h"
#include "engine/jinja/strftime.h"

namespace airllm::jinja {

inline constexpr size_t kMaxSteps = 4'000'000;
inline constexpr size_t kMaxOutputBytes = size_t{64} << 20;
// All strings that are made on the way; each costs its bytes even when it is thrown away.
inline constexpr size_t kMaxStringBytes = size_t{512} << 20;
inline constexpr int kMaxCallDepth = 500;

// What a call gives. A keyword remembers who wrote its name: **mapping takes the mapping's.
struct Keyword {
  text::MarkedText name;
  Value value;
};
struct Call {
  List positional;
  std::vector<Keyword> keywords;
};

// By name, in constant time however many there are.
class Variables {
 public:
  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  size_t place(std::string_view name) const;  // the number of entries when it is not there

  Map entries_;
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> places_;  // once there are many
};

struct Scope {
  Scope* parent = nullptr;
  bool captured = false;  // by a macro, which may outlive it
  Variables variables;
};

// One rendering. Borrows the tree; not thread-safe, and run() stays on the thread that made it.
class Evaluator {
 public:
  // `now` is what strftime_now() prints; without it, the clock's time at each call.
  Evaluator(std::string_view what, const Map& variables,
            std::optional<LocalTime> now = std::nullopt);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  // The output. A wrong operation is a kData error with its line; raise_exception() is a kUsage
  // error with its text.
  Result<text::MarkedText> run(const Block& block);

  // For what is built in: errors at the line that runs, and the limits.
  Unexpected error(std::string_view problem) const;
  Status step(size_t count = 1);
  Status charge(size_t bytes);
  Result<Value> make_text(text::MarkedText text);

  Result<text::MarkedText> to_text(const Value& value);  // str()
  Result<text::MarkedText> repr(const Value& value);     // repr()
  Result<List> iterate(const Value& value);              // list()
  Result<Value> attribute(const Value& object, std::string_view name);
  Result<Value> item(const Value& object, const Value& key);
  Result<Value> call(const Value& function, Call arguments);
  Result<Value> filter(const std::string& name, const Value& value, Call arguments);
  Result<bool> test(const std::string& name, const Value& value, Call arguments);
  Result<Value> binary(const std::string& op, const Value& left, const Value& right);
  Result<bool> equal(const Value& left, const Value& right);
  Result<bool> less(const Value& left, const Value& right);
  Result<bool> contains(const Value& container, const Value& element);
  Result<Value> slice(const Value& object, const Value& begin, const Value& end,
                      const Value& step_value);
  // Keeps what may hold itself until the end, when it is emptied.
  Value keep(std::shared_ptr<Object> object);
  LocalTime now() const { return now_.has_value() ? *now_ : local_now(); }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class ScopeGuard;

  Result<Flow> run_block(const Block& block);
  Result<Flow> run_statement(const Statement& statement);
  Status run_output(const Statement& statement);
  Result<Flow> run_if(const Statement& statement);
  Result<Flow> run_for(const Statement& statement);
  Status run_loop(const Statement& statement, const Value& iterable, int depth);
  Status run_set(const Statement& statement);
  Result<Flow> run_set_block(const Statement& statement);
  Status run_call_block(const Statement& statement);
  Result<Flow> run_filter_block(const Statement& statement);
  Result<Flow> run_with(const Statement& statement);
  Result<Value> captured(const Block& block, Flow& flow);
  Status emit(const text::MarkedText& text);
  Status assign(const Expression& target, const Value& value);
  Value make_macro(const std::shared_ptr<const MacroCode>& code);
  Result<Value> call_macro(const struct Macro& macro, Call arguments);
  Status bind_parameters(const struct Macro& macro, Call& arguments);

  Result<Value> evaluate(const Expression& e);
  Result<Value> evaluate_kind(const Expression& e);
  Result<Value> evaluate_or_none(const ExpressionPtr& e);
  Result<Call> evaluate_arguments(const Arguments& arguments);
  Result<List> evaluate_all(const std::vector<ExpressionPtr>& expressions);
  Result<Value> dict(const Expression& e);
  Result<Value> compare(const Expression& e);
  Result<bool> compare_pair(const std::string& op, const Value& left, const Value& right);
  Result<Value> unary(const Expression& e);
  Result<Value> concatenate(const Expression& e);
  Result<Value> conditional(const Expression& e);
  Result<Value> apply_filter(const Expression& e, const Value* block_text);
  Result<Value> apply_test(const Expression& e);

  const Value* find_variable(std::string_view name) const;
  void set_variable(const std::string& name, Value value);

  std::string what_;
  std::optional<LocalTime> now_;
  Scope globals_;
  Scope* scope_ = &globals_;
  std::vector<std::unique_ptr<Scope>> kept_scopes_;
  std::vector<std::shared_ptr<Object>> kept_objects_;
  text::MarkedText output_;
  text::MarkedText* buffer_ = &output_;
  StackGuard guard_;
  int line_ = 1;
  int call_depth_ = 0;
  size_t steps_ = 0;
  size_t string_bytes_ = 0;
};

}  // namespace airllm::jinja
