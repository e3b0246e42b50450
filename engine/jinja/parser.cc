#include "engine/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <unordered_set>

#include "engine/jinja/lexer.h"
#include "engine/jinja/stack_guard.h"

namespace airllm::jinja {
namespace {

using Kind = Expression::Kind;
using Words = std::initializer_list<std::string_view>;

int depth_of(const ExpressionPtr& e) { return e == nullptr ? 0 : e->depth; }

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view what)
      : tokens_(std::move(tokens)), what_(what) {}

  Result<Block> run() { return parse_block({}); }

 private:
  class Level {
   public:
    explicit Level(int& depth) : depth_(depth) { ++depth_; }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int& depth_;
  };

  bool too_deep() const { return depth_ > kMaxTreeDepth || guard_.nearly_full(); }
  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  Unexpected error(std::string_view problem) const {
    return template_error(what_, current().line, problem);
  }
  Unexpected error_at(int line, std::string_view problem) const {
    return template_error(what_, line, problem);
  }
  Unexpected unexpected() const {
    switch (current().kind) {
      case TokenKind::kEnd: return error("the template ends too early");
      case TokenKind::kOutputEnd:
      case TokenKind::kBlockEnd: return error("a tag ends too early");
      default: return error("unexpected '" + current().text + "'");
    }
  }
  bool is_operator(std::string_view op) const {
    return current().kind == TokenKind::kOperator && current().text == op;
  }
  bool is_name(std::string_view name) const {
    return current().kind == TokenKind::kName && current().text == name;
  }
  bool skip_operator(std::string_view op) {
    if (!is_operator(op)) return false;
    advance();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    advance();
    return true;
  }
  Status expect_operator(std::string_view op) {
    if (skip_operator(op)) return {};
    return unexpected();
  }
  Status expect_word(std::string_view name) {
    if (skip_name(name)) return {};
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

  // Statements up to one of `ends` (whose tag is left open, its name current), or the end.
  Result<Block> parse_block(Words ends) {
    const Level level(depth_);
    if (too_deep()) return error("blocks are nested too deeply");
    Block block;
    while (current().kind != TokenKind::kEnd) {
      const int line = current().line;
      if (current().kind == TokenKind::kText) {
        Statement& statement = block.emplace_back();
        statement.line = line;
        statement.text = current().text;
        advance();
      } else if (current().kind == TokenKind::kOutputBegin) {
        advance();
        AIRLLM_TRY(ExpressionPtr expression, parse_tuple(true, {}));
        AIRLLM_TRY_VOID(expect(TokenKind::kOutputEnd));
        Statement& statement = block.emplace_back();
        statement.kind = Statement::Kind::kOutput;
        statement.line = line;
        statement.expression = std::move(expression);
      } else {
        advance();
        if (current().kind != TokenKind::kName) return error("a tag has no name");
        if (std::find(ends.begin(), ends.end(), current().text) != ends.end()) return block;
        AIRLLM_TRY_VOID(parse_statement(block));
        AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
      }
    }
    if (ends.size() != 0) {
      return error("a block is not closed with {% " + std::string(*(ends.end() - 1)) + " %}");
    }
    return block;
  }

  // The body of a tag whose head has been read.
  Result<Block> parse_body(Words ends) {
    skip_operator(":");
    AIRLLM_TRY_VOID(expect(TokenKind::kBlockEnd));
    return parse_block(ends);
  }
  Result<Block> parse_whole_body(std::string_view end) {
    AIRLLM_TRY(Block body, parse_body({end}));
    advance();
    return body;
  }

  Status parse_statement(Block& block) {
    struct Rule {
      std::string_view name;
      Status (Parser::*parse)(Statement&);
    };
    static constexpr std::array kRules = {
        Rule{"if", &Parser::parse_if},           Rule{"for", &Parser::parse_for},
        Rule{"set", &Parser::parse_set},         Rule{"macro", &Parser::parse_macro},
        Rule{"call", &Parser::parse_call_block}, Rule{"filter", &Parser::parse_filter_block},
        Rule{"with", &Parser::parse_with},       Rule{"generation", &Parser::parse_generation},
        Rule{"break", &Parser::parse_break},     Rule{"continue", &Parser::parse_continue}};
    const int line = current().line;
    const std::string name = current().text;
    if (name == "print") return parse_print(block);
    for (const Rule& rule : kRules) {
      if (rule.name != name) continue;
      advance();
      Statement statement;
      statement.line = line;
      AIRLLM_TRY_VOID((this->*rule.parse)(statement));
      block.push_back(std::move(statement));
      return {};
    }
    for (const std::string_view other :
         {"extends", "include", "import", "from", "block", "autoescape"}) {
      if (name == other) return error("the tag '" + name + "' is not supported in a chat template");
    }
    return error("unknown tag '" + name + "'");
  }

  Status parse_print(Block& block) {
    advance();
    bool first = true;
    while (current().kind != TokenKind::kBlockEnd) {
      if (!first) AIRLLM_TRY_VOID(expect_operator(","));
      first = false;
      Statement statement;
      statement.kind = Statement::Kind::kOutput;
      statement.line = current().line;
      AIRLLM_TRY(statement.expression, parse_expression());
      block.push_back(std::move(statement));
    }
    return {};
  }

  Status parse_if(Statement& statement) {
    statement.kind = Statement::Kind::kIf;
    while (true) {
      Statement::Branch branch;
      AIRLLM_TRY(branch.condition, parse_tuple(false, {}));
      AIRLLM_TRY(branch.body, parse_body({"elif", "else", "endif"}));
      statement.branches.push_back(std::move(branch));
      if (skip_name("elif")) continue;
      if (skip_name("else")) {
        Statement::Branch otherwise;
        AIRLLM_TRY(otherwise.body, parse_whole_body("endif"));
        statement.branches.push_back(std::move(otherwise));
      } else {
        advance();
      }
      return {};
    }
  }

  Status parse_for(Statement& statement) {
    statement.kind = Statement::Kind::kFor;
    AIRLLM_TRY(statement.target, parse_target(false, {"in"}));
    AIRLLM_TRY_VOID(refuse_loop_target(*statement.target));
    AIRLLM_TRY_VOID(expect_word("in"));
    AIRLLM_TRY(statement.expression, parse_tuple(false, {"recursive"}));
    if (skip_name("if")) {
      AIRLLM_TRY(statement.condition, parse_expression());
    }
    statement.recursive = skip_name("recursive");
    ++loops_;
    Result<Block> body = parse_body({"else", "endfor"});
    --loops_;
    if (!body.has_value()) return Unexpected(std::move(body).error());
    statement.body = std::move(body).value();
    if (skip_name("else")) {
      AIRLLM_TRY(statement.otherwise, parse_whole_body("endfor"));
    } else {
      advance();
    }
    return {};
  }

  Status refuse_loop_target(const Expression& target) const {
    if (target.kind == Kind::kName && target.name == "loop") {
      return error("a loop cannot assign to 'loop'");
    }
    for (const ExpressionPtr& child : target.children) AIRLLM_TRY_VOID(refuse_loop_target(*child));
    return {};
  }

  Status parse_break(Statement& statement) {
    statement.kind = Statement::Kind::kBreak;
    if (loops_ == 0) return error_at(statement.line, "'break' outside a loop");
    return {};
  }
  Status parse_continue(Statement& statement) {
    statement.kind = Statement::Kind::kContinue;
    if (loops_ == 0) return error_at(statement.line, "'continue' outside a loop");
    return {};
  }

  Status parse_set(Statement& statement) {
    AIRLLM_TRY(statement.target, parse_target(true, {}));
    if (skip_operator("=")) {
      statement.kind = Statement::Kind::kSet;
      AIRLLM_TRY(statement.expression, parse_tuple(true, {}));
      return {};
    }
    statement.kind = Statement::Kind::kSetBlock;
    if (is_operator("|")) {
      AIRLLM_TRY(statement.expression, parse_filter_chain(nullptr));
    }
    AIRLLM_TRY(statement.body, parse_whole_body("endset"));
    return {};
  }

  Status parse_signature(MacroCode& macro) {
    AIRLLM_TRY_VOID(expect_operator("("));
    while (!is_operator(")")) {
      if (!macro.parameters.empty()) AIRLLM_TRY_VOID(expect_operator(","));
      AIRLLM_TRY(std::string name, expect_name());
      if (std::find(macro.parameters.begin(), macro.parameters.end(), name) !=
          macro.parameters.end()) {
        return error("the parameter '" + name + "' is there twice");
      }
      if (skip_operator("=")) {
        AIRLLM_TRY(ExpressionPtr value, parse_expression());
        macro.defaults.push_back(std::move(value));
      } else if (!macro.defaults.empty()) {
        return error("a parameter without default follows one with default");
      }
      macro.parameters.push_back(std::move(name));
    }
    return expect_operator(")");
  }

  // The body of a macro, in which the names that are read decide what it takes.
  Status parse_macro_body(MacroCode& macro, std::string_view end) {
    const size_t begin = at_;
    const int loops = std::exchange(loops_, 0);
    Result<Block> body = parse_whole_body(end);
    loops_ = loops;
    if (!body.has_value()) return Unexpected(std::move(body).error());
    macro.body = std::move(body).value();
    const auto reads = [&](std::string_view name) {
      for (size_t i = begin; i < at_; ++i) {
        const bool is_member =
            tokens_[i - 1].kind == TokenKind::kOperator && tokens_[i - 1].text == ".";
        if (tokens_[i].kind == TokenKind::kName && tokens_[i].text == name && !is_member)
          return true;
      }
      return false;
    };
    const auto is_parameter = [&](std::string_view name) {
      return std::find(macro.parameters.begin(), macro.parameters.end(), name) !=
             macro.parameters.end();
    };
    macro.uses_caller = reads("caller");
    macro.uses_kwargs = reads("kwargs") && !is_parameter("kwargs");
    macro.uses_varargs = reads("varargs") && !is_parameter("varargs");
    return {};
  }

  Status parse_macro(Statement& statement) {
    statement.kind = Statement::Kind::kMacro;
    auto macro = std::make_shared<MacroCode>();
    AIRLLM_TRY(macro->name, expect_name());
    AIRLLM_TRY_VOID(parse_signature(*macro));
    AIRLLM_TRY_VOID(parse_macro_body(*macro, "endmacro"));
    statement.macro = std::move(macro);
    return {};
  }

  Status parse_call_block(Statement& statement) {
    statement.kind = Statement::Kind::kCall;
    auto macro = std::make_shared<MacroCode>();
    if (is_operator("(")) AIRLLM_TRY_VOID(parse_signature(*macro));
    AIRLLM_TRY(statement.expression, parse_expression());
    if (statement.expression->kind != Kind::kCall) return error("a call block needs a call");
    AIRLLM_TRY_VOID(parse_macro_body(*macro, "endcall"));
    statement.macro = std::move(macro);
    return {};
  }

  Status parse_filter_block(Statement& statement) {
    statement.kind = Statement::Kind::kFilter;
    AIRLLM_TRY(statement.expression, parse_one_filter(nullptr));
    AIRLLM_TRY(statement.expression, parse_filter_chain(std::move(statement.expression)));
    AIRLLM_TRY(statement.body, parse_whole_body("endfilter"));
    return {};
  }

  Status parse_with(Statement& statement) {
    statement.kind = Statement::Kind::kWith;
    while (current().kind != TokenKind::kBlockEnd && !is_operator(":")) {
      if (!statement.assignments.empty()) AIRLLM_TRY_VOID(expect_operator(","));
      AIRLLM_TRY(ExpressionPtr target, parse_target(false, {}));
      AIRLLM_TRY_VOID(expect_operator("="));
      AIRLLM_TRY(ExpressionPtr value, parse_expression());
      statement.assignments.emplace_back(std::move(target), std::move(value));
    }
    AIRLLM_TRY(statement.body, parse_whole_body("endwith"));
    return {};
  }

  Status parse_generation(Statement& statement) {
    statement.kind = Statement::Kind::kScope;
    AIRLLM_TRY(statement.body, parse_whole_body("endgeneration"));
    return {};
  }

  // What can be assigned to: names, members of namespaces where `members`, tuples of these.
  Result<ExpressionPtr> parse_target(bool members, Words ends) {
    AIRLLM_TRY(ExpressionPtr target,
               parse_items(ends, false, [&] { return parse_primary(members); }));
    AIRLLM_TRY_VOID(check_target(*target));
    return target;
  }

  Status check_target(const Expression& target) const {
    if (target.kind == Kind::kName || target.kind == Kind::kMember) return {};
    if (target.kind != Kind::kTuple) return error_at(target.line, "this cannot be assigned to");
    for (const ExpressionPtr& child : target.children) AIRLLM_TRY_VOID(check_target(*child));
    return {};
  }

  // One item, or a tuple when a comma follows.
  template <typename Parse>
  Result<ExpressionPtr> parse_items(Words ends, bool may_be_empty, Parse parse) {
    std::vector<ExpressionPtr> items;
    bool is_tuple = false;
    while (true) {
      if (!items.empty()) AIRLLM_TRY_VOID(expect_operator(","));
      if (at_tuple_end(ends)) break;
      AIRLLM_TRY(ExpressionPtr item, parse());
      items.push_back(std::move(item));
      if (!is_operator(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && !items.empty()) return std::move(items.front());
    if (!is_tuple && !may_be_empty) return unexpected();
    return node(Kind::kTuple, "", std::move(items));
  }
  bool at_tuple_end(Words ends) const {
    if (current().kind == TokenKind::kOutputEnd || current().kind == TokenKind::kBlockEnd)
      return true;
    if (is_operator(")")) return true;
    return current().kind == TokenKind::kName &&
           std::find(ends.begin(), ends.end(), current().text) != ends.end();
  }
  Result<ExpressionPtr> parse_tuple(bool conditional, Words ends, bool may_be_empty = false) {
    return parse_items(ends, may_be_empty,
                       [&] { return conditional ? parse_expression() : parse_or(); });
  }

  Result<ExpressionPtr> node(Kind kind, std::string name, std::vector<ExpressionPtr> children) {
    auto result = std::make_unique<Expression>();
    result->kind = kind;
    result->line = current().line;
    result->name = std::move(name);
    for (const ExpressionPtr& child : children) {
      result->depth = std::max(result->depth, depth_of(child) + 1);
      if (child != nullptr) result->line = std::min(result->line, child->line);
    }
    if (result->depth > kMaxTreeDepth) return error("an expression is nested too deeply");
    result->children = std::move(children);
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

  Result<ExpressionPtr> parse_expression() {
    const Level level(depth_);
    if (too_deep()) return error("an expression is nested too deeply");
    AIRLLM_TRY(ExpressionPtr result, parse_or());
    while (skip_name("if")) {
      AIRLLM_TRY(ExpressionPtr condition, parse_or());
      ExpressionPtr otherwise;
      if (skip_name("else")) {
        AIRLLM_TRY(otherwise, parse_expression());
      }
      AIRLLM_TRY(result, node_of(Kind::kConditional, "", std::move(result), std::move(condition),
                                 std::move(otherwise)));
    }
    return result;
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
    if (too_deep()) return error("an expression is nested too deeply");
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
  Result<ExpressionPtr> parse_chain(Words operators, Next next) {
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
    AIRLLM_TRY(ExpressionPtr first, parse_product());
    if (!is_operator("~")) return first;
    std::vector<ExpressionPtr> parts;
    parts.push_back(std::move(first));
    while (skip_operator("~")) {
      AIRLLM_TRY(ExpressionPtr part, parse_product());
      parts.push_back(std::move(part));
    }
    return node(Kind::kConcat, "", std::move(parts));
  }
  Result<ExpressionPtr> parse_product() {
    return parse_chain({"*", "//", "/", "%"}, [this] {
      return parse_chain({"**"}, [this] { return parse_unary(true); });
    });
  }

  Result<ExpressionPtr> parse_unary(bool with_filters) {
    const Level level(depth_);
    if (too_deep()) return error("an expression is nested too deeply");
    ExpressionPtr result;
    if (is_operator("-") || is_operator("+")) {
      const Kind kind = is_operator("-") ? Kind::kNegative : Kind::kPositive;
      advance();
      AIRLLM_TRY(ExpressionPtr operand, parse_unary(false));
      AIRLLM_TRY(result, node_of(kind, "", std::move(operand)));
    } else {
      AIRLLM_TRY(result, parse_primary(false));
    }
    AIRLLM_TRY(result, parse_postfix(std::move(result)));
    if (with_filters) return parse_filters(std::move(result));
    return result;
  }

  Result<ExpressionPtr> parse_primary(bool members) {
    const Token token = current();
    switch (token.kind) {
      case TokenKind::kString: advance(); return parse_strings(token.text);
      case TokenKind::kInteger: advance(); return parse_integer(token.text);
      case TokenKind::kFloat:
        advance();
        return literal(Value::real(std::strtod(token.text.c_str(), nullptr)));
      case TokenKind::kName: advance(); return parse_name(token.text, members);
      case TokenKind::kOperator: break;
      default: return unexpected();
    }
    if (skip_operator("(")) {
      AIRLLM_TRY(ExpressionPtr inner, parse_tuple(true, {}, true));
      AIRLLM_TRY_VOID(expect_operator(")"));
      return inner;
    }
    if (skip_operator("[")) return parse_list();
    if (skip_operator("{")) return parse_dict();
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
    const char kind = text.size() > 2 ? static_cast<char>(text[1] | 0x20) : '0';
    const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    const size_t skip = base == 10 ? 0 : 2;
    int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data() + skip, end, value, base);
    if (problem != std::errc() || stop != end) {
      return error("the number " + text.substr(0, 40) + " does not fit into 64 bits");
    }
    return literal(Value::integer(value));
  }

  Result<ExpressionPtr> parse_name(const std::string& name, bool members) {
    if (name == "true" || name == "True") return literal(Value::boolean(true));
    if (name == "false" || name == "False") return literal(Value::boolean(false));
    if (name == "none" || name == "None") return literal(Value::none());
    if (!members || !skip_operator(".")) return node(Kind::kName, name, {});
    AIRLLM_TRY(ExpressionPtr member, node(Kind::kMember, name, {}));
    AIRLLM_TRY(member->member, expect_name());
    return member;
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

  Result<ExpressionPtr> parse_dict() {
    std::vector<ExpressionPtr> children;
    while (!is_operator("}")) {
      AIRLLM_TRY(ExpressionPtr key, parse_expression());
      AIRLLM_TRY_VOID(expect_operator(":"));
      AIRLLM_TRY(ExpressionPtr value, parse_expression());
      children.push_back(std::move(key));
      children.push_back(std::move(value));
      if (!skip_operator(",")) break;
    }
    AIRLLM_TRY_VOID(expect_operator("}"));
    return node(Kind::kDict, "", std::move(children));
  }

  Result<ExpressionPtr> parse_postfix(ExpressionPtr left) {
    while (true) {
      if (skip_operator(".")) {
        if (current().kind == TokenKind::kInteger) {
          AIRLLM_TRY(ExpressionPtr index, parse_primary(false));
          AIRLLM_TRY(left, node_of(Kind::kSubscript, "", std::move(left), std::move(index)));
          continue;
        }
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
    std::array<ExpressionPtr, 3> parts;
    size_t colons = 0;
    bool any = false;
    while (!is_operator("]")) {
      if (skip_operator(":")) {
        if (++colons > 2) return unexpected();
      } else if (is_operator(",") && colons == 0) {
        return parse_subscript_tuple(std::move(object), std::move(parts[0]));
      } else {
        if (parts[colons] != nullptr) return unexpected();
        AIRLLM_TRY(parts[colons], parse_expression());
        any = true;
      }
    }
    advance();
    if (colons != 0) {
      return node_of(Kind::kSlice, "", std::move(object), std::move(parts[0]), std::move(parts[1]),
                     std::move(parts[2]));
    }
    if (!any) {
      AIRLLM_TRY(parts[0], node(Kind::kTuple, "", {}));
    }
    return node_of(Kind::kSubscript, "", std::move(object), std::move(parts[0]));
  }

  Result<ExpressionPtr> parse_subscript_tuple(ExpressionPtr object, ExpressionPtr first) {
    if (first == nullptr) return unexpected();
    std::vector<ExpressionPtr> items;
    items.push_back(std::move(first));
    while (skip_operator(",")) {
      AIRLLM_TRY(ExpressionPtr item, parse_expression());
      items.push_back(std::move(item));
    }
    AIRLLM_TRY_VOID(expect_operator("]"));
    AIRLLM_TRY(ExpressionPtr key, node(Kind::kTuple, "", std::move(items)));
    return node_of(Kind::kSubscript, "", std::move(object), std::move(key));
  }

  Status parse_arguments(Arguments& arguments) {
    AIRLLM_TRY_VOID(expect_operator("("));
    std::unordered_set<std::string> names;
    while (!is_operator(")")) {
      const bool named = current().kind == TokenKind::kName &&
                         following().kind == TokenKind::kOperator && following().text == "=";
      if (skip_operator("*")) {
        if (arguments.more_positional || arguments.more_keywords) return unexpected();
        AIRLLM_TRY(arguments.more_positional, parse_expression());
      } else if (skip_operator("**")) {
        if (arguments.more_keywords) return unexpected();
        AIRLLM_TRY(arguments.more_keywords, parse_expression());
      } else if (named) {
        if (arguments.more_keywords) return unexpected();
        AIRLLM_TRY(std::string name, expect_name());
        advance();
        if (!names.insert(name).second) {
          return error("the argument '" + name + "' is given twice");
        }
        AIRLLM_TRY(ExpressionPtr value, parse_expression());
        arguments.keywords.emplace_back(std::move(name), std::move(value));
      } else {
        if (!arguments.keywords.empty() || arguments.more_positional || arguments.more_keywords) {
          return error("a positional argument follows a named one");
        }
        AIRLLM_TRY(ExpressionPtr value, parse_expression());
        arguments.positional.push_back(std::move(value));
      }
      if (!skip_operator(",") && !is_operator(")")) return unexpected();
    }
    advance();
    return {};
  }

  // A node of children[0] and the arguments in parentheses, which may be absent but for a call.
  Result<ExpressionPtr> parse_call(Kind kind, std::string name, ExpressionPtr object) {
    const int line = current().line;
    Arguments arguments;
    if (is_operator("(")) AIRLLM_TRY_VOID(parse_arguments(arguments));
    return call_node(kind, line, std::move(name), std::move(object), std::move(arguments));
  }
  Result<ExpressionPtr> call_node(Kind kind, int line, std::string name, ExpressionPtr object,
                                  Arguments arguments) {
    AIRLLM_TRY(ExpressionPtr result, node_of(kind, std::move(name), std::move(object)));
    result->line = line;
    const auto deepen = [&](const ExpressionPtr& e) {
      result->depth = std::max(result->depth, depth_of(e) + 1);
    };
    for (const ExpressionPtr& argument : arguments.positional) deepen(argument);
    for (const auto& [keyword, argument] : arguments.keywords) deepen(argument);
    deepen(arguments.more_positional);
    deepen(arguments.more_keywords);
    if (result->depth > kMaxTreeDepth) return error("an expression is nested too deeply");
    result->arguments = std::move(arguments);
    return result;
  }

  Result<std::string> parse_dotted_name() {
    AIRLLM_TRY(std::string name, expect_name());
    while (skip_operator(".")) {
      AIRLLM_TRY(const std::string part, expect_name());
      name += "." + part;
    }
    return name;
  }

  Result<ExpressionPtr> parse_one_filter(ExpressionPtr left) {
    AIRLLM_TRY(std::string name, parse_dotted_name());
    return parse_call(Kind::kFilter, std::move(name), std::move(left));
  }
  Result<ExpressionPtr> parse_filter_chain(ExpressionPtr left) {
    while (skip_operator("|")) {
      AIRLLM_TRY(left, parse_one_filter(std::move(left)));
    }
    return left;
  }

  Result<ExpressionPtr> parse_filters(ExpressionPtr left) {
    while (true) {
      if (is_operator("|")) {
        AIRLLM_TRY(left, parse_filter_chain(std::move(left)));
      } else if (skip_name("is")) {
        AIRLLM_TRY(left, parse_test(std::move(left)));
      } else if (is_operator("(")) {
        AIRLLM_TRY(left, parse_call(Kind::kCall, "", std::move(left)));
      } else {
        return left;
      }
    }
  }

  bool at_test_argument() const {
    switch (current().kind) {
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat: return true;
      case TokenKind::kName: return !is_name("else") && !is_name("or") && !is_name("and");
      default: return is_operator("[") || is_operator("{");
    }
  }

  Result<ExpressionPtr> parse_test(ExpressionPtr object) {
    const int line = current().line;
    const bool negated = skip_name("not");
    AIRLLM_TRY(std::string name, parse_dotted_name());
    Arguments arguments;
    if (is_operator("(")) {
      AIRLLM_TRY_VOID(parse_arguments(arguments));
    } else if (at_test_argument()) {
      if (is_name("is")) return error("tests with 'is' cannot be chained");
      AIRLLM_TRY(ExpressionPtr argument, parse_primary(false));
      AIRLLM_TRY(argument, parse_postfix(std::move(argument)));
      arguments.positional.push_back(std::move(argument));
    }
    AIRLLM_TRY(ExpressionPtr test, call_node(Kind::kTest, line, std::move(name), std::move(object),
                                             std::move(arguments)));
    if (!negated) return test;
    return node_of(Kind::kNot, "", std::move(test));
  }

  const std::vector<Token> tokens_;
  const std::string what_;
  const StackGuard guard_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;  // around the current place, in the same macro
};

}  // namespace

Result<Block> parse(std::string_view source, std::string_view what) {
  AIRLLM_TRY(std::vector<Token> tokens, tokenize(source, what));
  return Parser(std::move(tokens), what).run();
}

}  // namespace airllm::jinja
