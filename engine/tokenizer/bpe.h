// Byte pair encoding (arXiv 1508.07909) as Hugging Face tokenizers runs it, byte-level or with byte
// fallback: a word becomes symbols, and the pair of the lowest rank is merged until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/tokenizer/tokenizer_file.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

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
  size_t slot_of(int32_t left, int32_t right) const;

  std::vector<Entry> entries_;
  std::vector<int32_t> table_;  // open addressing, a power of two; -1: free
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
    std::vector<uint64_t> queue;  // a heap of rank << 32 | position
    bool unknown_token_missing = false;

    // Words of this encoding and their ids, so that a frequent word is merged once. Bounded: a
    // word replaces the one that holds its slot.
    struct CachedWord {
      uint8_t length = 0;  // 0: free
      uint8_t count = 0;
      std::array<char, 30> bytes{};
      std::array<int32_t, 8> ids{};
    };
    std::vector<CachedWord> cache;  // empty while the text is short
    size_t words = 0;               // counted while it is
  };

  // `model` is the file's "model"; the vocabulary and the merges are taken from `file`.
  static Result<Bpe> build(const Json& model, TokenizerFile& file, std::string_view what);

  // Appends the ids of one word in O(n log n). When the word needs the unknown token and the
  // vocabulary lacks it, sets scratch.unknown_token_missing.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Bpe() = default;
  Status build_merges(const MergeList& merges, const std::string& where);
  void build_tables();
  std::optional<int32_t> character_id(std::string_view character, bool first, bool last) const;
  bool append_bytes(std::string_view character, bool first, bool last, Scratch& scratch) const;
  void split_into_symbols(std::string_view word, Scratch& scratch) const;
  void encode_new_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void merge_symbols(Scratch& scratch) const;
  void merge_few_symbols(Scratch& scratch) const;
  void offer(Scratch& scratch, int32_t left, int32_t right) const;

  static constexpr size_t kDirectCharacters = 512;  // covers the alphabet of byte-level BPE

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_{};  // <0x00> to <0xFF>; -1: absent
  std::array<int32_t, kDirectCharacters> direct_ids_{};
  std::string subword_prefix_, word_suffix_;
  int32_t unknown_id_ = -1;
  bool has_unknown_ = false;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace airllm::tokenizer
