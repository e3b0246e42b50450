#include "engine/tokenizer/vocabulary.h"

#include <functional>

#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {
constexpr size_t kFirstTableSize = 1024;
}  // namespace

std::string_view Vocabulary::text_of(int32_t id) const {
  const Span span = spans_[static_cast<size_t>(id)];
  return std::string_view(arena_).substr(span.begin, span.length);
}

// The slot that holds `text`, or the free one where it belongs.
size_t Vocabulary::slot_of(std::string_view text) const {
  const size_t mask = table_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(text)&mask;
  while (table_[slot] >= 0 && text_of(table_[slot]) != text) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow_table() {
  const size_t new_size = table_.empty() ? kFirstTableSize : table_.size() * 2;
  table_.assign(new_size, -1);
  for (size_t id = 0; id < spans_.size(); ++id) {
    if (spans_[id].begin == kAbsent) continue;
    const auto token = static_cast<int32_t>(id);
    table_[slot_of(text_of(token))] = token;
  }
}

Status Vocabulary::add(std::string_view text, int64_t id) {
  const auto name = [&] { return "token '" + escape_for_display(text.substr(0, 80), true) + "'"; };
  if (id < 0 || id > kMaxTokenId) {
    return Unexpected(ErrorCode::kData, name() + " has id " + std::to_string(id) +
                                            ", which is not between 0 and " +
                                            std::to_string(kMaxTokenId));
  }
  if (arena_.size() + text.size() >= kAbsent) {
    return Unexpected(ErrorCode::kData, "the tokens' texts take more than 4 GiB");
  }
  const auto index = static_cast<size_t>(id);
  if (index < spans_.size() && spans_[index].begin != kAbsent) {
    return Unexpected(ErrorCode::kData, "two tokens have id " + std::to_string(id));
  }
  if ((size_ + 1) * 4 > table_.size() * 3) grow_table();
  const size_t slot = slot_of(text);
  if (table_[slot] >= 0) return Unexpected(ErrorCode::kData, name() + " occurs twice");
  if (index >= spans_.size()) spans_.resize(index + 1);
  spans_[index] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(text.size())};
  arena_.append(text);
  table_[slot] = static_cast<int32_t>(id);
  ++size_;
  return {};
}

void Vocabulary::shrink_to_fit() {
  arena_.shrink_to_fit();
  spans_.shrink_to_fit();
}

std::optional<int32_t> Vocabulary::id(std::string_view text) const {
  if (table_.empty()) return std::nullopt;
  const int32_t found = table_[slot_of(text)];
  if (found < 0) return std::nullopt;
  return found;
}

std::optional<std::string_view> Vocabulary::text(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= spans_.size()) return std::nullopt;
  if (spans_[static_cast<size_t>(id)].begin == kAbsent) return std::nullopt;
  return text_of(id);
}

}  // namespace airllm::tokenizer
