// The hash of a file while it streams, whose state can be kept and taken up again: what was hashed
// is never read a second time, and may be gone.
#pragma once

#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

namespace airllm::fetch {

enum class HashKind : uint32_t {
  kSha256 = 1,   // of the bytes: what git LFS knows a file by
  kGitBlob = 2,  // sha1 of "blob SIZE\0" and the bytes: what git knows a file by
};

inline constexpr size_t kHashBlock = 64;

// Between two bytes of a file: the chaining value, and what does not fill a block yet.
struct HashState {
  std::array<uint32_t, 8> words{};  // sha1 has five
  std::array<uint8_t, kHashBlock> partial{};

  bool operator==(const HashState&) const = default;
};

// Not thread-safe. The functions of OpenSSL that keep their state in a plain struct: EVP's state
// cannot be taken out. They are the same code, and as fast.
class StreamHash {
 public:
  // `size_bytes` is that of the whole file, which a git blob's hash begins with.
  StreamHash(HashKind kind, uint64_t size_bytes);
  // Takes up the state that save() gave behind `prefix_bytes` bytes.
  StreamHash(HashKind kind, uint64_t size_bytes, uint64_t prefix_bytes, const HashState& state);

  void update(std::span<const std::byte> bytes);
  HashState save() const;
  // In hexadecimal digits, of what has come so far; update() may go on.
  std::string digest() const;

 private:
  std::variant<SHA256_CTX, SHA_CTX> context_;
};

}  // namespace airllm::fetch
