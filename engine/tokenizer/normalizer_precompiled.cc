#include "engine/tokenizer/normalizer_precompiled.h"

#include <optional>
#include <string>
#include <utility>

#include "engine/text/graphemes.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/base64.h"
#include "engine/tokenizer/charsmap.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxClusterBytes = 5;

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}

  Result<text::MarkedText> apply(text::MarkedText text) const override {
    const std::string_view bytes(text.text());
    text::MarkedText result;
    for (size_t at = 0; at < bytes.size();) {
      const size_t end = text::grapheme_end(bytes, at);
      append_cluster(text, at, end, result);
      AIRLLM_TRY_VOID(check_normalized_size(result.size()));
      at = end;
    }
    return result;
  }

 private:
  void append_cluster(const text::MarkedText& text, size_t begin, size_t end,
                      text::MarkedText& result) const {
    const std::string_view bytes(text.text());
    if (end - begin <= kMaxClusterBytes) {
      if (const auto match = map_.shortest(bytes.substr(begin, end - begin))) {
        result.append(match->text, text.origin_of(begin, end));
        return;
      }
    }
    while (begin < end) {
      size_t behind = begin;
      text::next_code_point(bytes, behind);
      const std::string_view character = bytes.substr(begin, behind - begin);
      const auto match = map_.shortest(character);
      result.append(match ? match->text : character, text.origin_at(begin));
      begin = behind;
    }
  }

  Charsmap map_;
};

}  // namespace

Result<std::unique_ptr<Normalizer>> precompiled_normalizer(const Fields& fields) {
  AIRLLM_TRY(const std::string text, fields.string("precompiled_charsmap"));
  const std::optional<std::string> bytes = decode_base64(text);
  if (!bytes) return fields.wrong("precompiled_charsmap", "base64");
  AIRLLM_TRY(Charsmap map, Charsmap::from_bytes(*bytes, fields.where() + ": precompiled_charsmap"));
  return std::unique_ptr<Normalizer>(new Precompiled(std::move(map)));
}

}  // namespace airllm::tokenizer
