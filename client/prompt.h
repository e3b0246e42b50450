// What users give as text: words of the command line, stdin, both; and token ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::client {

// A prompt longer than this does not fit a frame beside the request's other fields.
inline constexpr size_t kMaxPromptBytes = (size_t{16} << 20) - (size_t{64} << 10);

// All of stdin, up to its end. kUsage when it is longer than kMaxPromptBytes, kCancelled after a
// signal; `remedy` is for one that cannot be read.
Result<std::string> read_stdin(const std::string& remedy = {});
bool stdin_is_terminal();

// `text` without the blanks and newlines around it.
std::string_view without_blanks_around(std::string_view text);

// kUsage when the text is longer than kMaxPromptBytes; `what` names it in the message.
Status check_length(std::string_view text, const std::string& what);

// The words of a command line as one text, a space between them.
std::string join_words(const std::vector<std::string>& words);
// The words, else all of stdin as it is, its last newline too. Nothing when there is neither: no
// word, and stdin is a terminal. kUsage when it is longer than kMaxPromptBytes.
Result<std::optional<std::string>> words_or_stdin(const std::vector<std::string>& words);

// kData with the byte offset when `text` is not UTF-8; `what` names it in the message.
Status check_utf8(std::string_view text, std::string_view what);
// kData with the byte offset when `text` is not UTF-8 or has a NUL; `what` names it in the message.
Status check_text(std::string_view text, std::string_view what);

// stdin (its trailing newlines removed), a blank line, the question; or the one that is not empty.
// Alone, stdin loses one newline at its end; with `exact` (--raw) it loses none.
std::string join_prompt(std::string_view stdin_text, std::string_view question, bool exact);

// "1,2,3" or "1 2 3" as ids; none of a text that is empty. kUsage, with `what`, for another
// character, an empty place between commas, or a number above 2^31 - 1.
Result<std::vector<int32_t>> parse_token_ids(std::string_view text, const std::string& what);

}  // namespace airllm::client
