#include "engine/tokenizer/regex.h"

#include <oniguruma.h>

#include <array>
#include <mutex>
#include <optional>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/regex/matcher.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxExpressionBytes = 64 << 10;

void initialise_oniguruma() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    // The default of 4096 levels can overflow the stack of a thread of 256 KiB.
    onig_set_parse_depth_limit(512);
  });
}

std::string onig_message(int code, OnigErrorInfo* info) {
  std::array<OnigUChar, ONIG_MAX_ERROR_MESSAGE_LEN> buffer{};
  const int length = info == nullptr ? onig_error_code_to_str(buffer.data(), code)
                                     : onig_error_code_to_str(buffer.data(), code, info);
  return escape_for_display(
      {reinterpret_cast<const char*>(buffer.data()), static_cast<size_t>(std::max(length, 0))},
      true);
}

const OnigUChar* bytes(std::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}

size_t character_length(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

struct RegionDeleter {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

}  // namespace

void Pattern::Deleter::operator()(re_pattern_buffer* regex) const { onig_free(regex); }

Result<Pattern> Pattern::regex(std::string_view expression, const std::string& where) {
  if (expression.size() > kMaxExpressionBytes) {
    return Unexpected(ErrorCode::kData,
                      where + ": the regular expression has " + std::to_string(expression.size()) +
                          " bytes; the limit is " + std::to_string(kMaxExpressionBytes));
  }
  Pattern pattern;
  pattern.where_ = where;
  if (auto program = regex::compile(expression)) {
    pattern.program_ = std::make_shared<const regex::Program>(std::move(*program));
    return pattern;
  }
  initialise_oniguruma();
  OnigRegex compiled = nullptr;
  OnigErrorInfo info{};
  const int code = onig_new(&compiled, bytes(expression), bytes(expression) + expression.size(),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    return Unexpected(ErrorCode::kData, where + ": the regular expression '" +
                                            escape_for_display(expression.substr(0, 200), true) +
                                            "' is wrong: " + onig_message(code, &info));
  }
  pattern.regex_.reset(compiled);
  return pattern;
}

Result<Pattern> Pattern::literal(std::string_view text, const std::string& where) {
  if (text.empty()) return Unexpected(ErrorCode::kData, where + ": the pattern is empty");
  Pattern pattern;
  pattern.where_ = where;
  pattern.literal_ = text;
  return pattern;
}

Result<Pattern> Pattern::from_json(const Json& json, const std::string& where) {
  if (json.is_object() && json.size() == 1 && json.begin().value().is_string()) {
    const auto& text = json.begin().value().get_ref<const std::string&>();
    if (json.begin().key() == "String") return literal(text, where);
    if (json.begin().key() == "Regex") return regex(text, where);
  }
  return Unexpected(ErrorCode::kData,
                    where + R"(: "pattern" is neither {"String": …} nor {"Regex": …})");
}

Result<std::vector<Range>> Pattern::find_all(std::string_view text) const {
  if (text.size() >= UINT32_MAX) {
    return Unexpected(ErrorCode::kData, where_ + ": the text is longer than 4 GiB",
                      "give a shorter text");
  }
  std::vector<Range> matches;
  if (program_ != nullptr) {
    AIRLLM_TRY_VOID(find_program(text, matches));
    return matches;
  }
  if (regex_ != nullptr) {
    AIRLLM_TRY_VOID(find_oniguruma(text, matches));
    return matches;
  }
  for (size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, at + literal_.size())) {
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal_.size())});
  }
  return matches;
}

// `search` gives the first match from a position on, if there is one.
template <typename Search>
Status Pattern::collect(std::string_view text, Search search, std::vector<Range>& matches) const {
  size_t from = 0;
  std::optional<size_t> last_match_end;
  while (from <= text.size()) {
    AIRLLM_TRY(const std::optional<Range> match, search(from));
    if (!match.has_value()) break;
    if (match->begin == match->end && last_match_end == match->end) {
      from += from < text.size() ? character_length(text, from) : 1;
      continue;
    }
    from = match->end;
    last_match_end = match->end;
    matches.push_back(*match);
  }
  return {};
}

Status Pattern::find_program(std::string_view text, std::vector<Range>& matches) const {
  regex::Matcher matcher(*program_, text);
  const auto search = [&](size_t from) -> Result<std::optional<Range>> {
    const auto match = matcher.find(from);
    if (matcher.out_of_steps()) {
      return Unexpected(ErrorCode::kData,
                        where_ + ": the regular expression takes too many steps on this text",
                        "give a shorter text");
    }
    if (!match) return std::optional<Range>();
    return std::optional<Range>(
        {static_cast<uint32_t>(match->begin), static_cast<uint32_t>(match->end)});
  };
  return collect(text, search, matches);
}

Status Pattern::find_oniguruma(std::string_view text, std::vector<Range>& matches) const {
  const std::unique_ptr<OnigRegion, RegionDeleter> region(onig_region_new());
  const OnigUChar* const begin = bytes(text);
  const OnigUChar* const end = begin + text.size();
  const auto search = [&](size_t from) -> Result<std::optional<Range>> {
    onig_region_clear(region.get());
    const int found =
        onig_search(regex_.get(), begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE);
    if (found == ONIG_MISMATCH) return std::optional<Range>();
    if (found < 0) {
      return Unexpected(ErrorCode::kData,
                        where_ + ": the regular expression fails on this text at byte " +
                            std::to_string(from) + ": " + onig_message(found, nullptr),
                        "give a shorter text");
    }
    return std::optional<Range>(
        {static_cast<uint32_t>(region->beg[0]), static_cast<uint32_t>(region->end[0])});
  };
  return collect(text, search, matches);
}

}  // namespace airllm::tokenizer
