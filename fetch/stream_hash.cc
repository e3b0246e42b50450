// Before any header of OpenSSL: the functions that it calls deprecated are the ones meant here.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "fetch/stream_hash.h"

#include <algorithm>
#include <cstring>

#include "base/overloaded.h"

namespace airllm::fetch {
namespace {

std::string git_header(uint64_t size_bytes) { return "blob " + std::to_string(size_bytes) + '\0'; }

// Both contexts count bits in two words.
template <typename Context>
void set_length(Context& context, uint64_t bytes) {
  context.Nl = static_cast<SHA_LONG>(bytes << 3U);
  context.Nh = static_cast<SHA_LONG>(bytes >> 29U);
  context.num = static_cast<unsigned>(bytes % kHashBlock);
}

template <typename Digest>
std::string hex(const Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const unsigned char byte : digest) {
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

}  // namespace

StreamHash::StreamHash(HashKind kind, uint64_t size_bytes) {
  if (kind == HashKind::kSha256) {
    SHA256_Init(&context_.emplace<SHA256_CTX>());
    return;
  }
  auto& context = context_.emplace<SHA_CTX>();
  SHA1_Init(&context);
  const std::string header = git_header(size_bytes);
  SHA1_Update(&context, header.data(), header.size());
}

StreamHash::StreamHash(HashKind kind, uint64_t size_bytes, uint64_t prefix_bytes,
                       const HashState& state)
    : StreamHash(kind, size_bytes) {
  const auto& words = state.words;
  if (auto* sha256 = std::get_if<SHA256_CTX>(&context_)) {
    std::copy(words.begin(), words.end(), std::begin(sha256->h));
    set_length(*sha256, prefix_bytes);
    std::memcpy(sha256->data, state.partial.data(), kHashBlock);
    return;
  }
  auto& sha1 = std::get<SHA_CTX>(context_);
  sha1.h0 = words[0];
  sha1.h1 = words[1];
  sha1.h2 = words[2];
  sha1.h3 = words[3];
  sha1.h4 = words[4];
  set_length(sha1, git_header(size_bytes).size() + prefix_bytes);
  std::memcpy(sha1.data, state.partial.data(), kHashBlock);
}

void StreamHash::update(std::span<const std::byte> bytes) {
  std::visit(
      Overloaded{[&](SHA256_CTX& context) { SHA256_Update(&context, bytes.data(), bytes.size()); },
                 [&](SHA_CTX& context) { SHA1_Update(&context, bytes.data(), bytes.size()); }},
      context_);
}

HashState StreamHash::save() const {
  HashState state;
  // What lies behind the bytes of an unfinished block is left out: it says nothing.
  if (const auto* sha256 = std::get_if<SHA256_CTX>(&context_)) {
    std::copy(std::begin(sha256->h), std::end(sha256->h), state.words.begin());
    std::memcpy(state.partial.data(), sha256->data, sha256->num);
    return state;
  }
  const auto& sha1 = std::get<SHA_CTX>(context_);
  state.words = {sha1.h0, sha1.h1, sha1.h2, sha1.h3, sha1.h4, 0, 0, 0};
  std::memcpy(state.partial.data(), sha1.data, sha1.num);
  return state;
}

std::string StreamHash::digest() const {
  if (const auto* sha256 = std::get_if<SHA256_CTX>(&context_)) {
    SHA256_CTX copy = *sha256;
    std::array<unsigned char, SHA256_DIGEST_LENGTH> out{};
    SHA256_Final(out.data(), &copy);
    return hex(out);
  }
  SHA_CTX copy = std::get<SHA_CTX>(context_);
  std::array<unsigned char, SHA_DIGEST_LENGTH> out{};
  SHA1_Final(out.data(), &copy);
  return hex(out);
}

}  // namespace airllm::fetch
