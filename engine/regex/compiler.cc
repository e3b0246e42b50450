#include <map>
#include <utility>

#include "engine/regex/program.h"

namespace airllm::regex {
namespace {

using text::CodePointRanges;
using Kind = Node::Kind;
using Op = Instruction::Op;

constexpr size_t kMaxInstructions = 4096;
constexpr size_t kMaxSets = 128;
constexpr size_t kMaxBranches = 32;
constexpr uint32_t kMaxCopies = 256;

// What the rest of a match can start with. Zero-width conditions only restrict it, so that they
// are left out.
struct Continuation {
  CodePointRanges first;
  bool anything = false;  // also the end of the text
  bool accepts = false;   // nothing is left to match
};

Continuation first_of(const Node& node, const Continuation& next);

Continuation united(const Continuation& a, const Continuation& b) {
  return {a.first.united(b.first), a.anything || b.anything, false};
}

Continuation first_of_sequence(const std::vector<Node>& nodes, size_t from,
                               const Continuation& next) {
  Continuation result = next;
  for (size_t i = nodes.size(); i > from; --i) result = first_of(nodes[i - 1], result);
  return result;
}

Continuation first_of(const Node& node, const Continuation& next) {
  switch (node.kind) {
    case Kind::kSet: return {node.set, false, false};
    case Kind::kSequence: return first_of_sequence(node.children, 0, next);
    case Kind::kAlternation: {
      Continuation result{{}, false, false};
      for (const Node& child : node.children) result = united(result, first_of(child, next));
      return result;
    }
    case Kind::kRepeat: {
      if (node.max == 0) return next;
      const Continuation body = first_of(node.children[0], next);
      return node.min == 0 ? united(body, next) : body;
    }
    case Kind::kAtomic: return first_of(node.children[0], next);
    case Kind::kLookahead:
    case Kind::kLookbehind:
    case Kind::kAssertion: return {next.first, next.anything, false};
  }
  return next;
}

class Compiler {
 public:
  std::optional<Program> run(const Node& node) {
    const Continuation end{{}, true, true};
    emit(node, end);
    add({.op = Op::kAccept});
    program_.first_set = first_set(first_of(node, end));
    if (needs_words_) program_.word_set = set_of(*CodePointRanges::named("word"));
    if (too_large_) return std::nullopt;
    return std::move(program_);
  }

 private:
  size_t add(Instruction instruction) {
    if (program_.code.size() >= kMaxInstructions) {
      too_large_ = true;
      return 0;
    }
    program_.code.push_back(instruction);
    return program_.code.size() - 1;
  }
  uint32_t here() const { return static_cast<uint32_t>(program_.code.size()); }

  uint32_t set_of(const CodePointRanges& ranges) {
    const auto [known, is_new] =
        set_numbers_.try_emplace(ranges.ranges(), static_cast<uint32_t>(program_.sets.size()));
    if (!is_new) return known->second;
    if (program_.sets.size() >= kMaxSets) {
      too_large_ = true;
    } else {
      program_.sets.emplace_back(ranges);
    }
    return known->second;
  }
  uint32_t first_set(const Continuation& start) {
    return start.anything ? kNoSet : set_of(start.first);
  }

  void emit(const Node& node, const Continuation& next);
  void emit_sequence(const std::vector<Node>& nodes, const Continuation& next);
  void emit_choice(const std::vector<const Node*>& branches, const Continuation& next);
  void emit_repeat(const Node& node, const Continuation& next);
  void emit_span(const Node& node, const Continuation& next);
  void emit_loop(const Node& node, const Continuation& next);
  void emit_nested(Instruction head, const Node& body);

  // Adds a choice whose targets the caller sets later.
  size_t add_choice(const std::vector<Continuation>& starts);
  Choice::Branch& branch(size_t choice, size_t index) {
    return program_.choices[choice].branches[index];
  }

