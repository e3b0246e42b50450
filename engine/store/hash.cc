#include "engine/store/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <fmt/format.h>

#include <charconv>

namespace airllm::store {

uint64_t xxh3(std::span<const std::byte> data) { return XXH3_64bits(data.data(), data.size()); }
uint64_t xxh3(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { reset(); }
Hasher::~Hasher() = default;

void Hasher::reset() { XXH3_64bits_reset(&state_->xxh); }
void Hasher::update(std::span<const std::byte> data) {
  XXH3_64bits_update(&state_->xxh, data.data(), data.size());
}
void Hasher::update(std::string_view text) {
  XXH3_64bits_update(&state_->xxh, text.data(), text.size());
}
uint64_t Hasher::digest() const { return XXH3_64bits_digest(&state_->xxh); }

std::string hash_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

std::optional<uint64_t> parse_hash(std::string_view text) {
  uint64_t value = 0;
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != text.npos) {
    return std::nullopt;
  }
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

}  // namespace airllm::store
