// Files of the fixtures, and the checks by which tools/tokenizer_fixtures/generate.py records
// what the reference answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

std::optional<std::string> read_text(const std::string& path);
// Below tests/engine/tokenizer/fixtures; fails the test when it is missing.
Json read_fixture(const std::string& name);
std::vector<std::string> corpus();

std::string base64(std::string_view bytes);

// Fails the test with the message when `json` is not accepted.
std::unique_ptr<Tokenizer> make_tokenizer(const Json& json);
std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text,
                            bool add_special = true);

// FNV-1a over lengths and numbers, as generate.py's check_of().
class Check {
 public:
  void add(const std::vector<int32_t>& ids);
  void add(std::string_view bytes);
  std::string text() const;  // folded to 24 bits, as four characters

 private:
  void mix(uint64_t number) { value_ = (value_ ^ number) * 0x100000001b3U; }
  uint64_t value_ = 0xcbf29ce484222325U;
};

// Decodes `ids` by a stream, token by token.
std::string stream_text(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                        bool skip_special);

// Fails the test where the tokenizer differs from what generate.py's record() wrote of the
// reference: its checks() of the corpus, and all answers to the texts written by hand and to lists
// of ids.
void expect_checks(const Tokenizer& tokenizer, const Json& expected, const std::string& name);
void expect_answers(const Tokenizer& tokenizer, const Json& expected);

}  // namespace airllm::tokenizer
