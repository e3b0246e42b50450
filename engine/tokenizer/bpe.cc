#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <string>

#include "base/utf8.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/byte_token.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/tokenizer_file.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxMerges = (1 << 24) - 1;  // a rank has 24 bits in MergeTable
constexpr size_t kCachedWords = 1 << 15;      // 64 bytes each
constexpr size_t kWordsWithoutCache = 512;    // a short text does not pay for the cache
// Below, looking through all pairs for the next one beats a heap.
constexpr size_t kFewSymbols = 24;

std::string quoted(std::string_view token) {
  return "'" + escape_for_display(token.substr(0, 80), true) + "'";
}

// Dropout is for training: encoding at random would not give a model the ids that it knows.
Status check_dropout(const Fields& fields) {
  const Json* dropout = fields.find("dropout");
  if (dropout == nullptr || dropout->is_null()) return {};
  if (dropout->is_number() && dropout->get<double>() >= 0 && dropout->get<double>() <= 1) return {};
  return fields.wrong("dropout", "a number from 0 to 1");
}

}  // namespace

void MergeTable::reserve(size_t count) {
  entries_.reserve(count);
  table_.assign(std::bit_ceil(std::max<size_t>(count + count / 2, 16)), kFree);
}

MergeTable::Place MergeTable::place_of(int32_t left, int32_t right) const {
  const uint64_t key =
      (uint64_t{static_cast<uint32_t>(left)} << 32U) | static_cast<uint32_t>(right);
  // Fibonacci hashing with a fold, since ids are small and close together.
  const uint64_t mixed = (key ^ (key >> 29U)) * 0x9E3779B97F4A7C15U;
  const auto tag = static_cast<uint32_t>(mixed >> 56U) << kRankBits;
  const size_t mask = table_.size() - 1;
  size_t slot = (mixed >> 28U) & mask;
  for (; table_[slot] != kFree; slot = (slot + 1) & mask) {
    if ((table_[slot] & ~kRankMask) != tag) continue;
    const auto rank = static_cast<int32_t>(table_[slot] & kRankMask);
    const Entry& entry = (*this)[rank];
    if (entry.left == left && entry.right == right) return {slot, tag, rank};
  }
  return {slot, tag, -1};
}

void MergeTable::add(const Entry& entry) {
  const Place place = place_of(entry.left, entry.right);
  table_[place.slot] = place.tag | static_cast<uint32_t>(entries_.size());
  entries_.push_back(entry);
}

int32_t MergeTable::rank(int32_t left, int32_t right) const { return place_of(left, right).rank; }

Result<Bpe> Bpe::build(const Json& model, TokenizerFile& file, std::string_view what) {
  const Fields fields(model, std::string(what) + ": model");
  Bpe bpe;
  AIRLLM_TRY_VOID(check_dropout(fields));
  AIRLLM_TRY(bpe.fuse_unknown_, fields.boolean_or("fuse_unk", false));
  AIRLLM_TRY(bpe.byte_fallback_, fields.boolean_or("byte_fallback", false));
  AIRLLM_TRY(bpe.ignore_merges_, fields.boolean_or("ignore_merges", false));
  AIRLLM_TRY(bpe.subword_prefix_, fields.string_or("continuing_subword_prefix", ""));
  AIRLLM_TRY(bpe.word_suffix_, fields.string_or("end_of_word_suffix", ""));
  bpe.has_unknown_ = fields.find("unk_token") != nullptr;
  AIRLLM_TRY(const std::string unknown, fields.string_or("unk_token", ""));
  if (!file.has_vocabulary) return fields.wrong("vocab", "an object");
  bpe.vocabulary_ = std::move(file.vocabulary);
  if (bpe.has_unknown_) bpe.unknown_id_ = bpe.vocabulary_.id(unknown).value_or(-1);
  AIRLLM_TRY_VOID(bpe.build_merges(file.merges, fields.where()));
  bpe.build_tables();
  bpe.find_gaps(file.merges);
  return bpe;
}

