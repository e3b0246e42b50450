// A token: kept in one place, and wiped when it is no longer needed.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace airllm::fetch {

// Overwrites the characters, and empties it.
inline void wipe(std::string& text) {
  ::explicit_bzero(text.data(), text.size());
  text.clear();
}

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}
  ~Secret() { wipe(text_); }
  Secret(Secret&& other) noexcept : text_(other.text_) { wipe(other.text_); }
  Secret& operator=(Secret&& other) noexcept {
    if (this == &other) return *this;
    wipe(text_);
    text_ = other.text_;
    wipe(other.text_);
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  bool empty() const { return text_.empty(); }
  // To be copied as little as can be.
  std::string_view reveal() const { return text_; }

 private:
  std::string text_;
};

// Whether it can be sent in a header: printable ASCII without blanks, at most 4096 bytes. A kUsage
// error does not show it.
inline Status check_token(std::string_view token) {
  constexpr size_t kMaxToken = 4096;
  bool fits = token.size() <= kMaxToken;
  for (const char c : token) fits = fits && c > ' ' && c < '\x7f';
  if (fits) return {};
  return Unexpected(ErrorCode::kUsage, "the token has characters that no token has",
                    "look at HF_TOKEN, or at the file that it came from");
}

}  // namespace airllm::fetch
