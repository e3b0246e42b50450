// The syntax tree of a template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/jinja/value.h"

namespace airllm::jinja {

// Trees are no deeper than this, so that walking them by recursion is safe.
inline constexpr int kMaxTreeDepth = 200;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  ExpressionPtr more_positional;  // *value; may be null
  ExpressionPtr more_keywords;    // **value; may be null
};

struct Expression {
  enum class Kind {
    kLiteral,    // value
    kName,       // name
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value, ...
    kAttribute,  // children[0] . name
    kSubscript,  // children[0] [ children[1] ]
    kSlice,      // children[0] [ children[1] : children[2] : children[3] ]; absent ones are null
    kCall,       // children[0] ( arguments )
    kFilter,     // children[0] | name ( arguments ); children[0] is null in a filter block
    kTest,       // children[0] is name ( arguments )
    kNot,        // not children[0]
    kNegative,   // - children[0]
    kPositive,   // + children[0]
    kBinary,     // children[0] name children[1]: + - * / // % **
    kConcat,     // children[0] ~ children[1] ~ ...
    kCompare,    // children[0] operators[0] children[1] operators[1] ...
    kAnd,
    kOr,           // children[0], children[1]
    kConditional,  // children[0] if children[1] else children[2], which may be null
    kMember,       // name . member, a target of set only
  };
  Kind kind = Kind::kLiteral;
  int line = 1;
  int depth = 1;
  std::string name, member;
  Value value;
  std::vector<ExpressionPtr> children;
  std::vector<std::string> operators;
  Arguments arguments;
};

struct Statement;
using Block = std::vector<Statement>;

// The signature and body of a macro or of a call block.
struct MacroCode {
  std::string name;  // empty: of a call block
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Block body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};

struct Statement {
  enum class Kind {
    kText,      // text
    kOutput,    // expression
    kIf,        // branches
    kFor,       // target in expression if condition; body, otherwise
    kSet,       // target = expression
    kSetBlock,  // target = body | expression (a chain of filters, or null)
    kMacro,     // macro
    kCall,      // expression (a call) with macro as its caller
    kFilter,    // body | expression
    kWith,      // assignments; body
    kScope,     // body (of a generation or a block)
    kBreak,
    kContinue,
  };
  struct Branch {
    ExpressionPtr condition;  // null: else
    Block body;
  };
  Kind kind = Kind::kText;
  int line = 1;
  std::string text;
  ExpressionPtr target, expression, condition;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;
  std::vector<Branch> branches;
  Block body, otherwise;
  std::shared_ptr<const MacroCode> macro;
  bool recursive = false;
};

}  // namespace airllm::jinja