  Program program_;
  std::map<std::vector<CodePointRanges::Range>, uint32_t> set_numbers_;
  bool too_large_ = false;
  bool needs_words_ = false;
};

size_t Compiler::add_choice(const std::vector<Continuation>& starts) {
  Choice choice;
  if (starts.size() > kMaxBranches) too_large_ = true;
  for (const Continuation& start : starts) choice.branches.push_back({first_set(start), 0});
  if (!too_large_) {
    for (size_t i = 0; i < starts.size(); ++i) {
      const uint32_t set = choice.branches[i].set;
      for (unsigned char c = 0; c < 128; ++c) {
        const bool possible = set == kNoSet || program_.sets[set].contains_ascii(c);
        if (possible) choice.by_ascii[c] |= uint32_t{1} << i;
      }
    }
  }
  program_.choices.push_back(std::move(choice));
  const size_t number = program_.choices.size() - 1;
  add({.op = Op::kChoose, .target = static_cast<uint32_t>(number)});
  return number;
}

void Compiler::emit_sequence(const std::vector<Node>& nodes, const Continuation& next) {
  std::vector<Continuation> behind(nodes.size() + 1, next);
  for (size_t i = nodes.size(); i > 0; --i) behind[i - 1] = first_of(nodes[i - 1], behind[i]);
  for (size_t i = 0; i < nodes.size(); ++i) emit(nodes[i], behind[i + 1]);
}

void Compiler::emit_choice(const std::vector<const Node*>& branches, const Continuation& next) {
  std::vector<Continuation> starts;
  for (const Node* node : branches) starts.push_back(first_of(*node, next));
  const size_t choice = add_choice(starts);
  std::vector<size_t> jumps;
  for (size_t i = 0; i < branches.size() && !too_large_; ++i) {
    branch(choice, i).target = here();
    emit(*branches[i], next);
    if (i + 1 < branches.size()) jumps.push_back(add({.op = Op::kJump}));
  }
  if (too_large_) return;
  for (const size_t jump : jumps) program_.code[jump].target = here();
}

void Compiler::emit_span(const Node& node, const Continuation& next) {
  const CodePointRanges& set = node.children[0].set;
  Instruction span{.op = Op::kSpan, .min = node.min, .max = node.max};
  span.set = set_of(set);
  if (node.greed == Greed::kLazy) {
    span.op = Op::kLazySpan;
  } else {
    if (!next.anything) span.next_set = set_of(next.first);
    const bool gives_back = next.anything ? !next.accepts : !set.intersected(next.first).empty();
    if (node.greed == Greed::kPossessive || !gives_back) span.op = Op::kPossessiveSpan;
  }
  add(span);
}

// The body `min` times, then a loop or further copies that can be left out.
void Compiler::emit_loop(const Node& node, const Continuation& next) {
  const Node& body = node.children[0];
  if (node.min > kMaxCopies || (node.max != kUnbounded && node.max > kMaxCopies)) {
    too_large_ = true;
    return;
  }
  const Continuation again = united(first_of(body, next), next);
  for (uint32_t i = 0; i < node.min && !too_large_; ++i) emit(body, again);
  const bool lazy = node.greed == Greed::kLazy;
  const size_t enter = lazy ? 1 : 0;
  std::vector<Continuation> starts{first_of(body, next), next};
  if (lazy) std::swap(starts[0], starts[1]);
  std::vector<size_t> exits;
  const uint32_t loop = here();
  const uint32_t copies = node.max == kUnbounded ? 1 : node.max - node.min;
  for (uint32_t i = 0; i < copies && !too_large_; ++i) {
    exits.push_back(add_choice(starts));
    branch(exits.back(), enter).target = here();
    emit(body, again);
  }
  if (node.max == kUnbounded) add({.op = Op::kJump, .target = loop});
  for (const size_t choice : exits) branch(choice, 1 - enter).target = here();
}

void Compiler::emit_nested(Instruction head, const Node& body) {
  const size_t at = add(head);
  emit(body, {{}, true, true});
  add({.op = Op::kAccept});
  if (!too_large_) program_.code[at].target = here();
}

void Compiler::emit_repeat(const Node& node, const Continuation& next) {
  if (node.children[0].kind == Kind::kSet) return emit_span(node, next);
  if (node.greed != Greed::kPossessive) return emit_loop(node, next);
  Node greedy = node;
  greedy.greed = Greed::kGreedy;
  emit_nested({.op = Op::kAtomic}, greedy);
}

void Compiler::emit(const Node& node, const Continuation& next) {
  if (too_large_) return;
  switch (node.kind) {
    case Kind::kSet: add({.op = Op::kSet, .set = set_of(node.set)}); return;
    case Kind::kSequence: return emit_sequence(node.children, next);
    case Kind::kAlternation: {
      std::vector<const Node*> branches;
      for (const Node& child : node.children) branches.push_back(&child);
      return emit_choice(branches, next);
    }
    case Kind::kRepeat: return emit_repeat(node, next);
    case Kind::kAtomic: return emit_nested({.op = Op::kAtomic}, node.children[0]);
    case Kind::kLookahead:
      return emit_nested({.op = Op::kLook, .negated = node.negated}, node.children[0]);
    case Kind::kLookbehind:
      return emit_nested({.op = Op::kLookbehind, .negated = node.negated, .min = node.min},
                         node.children[0]);
    case Kind::kAssertion:
      needs_words_ |= node.assertion == Assertion::kWordBoundary ||
                      node.assertion == Assertion::kNoWordBoundary;
      add({.op = Op::kAssert, .assertion = node.assertion});
      return;
  }
}

}  // namespace

std::optional<Program> compile(std::string_view expression) {
  const std::optional<Node> node = parse(expression);
  if (!node) return std::nullopt;
  return Compiler().run(*node);
}

}  // namespace airllm::regex
