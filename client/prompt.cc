#include "client/prompt.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "base/utf8.h"
#include "client/args.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

// Waits for stdin or a signal.
Status wait_for_stdin() {
  std::array<pollfd, 2> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{signal_wake_fd(), POLLIN, 0}};
  while (poll(waits.data(), waits.size(), -1) < 0) {
    if (errno != EINTR) return Unexpected(errno_error("cannot wait for standard input", errno));
  }
  if (waits[1].revents != 0) return Unexpected(ErrorCode::kCancelled, "cancelled");
  return {};
}

std::string_view without_last_newline(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

std::string_view without_newlines_at_end(std::string_view text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::string_view kBlanksAndComma = " \t\r\n,";

}  // namespace

std::string_view without_blanks_around(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

bool stdin_is_terminal() { return isatty(STDIN_FILENO) == 1; }

Result<std::string> read_stdin(const std::string& remedy) {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    AIRLLM_TRY_VOID(wait_for_stdin());
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return Unexpected(errno_error("cannot read standard input", errno, remedy));
    }
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > kMaxPromptBytes) {
      return Unexpected(ErrorCode::kUsage,
                        "standard input has more than " + std::to_string(kMaxPromptBytes) +
                            " bytes, the most that a prompt may have",
                        "give a part of it");
    }
  }
}

Status check_length(std::string_view text, const std::string& what) {
  if (text.size() <= kMaxPromptBytes) return {};
  return Unexpected(ErrorCode::kUsage, what + " has " + std::to_string(text.size()) +
                                           " bytes; at most " + std::to_string(kMaxPromptBytes) +
                                           " are possible");
}

std::string join_words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    if (&word != words.data()) text += ' ';
    text += word;
  }
  return text;
}

Result<std::optional<std::string>> words_or_stdin(const std::vector<std::string>& words) {
  if (words.empty()) {
    if (stdin_is_terminal()) return std::optional<std::string>();
    AIRLLM_TRY(std::string text, read_stdin());
    return std::optional<std::string>(std::move(text));
  }
  std::string text = join_words(words);
  AIRLLM_TRY_VOID(with_remedy(check_length(text, "the text"), "give a part of it"));
  return std::optional<std::string>(std::move(text));
}

namespace {

Unexpected not_text(std::string_view what, const char* why, size_t offset) {
  return Unexpected(
      ErrorCode::kData,
      std::string(what) + " is not text: " + why + " at byte offset " + std::to_string(offset),
      "convert it first, for example with iconv(1)");
}

}  // namespace

Status check_utf8(std::string_view text, std::string_view what) {
  const size_t invalid = find_invalid_utf8(text);
  return invalid == kValidUtf8 ? Status() : not_text(what, "not UTF-8", invalid);
}

Status check_text(std::string_view text, std::string_view what) {
  const size_t nul = text.find('\0');
  AIRLLM_TRY_VOID(check_utf8(text.substr(0, nul), what));
  return nul == std::string_view::npos ? Status() : not_text(what, "a NUL byte", nul);
}

std::string join_prompt(std::string_view stdin_text, std::string_view question, bool exact) {
  const std::string_view document = without_newlines_at_end(stdin_text);
  if (document.empty() && (!question.empty() || !exact)) return std::string(question);
  if (question.empty()) {
    return std::string(exact ? stdin_text : without_last_newline(stdin_text));
  }
  return std::string(document) + "\n\n" + std::string(question);
}

Result<std::vector<int32_t>> parse_token_ids(std::string_view text, const std::string& what) {
  constexpr const char* kRemedy = "give whole numbers with commas between them, as in 1,2,3";
  std::vector<int32_t> ids;
  text = without_blanks_around(text);
  bool after_comma = false;
  while (!text.empty() || after_comma) {
    const size_t end = std::min(text.find_first_of(kBlanksAndComma), text.size());
    AIRLLM_TRY(const uint64_t id, with_remedy(parse_unsigned(text.substr(0, end), what), kRemedy));
    if (id > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      return Unexpected(ErrorCode::kUsage,
                        what + ": " + std::to_string(id) + " is no token id: too large",
                        "the ids of a model's vocabulary begin at 0");
    }
    ids.push_back(static_cast<int32_t>(id));
    text = without_blanks_around(text.substr(end));
    after_comma = text.starts_with(',');
    if (after_comma) text = without_blanks_around(text.substr(1));
  }
  return ids;
}

}  // namespace airllm::client
