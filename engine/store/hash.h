// XXH3-64, the checksum of everything in the store. It finds damage; it is no defence against
// someone who forges a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace airllm::store {

uint64_t xxh3(std::span<const std::byte> data);
uint64_t xxh3(std::string_view text);

// The hash of pieces one after another; equals xxh3() of their concatenation.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void reset();
  void update(std::span<const std::byte> data);
  void update(std::string_view text);
  uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 16 lower-case hexadecimal digits, and back.
std::string hash_text(uint64_t hash);
std::optional<uint64_t> parse_hash(std::string_view text);

}  // namespace airllm::store
