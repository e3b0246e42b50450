// Byte pair encoding (arXiv 1508.07909) as Hugging Face tokenizers runs it, byte-level or with byte
// fallback: a word becomes symbols, and the pair of the lowest rank is merged until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/tokenizer/merge_gaps.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

class MergeList;
struct TokenizerFile;

// Which pairs merge into what. 20 bytes per pair: the entries in order of rank, and a table of
// ranks that finds them.
class MergeTable {
 public:
  struct Entry {
    int32_t left, right, merged;
  };
  void reserve(size_t count);
  void add(const Entry& entry);  // its rank is the number of entries before
  // The rank of the pair; of a pair that was added twice the later one. -1: none.
  int32_t rank(int32_t left, int32_t right) const;
  const Entry& operator[](int32_t rank) const { return entries_[static_cast<size_t>(rank)]; }

 private:
  static constexpr unsigned kRankBits = 24;
  static constexpr uint32_t kRankMask = (1U << kRankBits) - 1;
  static constexpr uint32_t kFree = UINT32_MAX;
  // Where a pair is, or belongs (rank: -1).
  struct Place {
    size_t slot;
    uint32_t tag;
    int32_t rank;
  };
  Place place_of(int32_t left, int32_t right) const;

  std::vector<Entry> entries_;
  // Open addressing, a power of two: ranks below eight bits of the pair's hash, by which most other
  // pairs are passed without a look at their entries.
  std::vector<uint32_t> table_;
};

// Immutable after construction; safe to share between threads.
class Bpe {
 public:
  // Working memory of one encoding; keeps its capacity between words.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous, next;  // -1 at the ends
    };
    std::vector<Symbol> symbols;
    std::vector<uint64_t> queue;  // a heap of order << 32 | position
    bool unknown_token_missing = false;

    static constexpr size_t kCachedBytes = 30;  // the longest word that is remembered

    // Words of this encoding and their ids, so that a frequent word is merged once. Bounded: a
    // word replaces the one that holds its slot.
    struct CachedWord {
      uint8_t length = 0;  // 0: free
      uint8_t count = 0;
      std::array<char, kCachedBytes> bytes{};
      std::array<int32_t, 8> ids{};
    };
    std::vector<CachedWord> cache;  // empty while the text is short
    size_t words = 0;               // counted while it is
  };

  // `model` is the file's "model"; the vocabulary and the merges are taken from `file`.
  static Result<Bpe> build(const Json& model, TokenizerFile& file, std::string_view what);

  // As tiktoken does: a word that is a token is that token, else the pair whose two together are
  // the token of the lowest id is merged first, of equal ones the leftmost. Each character of the
  // tokens is a token.
  static Result<Bpe> from_ranks(Vocabulary vocabulary, std::string_view what);

  // Appends the ids of one word in O(n log n), n the longest stretch that merges may cross. When
  // the word needs the unknown token and the vocabulary lacks it, sets
  // scratch.unknown_token_missing.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Bpe() = default;
  Status build_merges(const MergeList& merges, const std::string& where);
  Status build_merges_of_ranks(const std::string& where);
  void build_tables();
  void find_gaps(const MergeList& merges);
  std::optional<int32_t> character_id(std::string_view character, bool first, bool last) const;
  bool append_bytes(std::string_view character, bool first, bool last, Scratch& scratch) const;
  void split_into_symbols(std::string_view word, Scratch& scratch) const;
  bool has_direct_id(char32_t c) const { return c < direct_ids_.size() && direct_ids_[c] >= 0; }
  bool is_gap(char32_t left, char32_t right) const;
  void encode_short_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_new_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void merge_symbols(Scratch& scratch) const;
  void merge_few_symbols(Scratch& scratch) const;
  int32_t order_of(int32_t left, int32_t right) const;
  int32_t merged_by(int32_t order) const {
    return orders_by_result_ ? order : merges_[order].merged;
  }
  void offer(Scratch& scratch, int32_t left, int32_t right) const;

  static constexpr size_t kDirectCharacters = 0x10000;  // the most common ones of all scripts

  Vocabulary vocabulary_;
  MergeTable merges_;
  MergeGaps gaps_;
  std::array<int32_t, 256> byte_ids_{};  // <0x00> to <0xFF>; -1: absent
  std::vector<int32_t> direct_ids_;      // by character, as far as the vocabulary has some; or -1
  std::string subword_prefix_, word_suffix_;
  int32_t unknown_id_ = -1;
  bool has_unknown_ = false;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  bool orders_by_result_ = false;  // pairs with the same result are merged in the same turn
  bool has_gaps_ = false;          // gaps_ is of use
  bool gaps_at_unknown_ = false;   // also beside characters without a symbol of their own
};

}  // namespace airllm::tokenizer
