#include "engine/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include "base/utf8.h"
#include "engine/jinja/lexer.h"

namespace airllm::jinja {
namespace {

using Kind = Expression::Kind;

constexpr std::array kFilters = {"trim",    "upper",  "lower", "length", "count",
                                 "default", "string", "first", "last"};
constexpr std::array kTests = {"defined",  "undefined", "none",  "string",  "number",
                               "boolean",  "true",      "false", "mapping", "sequence",
                               "iterable", "odd",       "even"};

// A recursive descent after Jinja's own grammar.
class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view what)
      : tokens_(std::move(tokens)), what_(what) {}

  Result<Block> run() {
    AIRLLM_TRY(Block block, parse_block({}));
    if (current().kind != TokenKind::kEnd) return error("unexpected end of a block");
    return block;
  }

 private:
  // Counts levels of recursion that build no deeper tree by themselves, such as brackets.
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    bool too_deep() const { return depth_ > kMaxTreeDepth; }

   private:
    int& depth_;
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool is_operator(std::string_view text) const {
    return current().kind == TokenKind::kOperator && current().text == text;
  }
  bool is_name(std::string_view text) const {
    return current().kind == TokenKind::kName && current().text == text;
  }
  bool skip_operator(std::string_view text) {
    if (!is_operator(text)) return false;
    advance();
    return true;
  }
  bool skip_name(std::string_view text) {
    if (!is_name(text)) return false;
    advance();
    return true;
  }
  Unexpected error(std::string_view problem) const {
    return template_error(what_, current().line, problem);
  }
  Unexpected unexpected() const {
    switch (current().kind) {
      case TokenKind::kEnd: return error("the template ends too early");
      case TokenKind::kBlockEnd:
      case TokenKind::kOutputEnd: return error("a tag ends too early");
      default: break;
    }
    return error("unexpected '" + escape_for_display(current().text.substr(0, 40), true) + "'");
  }
  Unexpected unknown(std::string_view kind, std::string_view name) const {
    return error("the " + std::string(kind) + " '" + escape_for_display(name.substr(0, 40), true) +
                 "' is not supported");
  }
  Status expect_operator(std::string_view text) {
    if (skip_operator(text)) return {};
    return unexpected();
  }
  Status expect(TokenKind kind) {
    if (current().kind != kind) return unexpected();
    advance();
    return {};
  }
  Result<std::string> expect_name() {
    if (current().kind != TokenKind::kName) return unexpected();
    std::string name = current().text;
    advance();
    return name;
  }

  Result<ExpressionPtr> node(Kind kind, std::string name, std::vector<ExpressionPtr> children) {
    auto result = std::make_unique<Expression>();
    result->kind = kind;
    result->line = current().line;
    result->name = std::move(name);
    for (const ExpressionPtr& child : children) {
      result->depth = std::max(result->depth, child->depth + 1);
    }
    result->children = std::move(children);
    if (result->depth > kMaxTreeDepth) return error("an expression is nested too deeply");
    return result;
  }
  template <typename... Children>
  Result<ExpressionPtr> node_of(Kind kind, std::string name, Children... children) {
    std::vector<ExpressionPtr> list;
    (list.push_back(std::move(children)), ...);
    return node(kind, std::move(name), std::move(list));
  }
  Result<ExpressionPtr> literal(Value value) {
    AIRLLM_TRY(ExpressionPtr result, node(Kind::kLiteral, "", {}));
    result->value = std::move(value);
    return result;
  }

