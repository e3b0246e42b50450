#include "engine/regex/matcher.h"

#include <bit>

#include "engine/text/unicode.h"

namespace airllm::regex {
namespace {

using Op = Instruction::Op;

constexpr uint64_t kFreeSteps = 10'000'000;
constexpr uint64_t kStepsPerByte = 256;

uint32_t previous(std::string_view text, uint32_t position) {
  do {
    --position;
  } while ((static_cast<unsigned char>(text[position]) & 0xC0U) == 0x80U);
  return position;
}

}  // namespace

Matcher::Matcher(const Program& program, std::string_view text)
    : program_(program),
      text_(text),
      size_(static_cast<uint32_t>(text.size())),
      step_limit_(kFreeSteps + kStepsPerByte * text.size()) {}

bool Matcher::matches_one(const text::CodePointSet& set, uint32_t& position) const {
  const auto lead = static_cast<unsigned char>(text_[position]);
  if (lead < 0x80) {
    if (!set.contains_ascii(lead)) return false;
    ++position;
    return true;
  }
  size_t at = position;
  if (!set.contains(text::next_code_point(text_, at))) return false;
  position = static_cast<uint32_t>(at);
  return true;
}

bool Matcher::starts_with(uint32_t set, uint32_t position) const {
  if (set == kNoSet) return true;
  return position < size_ && matches_one(program_.sets[set], position);
}

bool Matcher::span(const Instruction& in, uint32_t& code, uint32_t& position) {
  const text::CodePointSet& set = program_.sets[in.set];
  const uint32_t begin = position;
  uint32_t count = 0;
  for (; count < in.min; ++count) {
    if (position == size_ || !matches_one(set, position)) return false;
  }
  const uint32_t low = position;
  while (count < in.max && position < size_ && matches_one(set, position)) ++count;
  steps_ += position - begin;
  if (in.op == Op::kSpan && position > low) frames_.push_back({code, position, low});
  ++code;
  return starts_with(in.next_set, position);
}

bool Matcher::lazy_span(const Instruction& in, uint32_t& code, uint32_t& position) {
  const text::CodePointSet& set = program_.sets[in.set];
  for (uint32_t count = 0; count < in.min; ++count) {
    if (position == size_ || !matches_one(set, position)) return false;
  }
  if (in.max > in.min) frames_.push_back({code, position, in.max - in.min});
  ++code;
  return true;
}

// Takes the first branch from `branch` on that can start here, and notes the one after it.
bool Matcher::choose(const Choice& choice, uint32_t branch, uint32_t& code, uint32_t& position) {
  const auto count = static_cast<uint32_t>(choice.branches.size());
  const bool at_end = position == size_;
  const auto lead = at_end ? 0U : static_cast<unsigned char>(text_[position]);
  const auto next_possible = [&](uint32_t from) {
    if (!at_end && lead < 0x80) {
      const uint64_t left = uint64_t{choice.by_ascii[lead]} >> from;
      return left == 0 ? count : from + static_cast<uint32_t>(std::countr_zero(left));
    }
    while (from < count && !starts_with(choice.branches[from].set, position)) ++from;
    return from;
  };
  const uint32_t taken = next_possible(branch);
  if (taken >= count) return false;
  const uint32_t other = next_possible(taken + 1);
  if (other < count) frames_.push_back({code, position, other});
  code = choice.branches[taken].target;
  return true;
}

bool Matcher::look(const Instruction& in, uint32_t& code, uint32_t position) {
  uint32_t from = position;
  if (in.op == Op::kLookbehind) {
    for (uint32_t i = 0; i < in.min; ++i) {
      if (from == 0) {
        code = in.target;
        return in.negated;
      }
      from = previous(text_, from);
    }
  }
  const bool found = run(code + 1, from) != kFail;
  code = in.target;
  return found != in.negated;
}

bool Matcher::is_word_at(uint32_t position) const {
  return starts_with(program_.word_set, position);
}

bool Matcher::holds(Assertion assertion, uint32_t position) const {
  const bool at_begin = position == 0;
  const bool at_end = position == size_;
  switch (assertion) {
    case Assertion::kTextBegin: return at_begin;
    case Assertion::kTextEnd: return at_end;
    // As in Oniguruma, a newline at the end of the text is followed by no further line.
    case Assertion::kLineBegin: return at_begin || (!at_end && text_[position - 1] == '\n');
    case Assertion::kLineEnd: return at_end || text_[position] == '\n';
    case Assertion::kTextEndOrNewline:
      return at_end || (position + 1 == size_ && text_[position] == '\n');
    case Assertion::kWordBoundary:
    case Assertion::kNoWordBoundary: {
      const bool before = !at_begin && is_word_at(previous(text_, position));
      const bool after = !at_end && is_word_at(position);
      return (before != after) == (assertion == Assertion::kWordBoundary);
    }
  }
  return false;
}

bool Matcher::step(uint32_t& code, uint32_t& position) {
  const Instruction& in = program_.code[code];
  switch (in.op) {
    case Op::kSet: ++code; return position < size_ && matches_one(program_.sets[in.set], position);
    case Op::kSpan:
    case Op::kPossessiveSpan: return span(in, code, position);
    case Op::kLazySpan: return lazy_span(in, code, position);
    case Op::kChoose: return choose(program_.choices[in.target], 0, code, position);
    case Op::kJump: code = in.target; return true;
    case Op::kLook:
    case Op::kLookbehind: return look(in, code, position);
    case Op::kAtomic:
      position = run(code + 1, position);
      code = in.target;
      return position != kFail;
    case Op::kAssert: ++code; return holds(in.assertion, position);
    case Op::kAccept: break;
  }
  return false;
}

// Goes back to the last choice behind frame `base`; false when there is none.
bool Matcher::backtrack(uint32_t& code, uint32_t& position, size_t base) {
  while (frames_.size() > base) {
    Frame& frame = frames_.back();
    const Instruction& in = program_.code[frame.code];
    code = frame.code;
    ++steps_;
    if (in.op == Op::kSpan) {
      position = frame.position = previous(text_, frame.position);
      if (position <= frame.low) frames_.pop_back();
      ++code;
      if (starts_with(in.next_set, position)) return true;
    } else if (in.op == Op::kLazySpan) {
      position = frame.position;
      if (position == size_ || !matches_one(program_.sets[in.set], position)) {
        frames_.pop_back();
        continue;
      }
      frame.position = position;
      if (in.max != kUnbounded && --frame.low == 0) frames_.pop_back();
      ++code;
      return true;
    } else {
      position = frame.position;
      const uint32_t branch = frame.low;
      frames_.pop_back();
      if (choose(program_.choices[in.target], branch, code, position)) return true;
    }
    if (out_of_steps()) return false;
  }
  return false;
}

uint32_t Matcher::run(uint32_t code, uint32_t position) {
  const size_t base = frames_.size();
  while (program_.code[code].op != Op::kAccept) {
    if (++steps_ > step_limit_) {
      position = kFail;
      break;
    }
    if (step(code, position)) continue;
    if (!backtrack(code, position, base)) {
      position = kFail;
      break;
    }
  }
  frames_.resize(base);
  return position;
}

std::optional<Match> Matcher::find(size_t from) {
  for (auto begin = static_cast<uint32_t>(from);;) {
    if (starts_with(program_.first_set, begin)) {
      const uint32_t end = run(0, begin);
      if (out_of_steps()) return std::nullopt;
      if (end != kFail) return Match{begin, end};
    }
    if (begin == size_) return std::nullopt;
    ++steps_;
    size_t at = begin;
    text::next_code_point(text_, at);
    begin = static_cast<uint32_t>(at);
  }
}

}  // namespace airllm::regex
