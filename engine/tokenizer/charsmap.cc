#include "engine/tokenizer/charsmap.h"

#include "base/little_endian.h"
#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kUnitBytes = 4;
constexpr size_t kBlockUnits = 256;  // a node's children lie in one block
constexpr int kMaxMatches = 32;      // the original's kMaxTrieResultsSize

uint32_t read_unit(std::string_view bytes) {
  return static_cast<uint32_t>(from_little_endian(bytes.substr(0, kUnitBytes)));
}

// The fields of a unit of Darts-clone. A value has the highest bit set, and so no label of a byte.
constexpr bool is_value(uint32_t unit) { return unit >> 31U != 0; }
constexpr uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFFU; }
constexpr uint32_t label_of(uint32_t unit) { return unit & 0x800000FFU; }
constexpr bool has_value(uint32_t unit) { return (unit >> 8U & 1U) != 0; }
constexpr uint32_t offset_of(uint32_t unit) { return unit >> 10U << ((unit & 0x200U) >> 6U); }

}  // namespace

Result<Charsmap> Charsmap::from_bytes(std::string_view bytes, const std::string& where) {
  const auto bad = [&](const std::string& why) {
    return Unexpected(ErrorCode::kData, where + ": " + why, "get the file again; it is damaged");
  };
  if (bytes.size() <= kUnitBytes) return bad("the map is shorter than its header");
  const size_t tree_bytes = read_unit(bytes);
  bytes.remove_prefix(kUnitBytes);
  if (tree_bytes >= bytes.size()) {
    return bad("the map's tree has " + std::to_string(tree_bytes) + " bytes, but only " +
               std::to_string(bytes.size()) + " follow");
  }
  if (tree_bytes == 0 || tree_bytes % (kBlockUnits * kUnitBytes) != 0) {
    return bad("the size of the map's tree, " + std::to_string(tree_bytes) +
               " bytes, is not a multiple of 1024");
  }
  Charsmap map;
  map.units_.reserve(tree_bytes / kUnitBytes);
  for (size_t at = 0; at < tree_bytes; at += kUnitBytes) {
    map.units_.push_back(read_unit(bytes.substr(at)));
  }
  map.replacements_ = bytes.substr(tree_bytes);
  if (map.replacements_.back() != '\0') return bad("the map does not end with a zero byte");
  if (const size_t at = find_invalid_utf8(map.replacements_); at != kValidUtf8) {
    return bad("the map's replacements are not UTF-8 at byte " + std::to_string(at));
  }
  AIRLLM_TRY_VOID(map.check_tree(where));
  return map;
}

// Whatever byte follows, a step from a node stays in the block to which its offset leads: so it is
// enough that this block is there.
Status Charsmap::check_tree(const std::string& where) const {
  const auto bad = [&](size_t unit, const std::string& why) {
    return Unexpected(ErrorCode::kData,
                      where + ": unit " + std::to_string(unit) + " of the map's tree " + why,
                      "get the file again; it is damaged");
  };
  const uint32_t root = units_[0];
  if (label_of(root) != 0 || has_value(root) || offset_of(root) == 0) return bad(0, "is no root");
  for (size_t i = 0; i < units_.size(); ++i) {
    const uint32_t unit = units_[i];
    if (is_value(unit)) {
      const size_t at = value_of(unit);
      if (at >= replacements_.size()) return bad(i, "leads out of the replacements");
      if ((static_cast<unsigned char>(replacements_[at]) & 0xC0U) == 0x80U) {
        return bad(i, "leads into the middle of a character");
      }
      continue;
    }
    const size_t child = i ^ offset_of(unit);
    if ((child | (kBlockUnits - 1)) >= units_.size()) return bad(i, "leads out of the tree");
    if (has_value(unit) && !is_value(units_[child])) return bad(i, "has no value where it says so");
  }
  return {};
}

std::string_view Charsmap::replacement(uint32_t offset) const {
  // from_bytes() has seen to a zero byte behind it.
  return {replacements_.data() + offset, replacements_.find('\0', offset) - offset};
}

// Calls found(length, offset of the replacement) until it returns false.
template <typename Found>
void Charsmap::for_each_prefix(std::string_view text, Found found) const {
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) return;
    node ^= offset_of(unit);
    if (has_value(unit) && !found(i + 1, value_of(units_[node]))) return;
  }
}

std::optional<Charsmap::Match> Charsmap::longest(std::string_view text) const {
  size_t length = 0;
  uint32_t offset = 0;
  int count = 0;
  for_each_prefix(text, [&](size_t match, uint32_t value) {
    length = match;
    offset = value;
    return ++count < kMaxMatches;
  });
  if (length == 0) return std::nullopt;
  return Match{length, replacement(offset)};
}

std::optional<Charsmap::Match> Charsmap::shortest(std::string_view text) const {
  std::optional<Match> match;
  for_each_prefix(text.substr(0, text.find('\0')), [&](size_t length, uint32_t value) {
    match = Match{length, replacement(value)};
    return false;
  });
  return match;
}

}  // namespace airllm::tokenizer
