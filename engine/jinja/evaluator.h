// Runs a syntax tree. Steps, memory and output are limited, so that a hostile template ends with an
// error.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/jinja/ast.h"

namespace airllm::jinja {

inline constexpr size_t kMaxSteps = 4'000'000;
inline constexpr size_t kMaxOutputBytes = size_t{64} << 20;
// All strings that are made on the way; each costs its bytes even when it is thrown away.
inline constexpr size_t kMaxStringBytes = size_t{512} << 20;

// One rendering. Borrows the tree; not thread-safe.
class Evaluator {
 public:
  Evaluator(std::string_view what, Map variables);

  // The output. A wrong operation is a kData error with its line; raise_exception() is a kUsage
  // error with its text.
  Result<text::MarkedText> run(const Block& block);

 private:
  Unexpected error(int line, std::string_view problem) const;
  Status step(int line);
  Status charge(int line, size_t bytes);

  Status run_block(const Block& block);
  Status run_statement(const Statement& statement);
  Status run_output(const Statement& statement);
  Status run_if(const Statement& statement);
  Status run_for(const Statement& statement);
  Status run_set(const Statement& statement);
  Result<List> loop_elements(const Statement& statement);

  Result<Value> evaluate(const Expression& e);
  Result<Value> lookup(const Expression& e);
  Result<Value> attribute(const Expression& e);
  Result<Value> subscript(const Expression& e);
  Result<Value> slice(const Expression& e);
  Result<Value> call(const Expression& e);
  Result<Value> call_method(const Expression& e);
  Result<Value> filter(const Expression& e);
  Result<Value> test(const Expression& e);
  Result<Value> negative(const Expression& e);
  Result<Value> binary(const Expression& e);
  Result<Value> arithmetic(const Expression& e, const Value& left, const Value& right);
  Result<Value> concatenate(int line, const text::MarkedText& left, const text::MarkedText& right);
  Result<Value> compare(const Expression& e);
  Result<bool> compare_pair(int line, const std::string& op, const Value& left, const Value& right);
  Result<bool> contains(int line, const Value& container, const Value& element);
  Result<Value> logical(const Expression& e);
  Result<Value> list(const Expression& e);
  Result<text::MarkedText> to_text(int line, const Value& value) const;

  Value* find_variable(std::string_view name);
  void set_variable(const std::string& name, Value value);

  std::string what_;
  std::vector<Map> scopes_;  // the innermost last
  text::MarkedText output_;
  size_t steps_ = 0;
  size_t string_bytes_ = 0;
};

}  // namespace airllm::jinja