Status Bpe::build_merges(const MergeList& merges, const std::string& where) {
  if (merges.size() > kMaxMerges) {
    return Unexpected(ErrorCode::kData, where + ": " + std::to_string(merges.size()) +
                                            " merges; the limit is " + std::to_string(kMaxMerges));
  }
  merges_.reserve(merges.size());
  std::string text;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    text = left;
    if (right.size() >= subword_prefix_.size()) text += right.substr(subword_prefix_.size());
    const auto left_id = vocabulary_.id(left);
    const auto right_id = vocabulary_.id(right);
    const auto merged_id = vocabulary_.id(text);
    if (!left_id || !right_id || !merged_id) {
      return Unexpected(ErrorCode::kData, where + ": merge " + std::to_string(rank) + " (" +
                                              quoted(left) + ", " + quoted(right) +
                                              ") uses or makes a token that is not in vocab");
    }
    merges_.add({*left_id, *right_id, *merged_id});
  }
  return {};
}

Result<Bpe> Bpe::from_ranks(Vocabulary vocabulary, std::string_view what) {
  Bpe bpe;
  bpe.vocabulary_ = std::move(vocabulary);
  bpe.ignore_merges_ = true;
  bpe.orders_by_result_ = true;
  AIRLLM_TRY_VOID(bpe.build_merges_of_ranks(std::string(what)));
  bpe.build_tables();
  return bpe;
}

// Every way to cut a token into two others is a merge.
Status Bpe::build_merges_of_ranks(const std::string& where) {
  std::vector<MergeTable::Entry> entries;
  for (size_t id = 0; id < vocabulary_.id_limit(); ++id) {
    const auto merged = static_cast<int32_t>(id);
    const std::string_view token = vocabulary_.text(merged).value_or("");
    for (size_t at = 0; at < token.size();) {
      text::next_code_point(token, at);
      if (at == token.size()) break;
      const auto left = vocabulary_.id(token.substr(0, at));
      if (!left.has_value()) continue;
      const auto right = vocabulary_.id(token.substr(at));
      if (right.has_value()) entries.push_back({*left, *right, merged});
    }
    if (entries.size() > kMaxMerges) {
      return Unexpected(ErrorCode::kData, where + ": its tokens can be cut into two in more than " +
                                              std::to_string(kMaxMerges) + " ways");
    }
  }
  merges_.reserve(entries.size());
  for (const MergeTable::Entry& entry : entries) merges_.add(entry);
  return {};
}

void Bpe::build_tables() {
  for (unsigned byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] = vocabulary_.id(byte_token(byte)).value_or(-1);
  }
  for (size_t id = 0; id < vocabulary_.id_limit(); ++id) {
    const std::string_view text = vocabulary_.text(static_cast<int32_t>(id)).value_or("");
    if (text.empty()) continue;
    size_t at = 0;
    const char32_t c = text::next_code_point(text, at);
    if (at != text.size() || c >= kDirectCharacters) continue;
    if (c >= direct_ids_.size()) direct_ids_.resize(c + 1, -1);
    direct_ids_[c] = static_cast<int32_t>(id);
  }
  direct_ids_.shrink_to_fit();
}

void Bpe::find_gaps(const MergeList& merges) {
  // Affixes make a character's symbol depend on its place, and a whole word may be a token that no
  // merges lead to.
  if (!subword_prefix_.empty() || !word_suffix_.empty() || ignore_merges_) return;
  const auto is_byte = [this](std::string_view token) {
    const auto id = vocabulary_.id(token);
    return id && std::find(byte_ids_.begin(), byte_ids_.end(), *id) != byte_ids_.end();
  };
  // A character without a symbol of its own parts its neighbours when it becomes bytes that never
  // merge. Else it may vanish or join others, so that gaps are only between known characters.
  gaps_at_unknown_ =
      byte_fallback_ && std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end();
  std::vector<MergeGaps::Pair> joined;
  joined.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    if (left.empty() || right.empty()) return;  // only an unknown token can have no text
    if (gaps_at_unknown_ && (is_byte(left) || is_byte(right))) gaps_at_unknown_ = false;
    size_t end = left.size();
    size_t begin = 0;
    joined.emplace_back(text::previous_code_point(left, end), text::next_code_point(right, begin));
  }
  gaps_ = MergeGaps(std::move(joined));
  has_gaps_ = true;
}

