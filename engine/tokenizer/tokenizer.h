// Text to tokens and back, as tokenizer.json of Hugging Face tokenizers says. No I/O.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::tokenizer {

// A piece of a prompt and where it came from. In a user's text no added token is recognised, so
// that it cannot inject control; the pieces are otherwise encoded as one joined text.
struct TextPart {
  std::string text;
  bool from_user = false;
};

struct EncodeOptions {
  bool add_special = true;  // what the post-processor adds, such as BOS
};

// Immutable after construction; safe to share between threads.
class Tokenizer {
 public:
  // `what` names the file in messages. An unknown component is a kData error that names it.
  static Result<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json,
                                                      std::string_view what);
  virtual ~Tokenizer() = default;

  // Valid UTF-8 only (kData otherwise). Equal to the reference's ids.
  virtual Result<std::vector<int32_t>> encode(std::span<const TextPart> parts,
                                              const EncodeOptions& options) const = 0;
  // Special tokens are left out with `skip_special`. Ids out of range are left out.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special) const = 0;

  virtual size_t vocabulary_size() const = 0;  // one more than the largest id
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;
  // The token as its file writes it, such as "Ġthe" or "<0x0A>".
  virtual std::optional<std::string> token_text(int32_t id) const = 0;

  // Decodes token by token. Concatenating what push() and finish() return equals decode() of all.
  class Stream {
   public:
    virtual ~Stream() = default;
    // What is certain now: whole UTF-8 characters only, possibly nothing.
    virtual std::string push(int32_t id) = 0;
    // What is left at the end; half a character becomes U+FFFD, as in decode().
    virtual std::string finish() = 0;
  };
  // Borrows the tokenizer.
  virtual std::unique_ptr<Stream> stream(bool skip_special) const = 0;
};

}  // namespace airllm::tokenizer
