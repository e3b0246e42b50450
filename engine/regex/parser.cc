#include "engine/regex/parser.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/text/unicode.h"

namespace airllm::regex {
namespace {

using text::CodePointRanges;
using Kind = Node::Kind;

constexpr int kMaxDepth = 64;
constexpr uint32_t kMaxRepeat = 1000;

// Why parsing stopped does not matter: the other engine says it.
using MaybeNode = std::optional<Node>;
using MaybeSet = std::optional<CodePointRanges>;

struct Flags {
  bool ignore_case = false;
  bool dot_matches_newline = false;
};

CodePointRanges single(char32_t c) { return CodePointRanges::of(c, c + 1); }

CodePointRanges hexadecimal() {
  return CodePointRanges::of('0', '9' + 1)
      .united(CodePointRanges::of('a', 'f' + 1))
      .united(CodePointRanges::of('A', 'F' + 1));
}

Node set_node(CodePointRanges set) {
  Node node;
  node.kind = Kind::kSet;
  node.set = std::move(set);
  return node;
}

Node assertion_node(Assertion assertion) {
  Node node;
  node.kind = Kind::kAssertion;
  node.assertion = assertion;
  return node;
}

// How many characters the node matches, if always the same number.
std::optional<uint32_t> fixed_length(const Node& node) {
  switch (node.kind) {
    case Kind::kSet: return 1;
    case Kind::kAssertion:
    case Kind::kLookahead:
    case Kind::kLookbehind: return 0;
    case Kind::kAtomic: return fixed_length(node.children[0]);
    case Kind::kRepeat: {
      const auto length = fixed_length(node.children[0]);
      if (!length || node.min != node.max) return std::nullopt;
      return *length * node.min;
    }
    case Kind::kSequence: {
      uint32_t sum = 0;
      for (const Node& child : node.children) {
        const auto length = fixed_length(child);
        if (!length || sum + *length > kMaxRepeat) return std::nullopt;
        sum += *length;
      }
      return sum;
    }
    case Kind::kAlternation: {
      const auto first = fixed_length(node.children[0]);
      for (const Node& child : node.children) {
        if (fixed_length(child) != first) return std::nullopt;
      }
      return first;
    }
  }
  return std::nullopt;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  MaybeNode parse_all() {
    MaybeNode node = alternation({});
    if (!node || at_ != text_.size()) return std::nullopt;
    return node;
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  bool take(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  char32_t take_character() { return text::next_code_point(text_, at_); }

  MaybeNode alternation(Flags flags);
  MaybeNode sequence(Flags flags);
  MaybeNode atom(Flags flags);
  MaybeNode group(Flags flags);
  MaybeNode options_group(Flags flags);
  MaybeNode closed(Flags flags);  // an alternation and its ')'
  MaybeNode look(Kind kind, bool negated, Flags flags);
  MaybeNode escape(Flags flags);
  MaybeNode literal(char32_t c, Flags flags);
  bool quantify(Node& node);
  bool take_interval(uint32_t& min, uint32_t& max, bool& found);
  std::optional<uint32_t> take_number();

  MaybeSet bracket(Flags flags);
  bool bracket_item(CodePointRanges& set, Flags flags);
  MaybeSet class_escape();            // \s, \p{..}: a class; the '\' is taken
  std::optional<char32_t> escaped();  // \n, \x{..}, \-: a character; the '\' is taken
  std::optional<char32_t> hex(size_t digits, char32_t limit);

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::vector<char32_t> folded_run_;  // literals in a row that ignore case
};

MaybeNode Parser::alternation(Flags flags) {
  if (++depth_ > kMaxDepth) return std::nullopt;
  Node node;
  node.kind = Kind::kAlternation;
  do {
    folded_run_.clear();
    MaybeNode branch = sequence(flags);
    if (!branch) return std::nullopt;
    node.children.push_back(std::move(*branch));
  } while (take("|"));
  --depth_;
  if (node.children.size() > 1) return node;
  Node only = std::move(node.children[0]);
  return only;
}

MaybeNode Parser::sequence(Flags flags) {
  Node node;
  while (!at_end() && text_[at_] != '|' && text_[at_] != ')') {
    MaybeNode item = atom(flags);
    if (!item || !quantify(*item)) return std::nullopt;
    node.children.push_back(std::move(*item));
  }
  return node;
}

MaybeNode Parser::literal(char32_t c, Flags flags) {
  if (!flags.ignore_case) {
    folded_run_.clear();
    return set_node(single(c));
  }
  folded_run_.push_back(c);
  if (text::folds_to_several(c) || text::ends_in_expanded_fold(folded_run_)) return std::nullopt;
  return set_node(CodePointRanges::folded(c));
}

MaybeNode Parser::atom(Flags flags) {
  const char c = text_[at_];
  if (c == '*' || c == '+' || c == '?' || c == '{') return std::nullopt;
  if (c == '(') {
    ++at_;
    return group(flags);
  }
  if (c == '[') {
    ++at_;
    MaybeSet set = bracket(flags);
    if (!set) return std::nullopt;
    folded_run_.clear();
    return set_node(std::move(*set));
  }
  if (c == '\\') {
    ++at_;
    return escape(flags);
  }
  if (take(".")) {
    folded_run_.clear();
    return set_node(flags.dot_matches_newline ? CodePointRanges::all() : single('\n').complement());
  }
  if (take("^")) return assertion_node(Assertion::kLineBegin);
  if (take("$")) return assertion_node(Assertion::kLineEnd);
  return literal(take_character(), flags);
}

MaybeNode Parser::closed(Flags flags) {
  MaybeNode node = alternation(flags);
  if (!node || !take(")")) return std::nullopt;
  return node;
}

MaybeNode Parser::look(Kind kind, bool negated, Flags flags) {
  MaybeNode body = closed(flags);
  if (!body) return std::nullopt;
  std::vector<Node> branches;
  if (kind == Kind::kLookbehind && body->kind == Kind::kAlternation) {
    branches = std::move(body->children);
  } else {
    branches.push_back(std::move(*body));
  }
  // Branches of different lengths: one of the looks must hold, or none.
  Node looks;
  looks.kind = negated ? Kind::kSequence : Kind::kAlternation;
  for (Node& branch : branches) {
    Node one;
    one.kind = kind;
    one.negated = negated;
    const auto length = fixed_length(branch);
    if (kind == Kind::kLookbehind && !length) return std::nullopt;
    one.min = length.value_or(0);
    one.children.push_back(std::move(branch));
    looks.children.push_back(std::move(one));
  }
  if (looks.children.size() > 1) {
    Node whole;
    whole.kind = Kind::kAtomic;
    whole.children.push_back(std::move(looks));
    return whole;
  }
  Node only = std::move(looks.children[0]);
  return only;
}

MaybeNode Parser::group(Flags flags) {
  if (!take("?")) return closed(flags);
  if (take(":")) return closed(flags);
  if (take("=")) return look(Kind::kLookahead, false, flags);
  if (take("!")) return look(Kind::kLookahead, true, flags);
  if (take("<=")) return look(Kind::kLookbehind, false, flags);
  if (take("<!")) return look(Kind::kLookbehind, true, flags);
  if (take(">")) {
    MaybeNode body = closed(flags);
    if (!body) return std::nullopt;
    Node node;
    node.kind = Kind::kAtomic;
    node.children.push_back(std::move(*body));
    return node;
  }
  return options_group(flags);
}

// (?i-m:...) or, up to the end of the group around it, (?i-m).
MaybeNode Parser::options_group(Flags flags) {
  bool on = true;
  while (!at_end()) {
    if (take("-")) {
      on = false;
    } else if (take("i")) {
      flags.ignore_case = on;
    } else if (take("m")) {
      flags.dot_matches_newline = on;
    } else if (take(":")) {
      return closed(flags);
    } else if (take(")")) {
      return alternation(flags);
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<char32_t> Parser::hex(size_t digits, char32_t limit) {
  char32_t value = 0;
  size_t taken = 0;
  for (; taken < digits && !at_end(); ++taken, ++at_) {
    const char c = text_[at_];
    const bool lower = c >= 'a' && c <= 'f';
    if (!(c >= '0' && c <= '9') && !lower && !(c >= 'A' && c <= 'F')) break;
    const int digit = c <= '9' ? c - '0' : (lower ? c - 'a' : c - 'A') + 10;
    value = value * 16 + static_cast<char32_t>(digit);
  }
  if (taken == 0 || value >= limit || (value >= 0xD800 && value < 0xE000)) return std::nullopt;
  return value;
}

std::optional<char32_t> Parser::escaped() {
  if (at_end()) return std::nullopt;
  if (take("x{")) {
    const auto value = hex(8, text::kCodePointLimit);
    if (!value || !take("}")) return std::nullopt;
    return value;
  }
  if (take("x")) return hex(2, 0x80);  // above, a byte of a character
  if (take("u")) {
    const size_t begin = at_;
    const auto value = hex(4, 0x10000);
    if (at_ - begin != 4) return std::nullopt;
    return value;
  }
  constexpr std::pair<char, char> kControls[] = {
      {'t', '\t'}, {'n', '\n'}, {'r', '\r'}, {'f', '\f'}, {'v', '\v'}, {'a', '\a'}, {'e', '\x1B'}};
  for (const auto& [name, value] : kControls) {
    if (take({&name, 1})) return static_cast<char32_t>(value);
  }
  const char32_t c = take_character();
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  if (letter || (c >= '0' && c <= '9')) return std::nullopt;
  return c;
}

MaybeSet Parser::class_escape() {
  if (at_end()) return std::nullopt;
  const char name = text_[at_];
  const auto lower = static_cast<char>(name | 0x20);
  bool negated = name != lower;
  MaybeSet set;
  if (lower == 's') set = CodePointRanges::named("whitespace");
  if (lower == 'd') set = CodePointRanges::named("nd");
  if (lower == 'w') set = CodePointRanges::named("word");
  if (lower == 'h') set = hexadecimal();
  if (set) {
    ++at_;
  } else {
    if (!take("p{") && !take("P{")) return std::nullopt;
    if (take("^")) negated = !negated;
    const size_t end = text_.find('}', at_);
    if (end == std::string_view::npos) return std::nullopt;
    set = CodePointRanges::named(text_.substr(at_, end - at_));
    at_ = end + 1;
  }
  if (set && negated) return set->complement();
  return set;
}

MaybeNode Parser::escape(Flags flags) {
  constexpr std::pair<std::string_view, Assertion> kAssertions[] = {
      {"A", Assertion::kTextBegin},        {"z", Assertion::kTextEnd},
      {"Z", Assertion::kTextEndOrNewline}, {"b", Assertion::kWordBoundary},
      {"B", Assertion::kNoWordBoundary},
  };
  for (const auto& [name, assertion] : kAssertions) {
    if (take(name)) return assertion_node(assertion);
  }
  const size_t begin = at_;
  if (MaybeSet set = class_escape()) {
    if (flags.ignore_case) return std::nullopt;
    folded_run_.clear();
    return set_node(std::move(*set));
  }
  at_ = begin;
  const auto c = escaped();
  if (!c) return std::nullopt;
  return literal(*c, flags);
}

// One character, range, class or bracket inside brackets.
bool Parser::bracket_item(CodePointRanges& set, Flags flags) {
  if (text_.substr(at_).starts_with("[:")) return false;
  if (take("[")) {
    if (flags.ignore_case) return false;
    const MaybeSet inner = bracket(flags);
    if (inner) set = set.united(*inner);
    return inner.has_value();
  }
  const auto character = [&]() -> std::optional<char32_t> {
    if (at_end()) return std::nullopt;
    return take("\\") ? escaped() : take_character();
  };
  if (text_[at_] == '\\') {
    const size_t begin = at_++;
    if (const MaybeSet inner = class_escape()) {
      set = set.united(*inner);
      // What "-" means behind a class differs between syntaxes.
      return !flags.ignore_case &&
             (!text_.substr(at_).starts_with('-') || text_.substr(at_).starts_with("-]"));
    }
    at_ = begin;
  }
  const auto first = character();
  if (!first) return false;
  auto last = first;
  const std::string_view rest = text_.substr(at_);
  if (rest.starts_with('-') && !rest.starts_with("-]")) {
    if (*first == '-' || rest.starts_with("-[") || rest.starts_with("-&&")) return false;
    ++at_;
    last = character();
    if (!last || *last < *first) return false;
    if (text_.substr(at_).starts_with('-') && !text_.substr(at_).starts_with("-]")) return false;
  }
  if (flags.ignore_case) {
    if (*last >= 0x80) return false;
    for (char32_t c = *first; c <= *last; ++c) set = set.united(CodePointRanges::folded(c));
  } else {
    set = set.united(CodePointRanges::of(*first, *last + 1));
  }
  return true;
}

// What stands behind a '[', up to its ']'.
MaybeSet Parser::bracket(Flags flags) {
  if (++depth_ > kMaxDepth) return std::nullopt;
  const bool negated = take("^");
  if (negated && flags.ignore_case) return std::nullopt;
  MaybeSet left;
  CodePointRanges set;
  bool has_items = false;
  while (true) {
    if (at_end()) return std::nullopt;
    if (text_.substr(at_).starts_with("&&") || text_[at_] == ']') {
      if (!has_items) return std::nullopt;  // an empty operand, or a literal ']'
      left = left ? left->intersected(set) : set;
      set = CodePointRanges();
      has_items = false;
      if (take("]")) break;
      at_ += 2;
      continue;
    }
    if (!bracket_item(set, flags)) return std::nullopt;
    has_items = true;
  }
  --depth_;
  return negated ? left->complement() : *left;
}

std::optional<uint32_t> Parser::take_number() {
  uint32_t value = 0;
  const size_t begin = at_;
  while (!at_end() && text_[at_] >= '0' && text_[at_] <= '9') {
    value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
    if (value > kMaxRepeat) return std::nullopt;
  }
  if (at_ == begin) return std::nullopt;
  return value;
}

// {n}, {n,}, {,m} or {n,m}. False for what is not one of these.
bool Parser::take_interval(uint32_t& min, uint32_t& max, bool& found) {
  found = take("{");
  if (!found) return true;
  const auto low = take_number();
  if (take("}")) {
    if (low) min = max = *low;
    return low.has_value();
  }
  if (!take(",")) return false;
  const auto high = take_number();
  if (!take("}") || (!low && !high)) return false;
  min = low.value_or(0);
  max = high.value_or(kUnbounded);
  return min <= max;
}

// Wraps the node in the quantifiers behind it.
bool Parser::quantify(Node& node) {
  Node repeat;
  repeat.kind = Kind::kRepeat;
  bool interval = false;
  if (take("*")) {
    repeat.max = kUnbounded;
  } else if (take("+")) {
    repeat.min = 1;
    repeat.max = kUnbounded;
  } else if (take("?")) {
    repeat.max = 1;
  } else {
    if (!take_interval(repeat.min, repeat.max, interval)) return false;
    if (!interval) return true;
  }
  // {n}? is an optional {n}, and {n,m}+ repeats {n,m}.
  const bool exact = interval && repeat.min == repeat.max;
  if (!exact && take("?")) repeat.greed = Greed::kLazy;
  if (!interval && repeat.greed == Greed::kGreedy && take("+")) repeat.greed = Greed::kPossessive;
  if (!at_end() &&
      (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?' || text_[at_] == '{')) {
    return false;
  }
  // A loop around what can be empty ends by rules that are not copied here.
  if (is_nullable(node)) return false;
  folded_run_.clear();
  repeat.children.push_back(std::move(node));
  node = std::move(repeat);
  return true;
}

}  // namespace

bool is_nullable(const Node& node) {
  const auto nullable = [](const Node& child) { return is_nullable(child); };
  switch (node.kind) {
    case Kind::kSet: return false;
    case Kind::kSequence: return std::ranges::all_of(node.children, nullable);
    case Kind::kAlternation: return std::ranges::any_of(node.children, nullable);
    case Kind::kRepeat: return node.min == 0 || is_nullable(node.children[0]);
    case Kind::kAtomic: return is_nullable(node.children[0]);
    case Kind::kLookahead:
    case Kind::kLookbehind:
    case Kind::kAssertion: return true;
  }
  return true;
}

std::optional<Node> parse(std::string_view expression) { return Parser(expression).parse_all(); }

}  // namespace airllm::regex
