#include "fetch/stream_hash.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <random>
#include <vector>

namespace airllm::fetch {
namespace {

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::vector<std::byte> out(size);
  for (std::byte& byte : out) byte = static_cast<std::byte>(random());
  return out;
}

std::string by_evp(const EVP_MD* kind, const std::string& front, std::span<const std::byte> bytes) {
  std::string all = front + std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_Digest(all.data(), all.size(), digest.data(), &size, kind, nullptr);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    std::array<char, 3> text{};
    std::snprintf(text.data(), text.size(), "%02x", digest[i]);
    out += text.data();
  }
  return out;
}

std::string expected(HashKind kind, std::span<const std::byte> bytes) {
  if (kind == HashKind::kSha256) return by_evp(EVP_sha256(), "", bytes);
  return by_evp(EVP_sha1(), "blob " + std::to_string(bytes.size()) + std::string(1, '\0'), bytes);
}

class StreamHashes : public ::testing::TestWithParam<HashKind> {};

TEST_P(StreamHashes, AreThoseOfOpenssl) {
  for (const size_t size : {0, 1, 55, 56, 63, 64, 65, 127, 128, 1000, 65536, 100003}) {
    const auto bytes = random_bytes(size);
    StreamHash hash(GetParam(), size);
    hash.update(bytes);
    EXPECT_EQ(hash.digest(), expected(GetParam(), bytes)) << size;
  }
}

TEST_P(StreamHashes, GoOnFromAnyState) {
  const auto bytes = random_bytes(300);
  const std::span all(bytes);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    StreamHash first(GetParam(), bytes.size());
    first.update(all.first(cut));
    const HashState state = first.save();
    StreamHash second(GetParam(), bytes.size(), cut, state);
    EXPECT_EQ(second.save(), state) << cut;
    second.update(all.subspan(cut));
    EXPECT_EQ(second.digest(), expected(GetParam(), bytes)) << cut;
  }
}

// The count of bits goes over both of its words.
TEST_P(StreamHashes, GoOnBehindManyGigabytes) {
  const std::vector<std::byte> block(1 << 20);
  const uint64_t size = uint64_t{3} << 30;
  StreamHash straight(GetParam(), size);
  HashState state;
  uint64_t at = 0;
  for (; at < (uint64_t{1} << 29) + (1 << 20); at += block.size()) {
    straight.update(block);
    state = straight.save();
  }
  StreamHash resumed(GetParam(), size, at, state);
  straight.update(block);
  resumed.update(block);
  EXPECT_EQ(resumed.digest(), straight.digest());
}

TEST_P(StreamHashes, ADigestChangesNothing) {
  const auto bytes = random_bytes(100);
  StreamHash hash(GetParam(), bytes.size());
  hash.update(std::span(bytes).first(50));
  (void)hash.digest();
  hash.update(std::span(bytes).subspan(50));
  EXPECT_EQ(hash.digest(), expected(GetParam(), bytes));
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamHashes,
                         ::testing::Values(HashKind::kSha256, HashKind::kGitBlob),
                         [](const auto& test) {
                           return test.param == HashKind::kSha256 ? "sha256" : "git";
                         });

}  // namespace
}  // namespace airllm::fetch
