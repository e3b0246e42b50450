// Token texts and their ids, compactly: the texts lie in one arena, and a table of 32-bit ids finds
// them. A vocabulary of 128 thousand tokens takes about 4 MB.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::tokenizer {

// Ids are array indices, so that a hostile id must not ask for gigabytes. The largest published
// vocabularies have about a million.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

// Filled once, then safe to share between threads.
class Vocabulary {
 public:
  // A text or an id that is taken, or an id out of range, is a kData error (without a place).
  Status add(std::string_view text, int64_t id);
  // Gives back what growing left over.
  void shrink_to_fit();

  std::optional<int32_t> id(std::string_view text) const;
  // Borrows from the vocabulary; nothing for an id that no token has.
  std::optional<std::string_view> text(int32_t id) const;
  size_t size() const { return size_; }
  size_t id_limit() const { return spans_.size(); }  // one more than the largest id

 private:
  static constexpr uint32_t kAbsent = UINT32_MAX;
  struct Span {
    uint32_t begin = kAbsent;
    uint32_t length = 0;
  };
  std::string_view text_of(int32_t id) const;
  size_t slot_of(std::string_view text) const;
  void grow_table();

  std::string arena_;
  std::vector<Span> spans_;     // by id
  std::vector<int32_t> table_;  // open addressing, a power of two; -1: free
  size_t size_ = 0;
};

}  // namespace airllm::tokenizer
