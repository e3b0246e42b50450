// The "normalizer" of tokenizer.json: rewrites text before it is cut into words.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/text/marked_text.h"

namespace airllm::tokenizer {

// kData for more than 1 GiB: positions are 32 bits wide.
Status check_normalized_size(size_t bytes);

// Immutable; safe to share between threads.
class Normalizer {
 public:
  // Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Nmt, ByteLevel,
  // BertNormalizer, Precompiled and Sequence; another type is a kData error that names it. `where`
  // names the component.
  static Result<std::unique_ptr<Normalizer>> from_json(const Json& json, const std::string& where);
  // NFC by the Unicode version of the system's library (15 in Debian 12), not of tokenizer.json.
  static std::unique_ptr<Normalizer> nfc();
  // Each of them, from the first to the last.
  static std::unique_ptr<Normalizer> in_sequence(std::vector<std::unique_ptr<Normalizer>> steps);
  virtual ~Normalizer() = default;

  // New text stems from what it replaces, and from kUserOrigin where that was mixed.
  virtual Result<text::MarkedText> apply(text::MarkedText text) const = 0;
};

}  // namespace airllm::tokenizer