  // Statements up to a tag whose name is one of `ends`, which is left to the caller ({% skipped).
  Result<Block> parse_block(std::initializer_list<std::string_view> ends) {
    const Level level(depth_);
    if (level.too_deep()) return error("blocks are nested too deeply");
    Block block;
    while (current().kind != TokenKind::kEnd) {
      if (current().kind == TokenKind::kBlockBegin) {
        advance();
        if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return is_name(end); })) {
          return block;
        }
        AIRLLM_TRY(Statement statement, parse_tag());
        block.push_back(std::move(statement));
        continue;
      }
      AIRLLM_TRY(Statement statement, parse_text_or_output());
      block.push_back(std::move(statement));
    }
    if (ends.size() > 0) return error("'" + std::string(*(ends.end() - 1)) + "' is missing");
    return block;
  }

  Result<Statement> parse_text_or_output() {
    Statement statement;
    statement.line = current().line;
    if (current().kind == TokenKind::kText) {
      statement.text = current().text;
      advance();
      return statement;
    }
    AIRLLM_TRY_VOID(expect(TokenKind::kOutputBegin));
    statement.kind = Statement::Kind::kOutput;
    AIRLLM_TRY(statement.expression, parse_expression());
    AIRLLM_TRY_VOID(expect(TokenKind::kOutputEnd));
    return statement;
  }

  Result<Statement> parse_tag() {
    if (current().kind != TokenKind::kName) return unexpected();
    if (is_name("if")) return parse_if();
    if (is_name("for")) return parse_for();
    if (is_name("set")) return parse_set();
    return unknown("tag", current().text);
  }

  Result<Statement> parse_if() {
    Statement statement;
    statement.kind = Statement::Kind::kIf;
    statement.line = current().line;
    while (!is_name("endif")) {
      Statement::Branch branch;
      const bool is_else = is_name("else");
      advance();
      if (!is_else) {
        AIRLLM_TRY(branch.condition, parse_expression());
      }
      AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
      if (is_else) {
        AIRLLM_TRY(branch.body, parse_block({"endif"}));
      } else {
        AIRLLM_TRY(branch.body, parse_block({"elif", "else", "endif"}));
      }
      statement.branches.push_back(std::move(branch));
    }
    advance();
    AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
    return statement;
  }

  Result<Statement> parse_for() {
    Statement statement;
    statement.kind = Statement::Kind::kFor;
    statement.line = current().line;
    advance();
    AIRLLM_TRY(statement.text, expect_name());
    if (is_operator(",")) return unknown("loop over", "several variables");
    if (!skip_name("in")) return unexpected();
    // Without the conditional expression, whose "if" would take that of the loop.
    AIRLLM_TRY(statement.expression, parse_or());
    if (skip_name("if")) {
      AIRLLM_TRY(statement.condition, parse_expression());
    }
    if (is_name("recursive")) return unknown("loop option", "recursive");
    AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
    AIRLLM_TRY(statement.body, parse_block({"else", "endfor"}));
    if (skip_name("else")) {
      AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
      AIRLLM_TRY(statement.otherwise, parse_block({"endfor"}));
    }
    advance();
    AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
    return statement;
  }

  Result<Statement> parse_set() {
    Statement statement;
    statement.kind = Statement::Kind::kSet;
    statement.line = current().line;
    advance();
    AIRLLM_TRY(statement.text, expect_name());
    if (skip_operator(".")) {
      AIRLLM_TRY(statement.attribute, expect_name());
    }
    if (is_operator(",") || current().kind == TokenKind::kBlockEnd) {
      return unknown("form of the tag", "set");
    }
    AIRLLM_TRY_VOID(expect_operator("="));
    AIRLLM_TRY(statement.expression, parse_expression());
    AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
    return statement;
  }

  Result<ExpressionPtr> parse_expression() {
    const Level level(depth_);
    if (level.too_deep()) return error("an expression is nested too deeply");
    AIRLLM_TRY(ExpressionPtr left, parse_or());
    while (skip_name("if")) {
      AIRLLM_TRY(ExpressionPtr condition, parse_or());
      ExpressionPtr otherwise;
      if (skip_name("else")) {
        AIRLLM_TRY(otherwise, parse_expression());
      } else {
        AIRLLM_TRY(otherwise, literal(Value()));
      }
      AIRLLM_TRY(left, node_of(Kind::kConditional, "", std::move(left), std::move(condition),
                               std::move(otherwise)));
    }
    return left;
  }

  Result<ExpressionPtr> parse_or() {
    AIRLLM_TRY(ExpressionPtr left, parse_and());
    while (skip_name("or")) {
      AIRLLM_TRY(ExpressionPtr right, parse_and());
      AIRLLM_TRY(left, node_of(Kind::kOr, "", std::move(left), std::move(right)));
    }
    return left;
  }

  Result<ExpressionPtr> parse_and() {
    AIRLLM_TRY(ExpressionPtr left, parse_not());
    while (skip_name("and")) {
      AIRLLM_TRY(ExpressionPtr right, parse_not());
      AIRLLM_TRY(left, node_of(Kind::kAnd, "", std::move(left), std::move(right)));
    }
    return left;
  }

  Result<ExpressionPtr> parse_not() {
    const Level level(depth_);
    if (level.too_deep()) return error("an expression is nested too deeply");
    if (!skip_name("not")) return parse_compare();
    AIRLLM_TRY(ExpressionPtr operand, parse_not());
    return node_of(Kind::kNot, "", std::move(operand));
  }

  // The comparison at the current place, skipped; empty when there is none.
  std::string skip_comparison() {
    for (const std::string_view op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (skip_operator(op)) return std::string(op);
    }
    if (skip_name("in")) return "in";
    if (is_name("not") && following().kind == TokenKind::kName && following().text == "in") {
      advance();
      advance();
      return "not in";
    }
    return {};
  }

  Result<ExpressionPtr> parse_compare() {
    AIRLLM_TRY(ExpressionPtr first, parse_sum());
    std::vector<std::string> operators;
    std::vector<ExpressionPtr> operands;
    operands.push_back(std::move(first));
    for (std::string op = skip_comparison(); !op.empty(); op = skip_comparison()) {
      operators.push_back(std::move(op));
      AIRLLM_TRY(ExpressionPtr operand, parse_sum());
      operands.push_back(std::move(operand));
    }
    if (operators.empty()) return std::move(operands.front());
    AIRLLM_TRY(ExpressionPtr result, node(Kind::kCompare, "", std::move(operands)));
    result->operators = std::move(operators);
    return result;
  }

  // A chain of operators of one rank, from left to right; `next` parses what binds tighter.
  template <typename Next>
  Result<ExpressionPtr> parse_chain(std::initializer_list<std::string_view> operators, Next next) {
    AIRLLM_TRY(ExpressionPtr left, next());
    while (true) {
      const auto op = std::find_if(operators.begin(), operators.end(),
                                   [&](std::string_view name) { return skip_operator(name); });
      if (op == operators.end()) return left;
      AIRLLM_TRY(ExpressionPtr right, next());
      AIRLLM_TRY(left, node_of(Kind::kBinary, std::string(*op), std::move(left), std::move(right)));
    }
  }
  Result<ExpressionPtr> parse_sum() {
    return parse_chain({"+", "-"}, [this] { return parse_concatenation(); });
  }
  Result<ExpressionPtr> parse_concatenation() {
    return parse_chain({"~"}, [this] { return parse_product(); });
  }
  Result<ExpressionPtr> parse_product() {
    return parse_chain({"*", "//", "/", "%"}, [this] { return parse_unary(true); });
  }

  Result<ExpressionPtr> parse_unary(bool with_filters) {
    const Level level(depth_);
    if (level.too_deep()) return error("an expression is nested too deeply");
    ExpressionPtr result;
    if (skip_operator("-")) {
      AIRLLM_TRY(ExpressionPtr operand, parse_unary(false));
      AIRLLM_TRY(result, node_of(Kind::kNegative, "", std::move(operand)));
    } else {
      AIRLLM_TRY(result, parse_primary());
    }
    AIRLLM_TRY(result, parse_postfix(std::move(result)));
    if (with_filters) return parse_filters(std::move(result));
    return result;
  }

  Result<ExpressionPtr> parse_primary() {
    const Token token = current();
    advance();
    switch (token.kind) {
      case TokenKind::kString: return parse_strings(token.text);
      case TokenKind::kInteger: return parse_integer(token.text);
      case TokenKind::kFloat: return literal(Value::real(std::strtod(token.text.c_str(), nullptr)));
      case TokenKind::kName: return parse_name(token.text);
      case TokenKind::kOperator: break;
      default: --at_; return unexpected();
    }
    if (token.text == "(") {
      AIRLLM_TRY(ExpressionPtr inner, parse_expression());
      if (is_operator(",")) return unknown("value", "tuple");
      AIRLLM_TRY_VOID(expect_operator(")"));
      return inner;
    }
    if (token.text == "[") return parse_list();
    if (token.text == "{") return unknown("value", "dictionary");
    --at_;
    return unexpected();
  }

  // Neighbouring strings are one, as in Python.
  Result<ExpressionPtr> parse_strings(std::string text) {
    while (current().kind == TokenKind::kString) {
      text += current().text;
      advance();
    }
    return literal(Value::literal(text));
  }

  Result<ExpressionPtr> parse_integer(const std::string& text) {
    int64_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc() || end != text.data() + text.size()) {
      return error("the number " + text.substr(0, 40) + " is too large");
    }
    return literal(Value::integer(value));
  }

  Result<ExpressionPtr> parse_name(const std::string& name) {
    if (name == "true" || name == "True") return literal(Value::boolean(true));
    if (name == "false" || name == "False") return literal(Value::boolean(false));
    if (name == "none" || name == "None") return literal(Value::none());
    for (const std::string_view word : {"and", "or", "not", "in", "is", "if", "else"}) {
      if (name == word) return error("unexpected '" + name + "'");
    }
    return node(Kind::kName, name, {});
  }

  Result<ExpressionPtr> parse_list() {
    std::vector<ExpressionPtr> elements;
    while (!is_operator("]")) {
      AIRLLM_TRY(ExpressionPtr element, parse_expression());
      elements.push_back(std::move(element));
      if (!skip_operator(",")) break;
    }
    AIRLLM_TRY_VOID(expect_operator("]"));
    return node(Kind::kList, "", std::move(elements));
  }

  Result<ExpressionPtr> parse_postfix(ExpressionPtr left) {
    while (true) {
      if (skip_operator(".")) {
        AIRLLM_TRY(std::string name, expect_name());
        AIRLLM_TRY(left, node_of(Kind::kAttribute, std::move(name), std::move(left)));
      } else if (skip_operator("[")) {
        AIRLLM_TRY(left, parse_subscript(std::move(left)));
      } else if (is_operator("(")) {
        AIRLLM_TRY(left, parse_call(Kind::kCall, "", std::move(left)));
      } else {
        return left;
      }
    }
  }

  Result<ExpressionPtr> parse_subscript(ExpressionPtr object) {
    ExpressionPtr first;
    if (is_operator(":")) {
      AIRLLM_TRY(first, literal(Value::none()));
    } else {
      AIRLLM_TRY(first, parse_expression());
    }
    if (!skip_operator(":")) {
      AIRLLM_TRY_VOID(expect_operator("]"));
      return node_of(Kind::kSubscript, "", std::move(object), std::move(first));
    }
    ExpressionPtr second;
    if (is_operator("]")) {
      AIRLLM_TRY(second, literal(Value::none()));
    } else {
      AIRLLM_TRY(second, parse_expression());
    }
    if (is_operator(":")) return unknown("slice", "with a step");
    AIRLLM_TRY_VOID(expect_operator("]"));
    return node_of(Kind::kSlice, "", std::move(object), std::move(first), std::move(second));
  }

  // A node of children[0] and the arguments in parentheses, which may be absent but for a call.
  Result<ExpressionPtr> parse_call(Kind kind, std::string name, ExpressionPtr object) {
    std::vector<ExpressionPtr> children;
    std::vector<std::pair<std::string, ExpressionPtr>> keywords;
    children.push_back(std::move(object));
    if (skip_operator("(")) {
      while (!is_operator(")")) {
        const bool named = current().kind == TokenKind::kName &&
                           following().kind == TokenKind::kOperator && following().text == "=";
        std::string keyword;
        if (named) {
          keyword = current().text;
          advance();
          advance();
        }
        AIRLLM_TRY(ExpressionPtr argument, parse_expression());
        if (named) {
          keywords.emplace_back(std::move(keyword), std::move(argument));
        } else {
          children.push_back(std::move(argument));
        }
        if (!skip_operator(",")) break;
      }
      AIRLLM_TRY_VOID(expect_operator(")"));
    }
    AIRLLM_TRY(ExpressionPtr result, node(kind, std::move(name), std::move(children)));
    for (const auto& [keyword, argument] : keywords) {
      result->depth = std::max(result->depth, argument->depth + 1);
    }
    if (result->depth > kMaxTreeDepth) return error("an expression is nested too deeply");
    result->keywords = std::move(keywords);
    return result;
  }

  Result<ExpressionPtr> parse_filters(ExpressionPtr left) {
    while (true) {
      if (skip_operator("|")) {
        AIRLLM_TRY(std::string name, expect_name());
        if (std::find(kFilters.begin(), kFilters.end(), name) == kFilters.end()) {
          return unknown("filter", name);
        }
        AIRLLM_TRY(left, parse_call(Kind::kFilter, std::move(name), std::move(left)));
      } else if (skip_name("is")) {
        AIRLLM_TRY(left, parse_test(std::move(left)));
      } else if (is_operator("(")) {
        AIRLLM_TRY(left, parse_call(Kind::kCall, "", std::move(left)));
      } else {
        return left;
      }
    }
  }

  Result<ExpressionPtr> parse_test(ExpressionPtr object) {
    const bool negated = skip_name("not");
    AIRLLM_TRY(std::string name, expect_name());
    if (name == "None") name = "none";
    if (std::find(kTests.begin(), kTests.end(), name) == kTests.end()) return unknown("test", name);
    AIRLLM_TRY(ExpressionPtr test, node_of(Kind::kTest, std::move(name), std::move(object)));
    if (!negated) return test;
    return node_of(Kind::kNot, "", std::move(test));
  }

  const std::vector<Token> tokens_;
  const std::string what_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Result<Block> parse(std::string_view source, std::string_view what) {
  AIRLLM_TRY(std::vector<Token> tokens, tokenize(source, what));
  return Parser(std::move(tokens), what).run();
}

}  // namespace airllm::jinja
