// The prompt of `airllm ask`: words of the command line, stdin, both, or token ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::client {

// A prompt longer than this does not fit a frame beside the request's other fields.
inline constexpr size_t kMaxPromptBytes = (size_t{16} << 20) - (size_t{64} << 10);

// All of stdin, up to its end. kUsage when it is longer than kMaxPromptBytes, kCancelled after a
// signal.
Result<std::string> read_stdin();
bool stdin_is_terminal();

// kData with the byte offset when `text` is not UTF-8 or has a NUL; `what` names it in the message.
Status check_text(std::string_view text, std::string_view what);

// stdin (its trailing newlines removed), a blank line, the question; or the one that is not empty.
// Alone, stdin loses one newline at its end; with `exact` (--raw) it loses none.
std::string join_prompt(std::string_view stdin_text, std::string_view question, bool exact);

// "1,2,3" as ids. kUsage for an empty list, another character, or a number above 2^31 - 1.
Result<std::vector<int32_t>> parse_prompt_ids(std::string_view text);

}  // namespace airllm::client