std::optional<int32_t> Bpe::character_id(std::string_view character, bool first, bool last) const {
  const bool prefixed = !first && !subword_prefix_.empty();
  const bool suffixed = last && !word_suffix_.empty();
  if (!prefixed && !suffixed) {
    size_t at = 0;
    const char32_t c = text::next_code_point(character, at);
    if (c >= kDirectCharacters) return vocabulary_.id(character);
    if (!has_direct_id(c)) return std::nullopt;
    return direct_ids_[c];
  }
  std::string text = prefixed ? subword_prefix_ : std::string();
  text += character;
  if (suffixed) text += word_suffix_;
  return vocabulary_.id(text);
}

// All bytes of the character as byte tokens, or nothing when one of them is absent.
bool Bpe::append_bytes(std::string_view character, bool first, bool last, Scratch& scratch) const {
  // The reference falls back for the text with its prefix and suffix.
  std::string text = first ? std::string() : subword_prefix_;
  text += character;
  if (last) text += word_suffix_;
  for (const char c : text) {
    if (byte_ids_[static_cast<unsigned char>(c)] < 0) return false;
  }
  for (const char c : text) {
    scratch.symbols.push_back({byte_ids_[static_cast<unsigned char>(c)], 0, 0});
  }
  return true;
}

void Bpe::split_into_symbols(std::string_view word, Scratch& scratch) const {
  bool pending_unknown = false;
  const auto flush_unknown = [&] {
    if (pending_unknown) scratch.symbols.push_back({unknown_id_, 0, 0});
    pending_unknown = false;
  };
  size_t at = 0;
  while (at < word.size()) {
    const size_t begin = at;
    text::next_code_point(word, at);
    const std::string_view character = word.substr(begin, at - begin);
    const bool first = begin == 0;
    const bool last = at == word.size();
    if (const auto id = character_id(character, first, last)) {
      flush_unknown();
      scratch.symbols.push_back({*id, 0, 0});
      continue;
    }
    // As in the reference, bytes do not end a run of unknown characters.
    if (byte_fallback_ && append_bytes(character, first, last, scratch)) continue;
    if (!has_unknown_) continue;  // the reference drops the character
    if (unknown_id_ < 0) {
      scratch.unknown_token_missing = true;
      continue;
    }
    if (!fuse_unknown_) flush_unknown();
    pending_unknown = true;
  }
  flush_unknown();
}

// When the pair is merged, beside others: the lowest first; -1: never.
int32_t Bpe::order_of(int32_t left, int32_t right) const {
  const int32_t rank = merges_.rank(left, right);
  return rank < 0 || !orders_by_result_ ? rank : merges_[rank].merged;
}

// Queues the pair of the symbols at positions `left` and `right`, if it can merge.
void Bpe::offer(Scratch& scratch, int32_t left, int32_t right) const {
  const auto& symbols = scratch.symbols;
  const int32_t order =
      order_of(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
  if (order < 0) return;
  scratch.queue.push_back((uint64_t{static_cast<uint32_t>(order)} << 32U) |
                          static_cast<uint32_t>(left));
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
}

// Merges by looking for the lowest order, and of equal ones the leftmost, each time. The orders of
// the pairs are kept in `previous` of their left symbols.
void Bpe::merge_few_symbols(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  size_t count = symbols.size();
  const auto update = [&](size_t i) {
    const int32_t order = order_of(symbols[i].id, symbols[i + 1].id);
    symbols[i].previous = order < 0 ? INT32_MAX : order;
  };
  for (size_t i = 0; i + 1 < count; ++i) update(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (symbols[i].previous < symbols[best].previous) best = i;
    }
    if (symbols[best].previous == INT32_MAX) break;
    symbols[best].id = merged_by(symbols[best].previous);
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    if (best + 1 < count) update(best);
    if (best > 0) update(best - 1);
  }
  symbols.resize(count);
}

