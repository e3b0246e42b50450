#include "engine/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "engine/jinja/strings.h"
#include "engine/text/unicode.h"

namespace airllm::jinja {
namespace {

bool is_name_begin(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string with_unix_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
    } else {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view what)
      : source_(with_unix_newlines(source)), what_(what) {}

  Result<std::vector<Token>> run() {
    while (true) {
      const size_t open = find_open();
      emit_text(open);
      if (open == source_.size()) break;
      AIRLLM_TRY_VOID(tag());
    }
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  void advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + count),
                                         '\n'));
    at_ += count;
  }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  Unexpected error(std::string_view problem) const { return template_error(what_, line_, problem); }

  size_t find_open() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] != '{') continue;
      const char second = source_[i + 1];
      if (second == '{' || second == '%' || second == '#') return i;
    }
    return source_.size();
  }

  // The text up to the tag at `open`, cut as that tag wants. What the tag before wants has been
  // skipped already.
  void emit_text(size_t open) {
    std::string text = source_.substr(at_, open - at_);
    if (open < source_.size()) {
      const char kind = source_[open + 1];
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (sign == '-') {
        text.erase(text.size() - spaces_at_end(text));
      } else if (kind != '{' && sign != '+') {
        const size_t line_begin = text.rfind('\n') + 1;  // 0 when there is no newline
        const bool begins_line = line_begin > 0 || line_starts_;
        if (begins_line &&
            spaces_at_begin(std::string_view(text).substr(line_begin)) + line_begin ==
                text.size()) {
          text.erase(line_begin);
        }
      }
    }
    if (!text.empty()) add(TokenKind::kText, text);
    advance(open - at_);
  }

  Status tag() {
    const char kind = peek(1);
    if (kind == '%') {
      if (const size_t length = raw_tag("raw", false); length != 0) return raw(length);
    }
    advance(2);
    if (peek() == '-' || peek() == '+') advance(1);
    if (kind == '#') return comment();
    const bool is_output = kind == '{';
    add(is_output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    brackets_.clear();
    while (!at_end_of_tag(is_output)) {
      if (at_ >= source_.size()) return error("a tag is not closed");
      AIRLLM_TRY_VOID(token());
    }
    add(is_output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
    close(2, !is_output);
    return {};
  }

  // The length of the tag of this name at the current place up to its closing "%}", or 0.
  size_t raw_tag(std::string_view name, bool may_end_with_plus) const {
    std::string_view text = rest();
    text.remove_prefix(2);
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    text.remove_prefix(spaces_at_begin(text));
    if (!text.starts_with(name)) return 0;
    text.remove_prefix(name.size());
    text.remove_prefix(spaces_at_begin(text));
    const bool is_signed = text.starts_with('-') || (may_end_with_plus && text.starts_with('+'));
    if (!text.substr(is_signed ? 1 : 0).starts_with("%}")) return 0;
    return rest().size() - text.size();
  }

  Status raw(size_t length) {
    const int line = line_;
    advance(length);
    if (peek() == '-') {
      close(2, false);
    } else {
      advance(2);
      line_starts_ = false;
    }
    const size_t begin = at_;
    for (size_t open = source_.find("{%", begin); open != std::string::npos;
         open = source_.find("{%", open + 1)) {
      at_ = open;
      const size_t end = raw_tag("endraw", true);
      at_ = begin;
      if (end == 0) continue;
      emit_text(open);
      advance(end);
      close(2, true);
      return {};
    }
    return template_error(what_, line, "a raw block is not closed");
  }

  bool at_end_of_tag(bool is_output) const {
    if (!brackets_.empty()) return false;
    const std::string_view end = is_output ? "}}" : "%}";
    if (rest().starts_with(end)) return true;
    const bool signed_end = peek() == '-' || (peek() == '+' && !is_output);
    return signed_end && rest().substr(1).starts_with(end);
  }

  Status comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return error("a comment is not closed");
    size_t stop = end;
    if (end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+')) --stop;
    advance(stop - at_);
    close(2, true);
    return {};
  }

  // Skips the end of a tag and the white space behind it that the tag takes.
  void close(size_t length, bool trims_newline) {
    const char sign = peek();
    if (sign == '-' || sign == '+') ++length;
    advance(length);
    line_starts_ = false;
    size_t skipped = 0;
    if (sign == '-') {
      skipped = spaces_at_begin(rest());
    } else if (trims_newline && sign != '+' && peek() == '\n') {
      skipped = 1;
    }
    line_starts_ = skipped > 0 && source_[at_ + skipped - 1] == '\n';
    advance(skipped);
  }

  Status token() {
    const char c = peek();
    if (const size_t spaces = spaces_at_begin(rest()); spaces != 0) {
      advance(spaces);
      return {};
    }
    if (is_name_begin(c)) {
      size_t length = 1;
      while (is_name_begin(peek(length)) || is_digit(peek(length))) ++length;
      add(TokenKind::kName, std::string(rest().substr(0, length)));
      advance(length);
      return {};
    }
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string();
    return op();
  }

  // Digits of the base, which single underscores may separate; how many bytes from `at`.
  template <typename IsDigit>
  size_t digits(size_t at, IsDigit is_digit_of_base) const {
    size_t end = at;
    while (is_digit_of_base(peek(end)) ||
           (peek(end) == '_' && end > at && is_digit_of_base(peek(end + 1)))) {
      ++end;
    }
    return end - at;
  }

  // The length of a number in another base, such as 0x1f; 0 when there is none.
  size_t based_number() const {
    const auto is_hex = [](char c) { return hex_value(c) >= 0; };
    const char kind = static_cast<char>(peek(1) | 0x20);
    const size_t at = peek(2) == '_' ? 3 : 2;
    size_t length = 0;
    if (peek() != '0') return 0;
    if (kind == 'x') length = digits(at, is_hex);
    if (kind == 'o') length = digits(at, [](char c) { return c >= '0' && c <= '7'; });
    if (kind == 'b') length = digits(at, [](char c) { return c == '0' || c == '1'; });
    return length == 0 ? 0 : at + length;
  }

  Status number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    size_t length = digits(0, is_digit);
    const size_t fraction = peek(length) == '.' ? digits(length + 1, is_digit) : 0;
    const size_t mantissa = length + (fraction == 0 ? 0 : fraction + 1);
    size_t exponent = 0;
    if ((peek(mantissa) | 0x20) == 'e') {
      const size_t sign = peek(mantissa + 1) == '+' || peek(mantissa + 1) == '-' ? 1 : 0;
      exponent = digits(mantissa + 1 + sign, is_digit);
      if (exponent != 0) exponent += 1 + sign;
    }
    const bool is_float = !after_dot && (fraction != 0 || exponent != 0);
    if (is_float) {
      length = mantissa + exponent;
    } else if (const size_t based = based_number(); based != 0) {
      length = based;
    } else if (peek() == '0') {
      length = digits(0, [](char c) { return c == '0'; });  // 012 is 0 and 12, a syntax error
    }
    std::string text(rest().substr(0, length));
    std::erase(text, '_');
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    advance(length);
    return {};
  }

  Status string() {
    const char quote = peek();
    std::string value;
    size_t i = 1;
    for (; at_ + i < source_.size() && peek(i) != quote; ++i) {
      if (peek(i) != '\\') {
        value += peek(i);
        continue;
      }
      if (at_ + i + 1 >= source_.size()) break;
      AIRLLM_TRY_VOID(escape(i, value));
    }
    if (at_ + i >= source_.size()) return error("a string is not closed");
    add(TokenKind::kString, std::move(value));
    advance(i + 1);
    return {};
  }

  // Resolves the escape whose backslash is `i` bytes ahead; `i` moves to its last byte.
  Status escape(size_t& i, std::string& value) const {
    static constexpr std::string_view kNames = "ntrabfv\\'\"";
    static constexpr std::string_view kValues = "\n\t\r\a\b\f\v\\'\"";
    const char c = peek(++i);
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      value += kValues[known];
      return {};
    }
    if (c == '\n') return {};  // a line that goes on
    if (c >= '0' && c <= '7') {
      char32_t octal = static_cast<char32_t>(c - '0');
      for (int more = 0; more < 2 && peek(i + 1) >= '0' && peek(i + 1) <= '7'; ++more) {
        octal = octal * 8 + static_cast<char32_t>(peek(++i) - '0');
      }
      append_utf8(value, octal);
      return {};
    }
    if (c == 'N') return error("characters by name (\\N) are not supported");
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      // As in Python, the backslash of another escape stays.
      value += '\\';
      value += c;
      return {};
    }
    char32_t code_point = 0;
    for (size_t d = 0; d < digits; ++d) {
      const int digit = hex_value(peek(++i));
      if (digit < 0) return error("a string has an escape that is not complete");
      code_point = (code_point << 4) | static_cast<char32_t>(digit);
    }
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
      return error("a string has an escape that is no character");
    }
    append_utf8(value, code_point);
    return {};
  }

  Status op() {
    static constexpr std::array<std::string_view, 6> kTwo = {"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view two : kTwo) {
      if (!rest().starts_with(two)) continue;
      add(TokenKind::kOperator, std::string(two));
      advance(2);
      return {};
    }
    const char c = peek();
    if (std::string_view("+-*/%~<>=.,:;|()[]{}").find(c) == std::string_view::npos) {
      const size_t length = std::min<size_t>(rest().size(), 4);
      return error("unexpected '" + escape_for_display(rest().substr(0, length), true) + "'");
    }
    if (c == '(' || c == '[' || c == '{') brackets_ += c;
    if (c == ')' || c == ']' || c == '}') {
      const char open = c == ')' ? '(' : static_cast<char>(c - 2);
      if (brackets_.empty() || brackets_.back() != open) {
        return error(std::string("unexpected '") + c + "'");
      }
      brackets_.pop_back();
    }
    add(TokenKind::kOperator, std::string(1, c));
    advance(1);
    return {};
  }

  const std::string source_;
  const std::string what_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::string brackets_;  // open ones, within which "}}" closes no tag
  std::vector<Token> tokens_;
};

}  // namespace

Unexpected template_error(std::string_view what, int line, std::string_view problem) {
  return Unexpected(
      ErrorCode::kData,
      std::string(what) + ": line " + std::to_string(line) + ": " + std::string(problem),
      "use --raw to give the prompt without the model's chat template");
}

Result<std::vector<Token>> tokenize(std::string_view source, std::string_view what) {
  return Lexer(source, what).run();
}

}  // namespace airllm::jinja
