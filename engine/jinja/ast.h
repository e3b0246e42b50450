// The syntax tree of a template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/jinja/value.h"

namespace airllm::jinja {

// Trees are no deeper than this, so that walking them by recursion is safe.
inline constexpr int kMaxTreeDepth = 128;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kLiteral,    // value
    kName,       // name
    kList,       // children
    kAttribute,  // children[0] . name
    kSubscript,  // children[0] [ children[1] ]
    kSlice,      // children[0] [ children[1] : children[2] ]; absent bounds are literals of none
    kCall,       // children[0] ( children[1]... ), keywords
    kFilter,     // children[0] | name ( children[1]... )
    kTest,       // children[0] is name ( children[1]... )
    kNot,        // not children[0]
    kNegative,   // - children[0]
    kBinary,     // children[0] name children[1]: + - * / // % ~
    kCompare,    // children[0] operators[0] children[1] operators[1] ...
    kAnd,
    kOr,           // children[0], children[1]
    kConditional,  // children[0] if children[1] else children[2]
  };
  Kind kind = Kind::kLiteral;
  int line = 1;
  int depth = 1;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> children;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;  // name=value arguments
};

struct Statement;
using Block = std::vector<Statement>;

struct Statement {
  enum class Kind { kText, kOutput, kIf, kFor, kSet };
  struct Branch {
    ExpressionPtr condition;  // null: else
    Block body;
  };
  Kind kind = Kind::kText;
  int line = 1;
  std::string text;              // kText: the text; kFor, kSet: the variable
  std::string attribute;         // kSet: of the variable (a namespace); may be empty
  ExpressionPtr expression;      // kOutput, kFor, kSet
  ExpressionPtr condition;       // kFor: which elements; may be null
  std::vector<Branch> branches;  // kIf
  Block body, otherwise;         // kFor, and what replaces a loop without elements
};

}  // namespace airllm::jinja