void Bpe::merge_symbols(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto count = static_cast<int32_t>(symbols.size());
  queue.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
    if (i + 1 < count) offer(scratch, i, i + 1);
  }
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto position = static_cast<int32_t>(queue.back() & UINT32_MAX);
    const int32_t merged = merged_by(static_cast<int32_t>(queue.back() >> 32U));
    queue.pop_back();

    Scratch::Symbol& left = symbols[static_cast<size_t>(position)];
    if (left.id < 0 || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    // An entry is out of date when its pair has changed since.
    const int32_t rank = merges_.rank(left.id, right.id);
    if (rank < 0 || merges_[rank].merged != merged) continue;

    left.id = merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = position;
    if (left.previous >= 0) offer(scratch, left.previous, position);
    if (left.next >= 0) offer(scratch, position, left.next);
  }
}

// Whether no merge can reach across the border between the two neighbours.
bool Bpe::is_gap(char32_t left, char32_t right) const {
  return (gaps_at_unknown_ || (has_direct_id(left) && has_direct_id(right))) &&
         !gaps_.joins(left, right);
}

void Bpe::encode_new_word(std::string_view word, Scratch& scratch,
                          std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.id(word)) {
      ids.push_back(*id);
      return;
    }
  }
  scratch.symbols.clear();
  split_into_symbols(word, scratch);
  // With a prefix, a merge may not lengthen the text, which the heap's order then depends on.
  if (scratch.symbols.size() <= kFewSymbols && subword_prefix_.empty()) {
    merge_few_symbols(scratch);
  } else {
    merge_symbols(scratch);
  }
  for (const auto& symbol : scratch.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

void Bpe::encode_short_word(std::string_view word, Scratch& scratch,
                            std::vector<int32_t>& ids) const {
  if (scratch.cache.empty()) {
    if (++scratch.words < kWordsWithoutCache) {
      encode_new_word(word, scratch, ids);
      return;
    }
    scratch.cache.resize(kCachedWords);
  }
  auto& cached = scratch.cache[std::hash<std::string_view>{}(word) % kCachedWords];
  if (std::string_view(cached.bytes.data(), cached.length) == word) {
    ids.insert(ids.end(), cached.ids.begin(), cached.ids.begin() + cached.count);
    return;
  }
  const size_t before = ids.size();
  encode_new_word(word, scratch, ids);
  const size_t count = ids.size() - before;
  if (count > cached.ids.size()) return;
  cached.length = static_cast<uint8_t>(word.size());
  cached.count = static_cast<uint8_t>(count);
  std::copy(word.begin(), word.end(), cached.bytes.begin());
  std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(before), count, cached.ids.begin());
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  const auto encode_piece = [&](std::string_view piece) {
    if (piece.size() <= Scratch::kCachedBytes) {
      encode_short_word(piece, scratch, ids);
    } else {
      encode_new_word(piece, scratch, ids);
    }
  };
  if (word.empty()) return;
  if (word.size() <= Scratch::kCachedBytes || !has_gaps_) {
    encode_piece(word);
    return;
  }
  size_t begin = 0;
  size_t at = 0;
  char32_t left = text::next_code_point(word, at);
  while (at < word.size()) {
    const size_t border = at;
    const char32_t right = text::next_code_point(word, at);
    if (is_gap(left, right)) {
      encode_piece(word.substr(begin, border - begin));
      begin = border;
    }
    left = right;
  }
  encode_piece(word.substr(begin));
}

}  // namespace airllm::tokenizer
