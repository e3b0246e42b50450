#include "engine/tokenizer/tiktoken.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/tokenizer/base64.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/components.h"
#include "engine/tokenizer/tokenizer_config.h"

namespace airllm::tokenizer {
namespace {

// Published files have tokens of up to 128 bytes. A token is looked up by all its parts, so that
// hostile ones must not be long.
constexpr size_t kMaxTokenBytes = 512;
constexpr size_t kMaxLineBytes = (kMaxTokenBytes + 2) / 3 * 4 + 12;  // base64, space, rank

// Qwen-1's, which is also that of Qwen 2 and 3.
constexpr const char* kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr int kQwenExtraTokens = 205;

std::optional<int64_t> parse_rank(std::string_view text) {
  int64_t rank = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rank);
  if (error != std::errc() || end != text.data() + text.size() || rank < 0) return std::nullopt;
  return rank;
}

// Adds the token of one line to the vocabulary; the error has no place.
Status add_line(std::string_view line, Vocabulary& vocabulary) {
  const auto wrong = [](const char* problem) { return Unexpected(ErrorCode::kData, problem); };
  if (line.size() > kMaxLineBytes) return wrong("a token of more than 512 bytes");
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return wrong("not a token in base64, a space and its rank");
  const auto bytes = decode_base64(line.substr(0, space));
  if (!bytes.has_value()) return wrong("the token is not in base64");
  if (bytes->empty()) return wrong("the token is empty");
  if (bytes->size() > kMaxTokenBytes) return wrong("a token of more than 512 bytes");
  const auto rank = parse_rank(line.substr(space + 1));
  if (!rank.has_value()) return wrong("the rank is not a whole number");
  std::string token;
  append_as_byte_level(token, *bytes);
  return vocabulary.add(token, *rank);
}

Status check_complete(const Vocabulary& vocabulary, const std::string& where) {
  for (size_t rank = 0; rank < vocabulary.id_limit(); ++rank) {
    if (vocabulary.text(static_cast<int32_t>(rank)).has_value()) continue;
    return Unexpected(ErrorCode::kData, where + ": no token has rank " + std::to_string(rank) +
                                            ", though there are higher ones");
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char bytes[] = {static_cast<char>(static_cast<unsigned char>(byte))};
    std::string token;
    append_as_byte_level(token, {bytes, 1});
    if (vocabulary.id(token).has_value()) continue;
    return Unexpected(ErrorCode::kData,
                      where + ": the byte " + std::to_string(byte) + " alone is not a token");
  }
  return {};
}

// Qwen-1's control tokens, from behind the last rank on, in the form of tokenizer.json. They are
// searched in normalised text: tokenization_qwen.py normalises first.
Json qwen_special_tokens(size_t first_id) {
  std::vector<std::string> names = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int i = 0; i < kQwenExtraTokens; ++i) {
    names.push_back("<|extra_" + std::to_string(i) + "|>");
  }
  Json tokens = Json::array();
  for (size_t i = 0; i < names.size(); ++i) {
    tokens.push_back(
        {{"content", names[i]}, {"id", first_id + i}, {"special", true}, {"normalized", true}});
  }
  return tokens;
}

Result<std::unique_ptr<Tokenizer>> qwen_tokenizer(Vocabulary vocabulary, const std::string& where) {
  const Json special = qwen_special_tokens(vocabulary.size());
  for (const Json& token : special) {
    const auto& name = token["content"].get_ref<const std::string&>();
    if (!vocabulary.id(name).has_value()) continue;
    return Unexpected(ErrorCode::kData, where + ": '" + name +
                                            "' is a token with a rank, but it is Qwen's own "
                                            "control token");
  }
  const Json pre_tokenizer = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", kQwenPattern}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  const Json decoder = {{"type", "ByteLevel"}};
  Components parts;
  AIRLLM_TRY(parts.model, Model::from_ranks(std::move(vocabulary), where));
  parts.normalizer = Normalizer::nfc();
  AIRLLM_TRY(parts.pre_tokenizer, PreTokenizer::from_json(pre_tokenizer, where));
  AIRLLM_TRY(parts.decoder, Decoder::from_json(&decoder, where));
  AIRLLM_TRY(parts.added, AddedTokens::from_json(&special, parts.model->vocabulary(),
                                                 parts.normalizer.get(), where));
  return assemble(std::move(parts));
}

}  // namespace

Result<Vocabulary> read_tiktoken_file(std::string_view text, std::string_view what) {
  const std::string where(what);
  Vocabulary vocabulary;
  size_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (Status added = add_line(line, vocabulary); !added) {
      return Unexpected(ErrorCode::kData,
                        where + ": line " + std::to_string(number) + ": " + added.error().message);
    }
  }
  if (number == 0) return Unexpected(ErrorCode::kData, where + ": there is nothing in it");
  AIRLLM_TRY_VOID(check_complete(vocabulary, where));
  vocabulary.shrink_to_fit();
  return vocabulary;
}

bool looks_like_tiktoken(std::string_view text) {
  Vocabulary vocabulary;
  const size_t end = text.substr(0, kMaxLineBytes + 1).find('\n');
  return end != std::string_view::npos && add_line(text.substr(0, end), vocabulary).has_value();
}

Result<std::unique_ptr<Tokenizer>> load_tiktoken(const TextFiles& files, std::string_view where) {
  const std::string folder(where);
  AIRLLM_TRY(const TokenizerConfig config, read_tokenizer_config(files, where));
  const std::string file = folder + ": the .tiktoken file";
  const std::string& name =
      config.tokenizer_class.empty() ? config.auto_class : config.tokenizer_class;
  if (name != "QWenTokenizer") {
    return Unexpected(
        ErrorCode::kData,
        file + " does not say how text is cut, and " +
            (name.empty() ? "tokenizer_config.json names no tokenizer class"
                          : "the tokenizer class '" + escape_for_display(name.substr(0, 80), true) +
                                "' is not known") +
            " (QWenTokenizer is)",
        "convert the tokenizer to tokenizer.json; prompts can be given as ids");
  }
  AIRLLM_TRY(Vocabulary vocabulary, read_tiktoken_file(*files.tiktoken, file));
  return qwen_tokenizer(std::move(vocabulary), file);
}

}  // namespace airllm::tokenizer
