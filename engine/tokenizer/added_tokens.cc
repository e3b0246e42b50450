#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/fields.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxContentBytes = 4096;

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  size_t at = begin;
  if (begin > 0 && text::is_word(text::previous_code_point(text, at))) return false;
  at = end;
  return end == text.size() || !text::is_word(text::next_code_point(text, at));
}

// Down to `limit`, if `at` is above.
size_t skip_space_back(std::string_view text, size_t at, size_t limit) {
  while (at > limit) {
    size_t before = at;
    if (!text::is_space(text::previous_code_point(text, before))) break;
    at = before;
  }
  return at;
}

// Finds where white space ends, from places that only move on: each stretch is walked once, though
// many matches may lie in it.
class SpaceSkipper {
 public:
  explicit SpaceSkipper(std::string_view text) : text_(text) {}
  size_t end_from(size_t at) {
    if (at >= known_begin_ && at <= known_end_) return known_end_;
    known_begin_ = at;
    while (at < text_.size()) {
      size_t behind = at;
      if (!text::is_space(text::next_code_point(text_, behind))) break;
      at = behind;
    }
    return known_end_ = at;
  }

 private:
  std::string_view text_;
  size_t known_begin_ = 1, known_end_ = 0;  // white space in between; nothing at first
};

}  // namespace

Result<AddedToken> read_added_token(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  AddedToken token;
  AIRLLM_TRY(token.content, fields.string("content"));
  AIRLLM_TRY(token.special, fields.boolean_or("special", false));
  AIRLLM_TRY(token.single_word, fields.boolean_or("single_word", false));
  AIRLLM_TRY(token.lstrip, fields.boolean_or("lstrip", false));
  AIRLLM_TRY(token.rstrip, fields.boolean_or("rstrip", false));
  AIRLLM_TRY(token.normalized, fields.boolean_or("normalized", !token.special));
  if (token.content.size() > kMaxContentBytes) {
    return fields.wrong("content", "shorter than 4096 bytes");
  }
  return token;
}

Result<AddedTokens> AddedTokens::from_json(const Json* list, const Vocabulary& vocabulary,
                                           const Normalizer* normalizer, std::string_view what) {
  if (list == nullptr) return AddedTokens();
  const std::string where = std::string(what) + ": added_tokens";
  if (!list->is_array()) return Unexpected(ErrorCode::kData, where + " is not a list");
  std::vector<AddedToken> tokens;
  for (const Json& json : *list) {
    const std::string place = where + "[" + std::to_string(tokens.size()) + "]";
    AIRLLM_TRY(AddedToken token, read_added_token(json, place));
    AIRLLM_TRY(const int64_t id, Fields(json, place).integer("id", 0, kMaxTokenId));
    token.id = static_cast<int32_t>(id);
    if (token.content.empty()) continue;
    const auto known = vocabulary.id(token.content);
    if (known.has_value()) token.id = *known;
    if (!known.has_value() && vocabulary.text(token.id).has_value()) {
      return Unexpected(ErrorCode::kData, place + ": id " + std::to_string(token.id) +
                                              " belongs to another token of the vocabulary");
    }
    tokens.push_back(std::move(token));
  }
  return from_tokens(std::move(tokens), normalizer, where);
}

Result<AddedTokens> AddedTokens::from_tokens(std::vector<AddedToken> tokens,
                                             const Normalizer* normalizer, std::string_view what) {
  AddedTokens added;
  added.tokens_ = std::move(tokens);
  AIRLLM_TRY_VOID(added.index(std::string(what)));
  AIRLLM_TRY_VOID(added.build_matchers(normalizer));
  return added;
}

// No reallocation of the tokens from here: the maps borrow the contents.
Status AddedTokens::index(const std::string& where) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (!by_content_.emplace(token.content, i).second || !by_id_.emplace(token.id, i).second) {
      return Unexpected(ErrorCode::kData,
                        where + "[" + std::to_string(i) + "]: '" +
                            escape_for_display(token.content.substr(0, 80), true) +
                            "' has the content or the id of a token before it");
    }
    largest_id_ = std::max(largest_id_, token.id);
  }
  return {};
}

Status AddedTokens::build_matchers(const Normalizer* normalizer) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    token.text = token.content;
    if (token.normalized && normalizer != nullptr) {
      AIRLLM_TRY(const text::MarkedText content,
                 normalizer->apply(text::MarkedText(token.content, 0)));
      token.text = content.text();
    }
    if (!token.text.empty()) {
      (token.normalized ? normalized_ : raw_).patterns.push_back({token.text, i});
    }
  }
  for (Matcher* matcher : {&raw_, &normalized_}) {
    // Of equal patterns the first special one counts, else the first.
    std::stable_sort(matcher->patterns.begin(), matcher->patterns.end(),
                     [&](const Pattern& a, const Pattern& b) {
                       if (a.text != b.text) return a.text < b.text;
                       return tokens_[a.token].special && !tokens_[b.token].special;
                     });
    const auto same = [](const Pattern& a, const Pattern& b) { return a.text == b.text; };
    matcher->patterns.erase(std::unique(matcher->patterns.begin(), matcher->patterns.end(), same),
                            matcher->patterns.end());
    for (const Pattern& pattern : matcher->patterns) {
      matcher->first_bytes[static_cast<unsigned char>(pattern.text[0])] = true;
    }
  }
  return {};
}

// The longest pattern with which `text` begins.
AddedTokens::Match AddedTokens::longest_match(const Matcher& matcher, std::string_view text) {
  Match match;
  auto low = matcher.patterns.begin();
  auto high = matcher.patterns.end();
  for (size_t depth = 0; depth < text.size() && low != high; ++depth) {
    // Patterns that end here sort first; at depth 0 there are none.
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto byte_of = [depth](const Pattern& p) {
      return p.text.size() <= depth ? -1
                                    : static_cast<int>(static_cast<unsigned char>(p.text[depth]));
    };
    low = std::partition_point(low, high, [&](const Pattern& p) { return byte_of(p) < byte; });
    high = std::partition_point(low, high, [&](const Pattern& p) { return byte_of(p) <= byte; });
    if (low != high && low->text.size() == depth + 1) match = {depth + 1, low->token};
  }
  return match;
}

std::vector<AddedTokens::Section> AddedTokens::cut(const text::MarkedText& marked,
                                                   const Matcher& matcher) const {
  const std::string_view text(marked.text());
  std::vector<Section> sections;
  SpaceSkipper space(text);
  size_t done = 0;
  const auto take = [&](size_t begin, size_t end, const AddedToken& token) {
    if (token.single_word && !stands_alone(text, begin, end)) return;
    // White space that the match before has taken stays with it.
    if (token.lstrip) begin = std::max(skip_space_back(text, begin, done), done);
    if (token.rstrip) end = space.end_from(end);
    if (done < begin) sections.push_back({done, begin, -1});
    sections.push_back({begin, end, token.id});
    done = end;
  };
  size_t run_begin = 0;
  for (const text::MarkedText::Run& run : marked.runs()) {
    size_t at = run_begin;
    run_begin = run.end;
    if (run.origin == text::kUserOrigin || matcher.patterns.empty()) continue;
    while (at < run.end) {
      if (!matcher.first_bytes[static_cast<unsigned char>(text[at])]) {
        ++at;
        continue;
      }
      const Match match = longest_match(matcher, text.substr(at, run.end - at));
      if (match.length > 0) take(at, at + match.length, tokens_[match.token]);
      at += std::max<size_t>(match.length, 1);
    }
  }
  if (done < text.size()) sections.push_back({done, text.size(), -1});
  return sections;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

}  // namespace airllm::tokenizer
