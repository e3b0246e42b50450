// Small things that several files here do with text.
#pragma once

#include <string>
#include <string_view>

#include "base/utf8.h"

namespace airllm::fetch {

// ASCII letters in lower case, all else as it is: names of hosts and of header fields.
inline std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// What a server said, in quotes and short enough for a message.
inline std::string in_quotes(std::string_view text) {
  constexpr size_t kShown = 120;
  const std::string_view front = text.substr(0, kShown);
  return "'" + escape_for_display(front, true) + (front.size() < text.size() ? "…'" : "'");
}

}  // namespace airllm::fetch
