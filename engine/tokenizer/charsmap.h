// The "precompiled_charsmap" of SentencePiece, which tokenizer.json's Precompiled normalizer
// carries as well: texts and what they become. Four bytes say how many the tree has (little
// endian), then come the tree, which is a double array of Darts-clone, and what the texts become,
// each ended by a zero byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::tokenizer {

// Immutable after construction; safe to share between threads.
class Charsmap {
 public:
  struct Match {
    size_t length = 0;      // of what is replaced, in bytes; not 0
    std::string_view text;  // what it becomes; borrows from the map
  };

  // From untrusted bytes: checks the tree as SentencePiece does, so that no text leads out of it,
  // and that whatever a match becomes is UTF-8. `where` names the bytes in messages.
  static Result<Charsmap> from_bytes(std::string_view bytes, const std::string& where);

  // The longest of the first 32 texts in the map with which `text` begins, as SentencePiece takes
  // it.
  std::optional<Match> longest(std::string_view text) const;
  // The shortest one, as the crate spm_precompiled takes it, for which a zero byte ends a text.
  std::optional<Match> shortest(std::string_view text) const;

 private:
  template <typename Found>
  void for_each_prefix(std::string_view text, Found found) const;
  Status check_tree(const std::string& where) const;
  std::string_view replacement(uint32_t offset) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace airllm::tokenizer
