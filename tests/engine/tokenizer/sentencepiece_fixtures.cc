#include "tests/engine/tokenizer/sentencepiece_fixtures.h"

#include <gtest/gtest.h>

#include "tests/engine/tokenizer/fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_writer.h"

namespace airllm::tokenizer {
std::string sentencepiece_fixture(const std::string& name) {
  const auto bytes = read_text(
      std::string(AIRLLM_SOURCE_DIR "/tests/engine/tokenizer/fixtures/sentencepiece/") + name);
  EXPECT_TRUE(bytes.has_value()) << name;
  return bytes.value_or("");
}

std::string sentencepiece_variant(const Json& variant) {
  std::string bytes = sentencepiece_fixture(variant["base"].get<std::string>() + ".model");
  if (variant["nmt_nfkc"].get<bool>()) {
    bytes += bytes_field(3, bytes_field(2, sentencepiece_fixture("nmt_nfkc.charsmap")));
  }
  for (const Json& byte : variant["behind"]) bytes += static_cast<char>(byte.get<unsigned char>());
  return bytes;
}

}  // namespace airllm::tokenizer
