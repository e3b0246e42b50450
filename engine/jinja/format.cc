// Python's % operator on strings and str.format.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Text = text::MarkedText;

struct Spec {
  Text fill = Text(" ", kTemplateOrigin);
  char align = '\0';  // < > ^ =
  char sign = '-';
  bool alternate = false;
  char group = '\0';
  size_t width = 0;
  int precision = -1;
  char type = '\0';
};

constexpr int64_t kMaxWidth = 1'000'000;
constexpr int kMaxPrecision = 1000;

Result<Text> padded(Evaluator& ev, const Text& text, const Spec& spec, char align) {
  const size_t size = character_count(text);
  const size_t missing = spec.width > size ? spec.width - size : 0;
  AIRLLM_TRY_VOID(ev.charge(missing * spec.fill.size() + text.size()));
  const size_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  Text result;
  for (size_t i = 0; i < left; ++i) result.append(spec.fill);
  result.append(text);
  for (size_t i = left; i < missing; ++i) result.append(spec.fill);
  return result;
}

// "+12" with its digits grouped and padded behind the sign where the spec says so.
Result<Text> placed(Evaluator& ev, const Spec& spec, const std::string& sign, std::string digits) {
  if (spec.group != '\0') {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    for (size_t at = whole; at > 3;) {
      at -= 3;
      digits.insert(at, 1, spec.group);
    }
  }
  if (spec.align == '=') {
    const size_t size = sign.size() + digits.size();
    const size_t missing = spec.width > size ? spec.width - size : 0;
    if (spec.group != '\0' && missing != 0 && spec.fill.text() == "0") {
      return ev.error("zeros and groups together are not supported in a format");
    }
    AIRLLM_TRY_VOID(ev.charge(missing));
    Text result(sign, kTemplateOrigin);
    for (size_t i = 0; i < missing; ++i) result.append(spec.fill);
    result.append(digits, kTemplateOrigin);
    return result;
  }
  return padded(ev, Text(sign + digits, kTemplateOrigin), spec,
                spec.align == '\0' ? '>' : spec.align);
}

std::string sign_of(bool negative, char wanted) {
  if (negative) return "-";
  return wanted == '+' ? "+" : wanted == ' ' ? " " : "";
}

std::string whole_digits(uint64_t size, char type, bool alternate) {
  switch (type) {
    case 'x': return (alternate ? "0x" : "") + fmt::format("{:x}", size);
    case 'X': return (alternate ? "0X" : "") + fmt::format("{:X}", size);
    case 'o': return (alternate ? "0o" : "") + fmt::format("{:o}", size);
    case 'b': return (alternate ? "0b" : "") + fmt::format("{:b}", size);
    default: return std::to_string(size);
  }
}

std::string real_digits(double size, char type, int precision, bool alternate) {
  const bool upper = type == 'E' || type == 'F' || type == 'G';
  std::string text;
  if (!std::isfinite(size)) {
    text = std::isnan(size) ? "nan" : "inf";
  } else {
    const char format[] = {'%',
                           alternate ? '#' : '.',
                           alternate ? '.' : '*',
                           alternate ? '*' : type,
                           alternate ? type : '\0',
                           '\0'};
    const int needed = std::snprintf(nullptr, 0, format, precision, size);
    text.resize(static_cast<size_t>(needed) + 1);
    std::snprintf(text.data(), text.size(), format, precision, size);
    text.pop_back();
  }
  if (upper)
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return text;
}

Result<Text> format_real(Evaluator& ev, double value, const Spec& spec) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::fabs(value);
  std::string digits;
  if (spec.type == '\0') {
    if (spec.precision < 0) {
      digits = print_real(size);
    } else {
      digits = real_digits(size, 'g', std::max(spec.precision, 1), false);
      const bool plain = digits.find_first_of(".en") == std::string::npos;
      if (plain && static_cast<int>(digits.size()) < std::max(spec.precision, 1))
        digits += ".0";
      else if (plain)
        return ev.error("this format of a number is not supported");
    }
  } else if (spec.type == '%') {
    digits =
        real_digits(size * 100, 'f', spec.precision < 0 ? 6 : spec.precision, spec.alternate) + "%";
  } else {
    digits = real_digits(size, spec.type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
  }
  return placed(ev, spec, sign_of(negative, spec.sign), digits);
}

class PercentFormatter {
 public:
  PercentFormatter(Evaluator& ev, const Text& format, const Value& arguments)
      : ev_(ev), format_(format), text_(format.text()), arguments_(arguments) {
    is_mapping_ = arguments.is_undefined() || arguments.as_dict() != nullptr ||
                  (arguments.as_list() != nullptr && !arguments.is_tuple()) ||
                  arguments.as<Items>() != nullptr;
  }

  Result<Text> run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      result_.append_range(format_, at_, percent);
      at_ = percent;
      if (at_ == text_.size()) break;
      AIRLLM_TRY_VOID(conversion());
    }
    const size_t given = arguments_.is_tuple() ? arguments_.as_list()->size() : 1;
    if (next_ < given && !is_mapping_)
      return ev_.error("not all arguments converted during string formatting");
    return std::move(result_);
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  Result<Value> argument() {
    if (keyed_) {
      keyed_ = false;
      return key_value_;
    }
    if (arguments_.is_tuple()) {
      if (next_ >= arguments_.as_list()->size())
        return ev_.error("not enough arguments for format string");
      return (*arguments_.as_list())[next_++];
    }
    if (next_++ != 0) return ev_.error("not enough arguments for format string");
    return arguments_;
  }

  Status key() {
    size_t depth = 1;
    const size_t begin = ++at_;
    while (at_ < text_.size() && depth != 0) {
      if (text_[at_] == '(') ++depth;
      if (text_[at_] == ')') --depth;
      ++at_;
    }
    if (depth != 0) return ev_.error("incomplete format key");
    if (arguments_.as_dict() == nullptr) return ev_.error("format requires a mapping");
    const Value* value =
        arguments_.as_dict()->find(std::string_view(text_).substr(begin, at_ - 1 - begin));
    if (value == nullptr) return ev_.error("a key of the format is missing");
    key_value_ = *value;
    keyed_ = true;
    return {};
  }

  Result<int64_t> number(int64_t limit) {
    int64_t value = 0;
    if (peek() == '*') {
      ++at_;
      AIRLLM_TRY(const Value given, argument());
      AIRLLM_TRY(value, integer_argument(ev_, given));
    } else {
      while (peek() >= '0' && peek() <= '9') {
        value = value * 10 + (text_[at_++] - '0');
        if (value > limit) break;
      }
    }
    if (value > limit || value < -limit) return ev_.error("a width or precision is too large");
    return value;
  }

  Status conversion() {
    const size_t begin = at_++;
    Spec spec;
    bool left = false;
    bool zeros = false;
    if (peek() == '(') AIRLLM_TRY_VOID(key());
    for (;; ++at_) {
      if (peek() == '-')
        left = true;
      else if (peek() == '0')
        zeros = true;
      else if (peek() == '+')
        spec.sign = '+';
      else if (peek() == ' ')
        spec.sign = spec.sign == '+' ? '+' : ' ';
      else if (peek() == '#')
        spec.alternate = true;
      else
        break;
    }
    AIRLLM_TRY(int64_t width, number(kMaxWidth));
    if (width < 0) left = true;
    spec.width = static_cast<size_t>(std::abs(width));
    if (peek() == '.') {
      ++at_;
      AIRLLM_TRY(const int64_t precision, number(kMaxPrecision));
      spec.precision = static_cast<int>(std::max<int64_t>(precision, 0));
    }
    if (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    const char type = peek();
    if (at_ >= text_.size()) return ev_.error("incomplete format");
    ++at_;
    if (type == '%') {
      result_.append("%", format_.origin_at(begin));
      return {};
    }
    if (std::string_view("diouxXeEfFgGcrsa").find(type) == std::string_view::npos) {
      return ev_.error("unsupported format character");
    }
    AIRLLM_TRY(const Value value, argument());
    spec.align = left ? '<' : '>';
    AIRLLM_TRY(const Text part, convert(value, type, spec, zeros && !left));
    AIRLLM_TRY_VOID(ev_.charge(part.size()));
    result_.append(part);
    return {};
  }

  Result<Text> convert(const Value& value, char type, Spec spec, bool zeros) {
    if (type == 's' || type == 'r' || type == 'a') {
      if (type == 'a') return ev_.error("the format %a is not supported");
      Text text;
      AIRLLM_TRY(text, type == 's' ? ev_.to_text(value) : ev_.repr(value));
      if (spec.precision >= 0) text = characters(text, 0, static_cast<size_t>(spec.precision));
      return padded(ev_, text, spec, spec.align);
    }
    if (type == 'c') {
      Text text;
      if (value.as_string() != nullptr) {
        text = *value.as_string();
      } else {
        AIRLLM_TRY(const int64_t code, integer_argument(ev_, value));
        if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
          return ev_.error("%c arg not in range");
        std::string bytes;
        append_utf8(bytes, static_cast<char32_t>(code));
        // Numbers do not tell who wrote them; a user's must not become a control token's.
        text.append(bytes, text::kUserOrigin);
      }
      if (character_count(text) != 1) return ev_.error("%c requires int or char");
      return padded(ev_, text, spec, spec.align);
    }
    if (!value.is_number() && value.as_boolean() == nullptr) {
      return ev_.error("a format needs a number, not " + value.type_name());
    }
    if (zeros) {
      spec.align = '=';
      spec.fill = Text("0", kTemplateOrigin);
    }
    if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      spec.type = type;
      return format_real(ev_, value.number(), spec);
    }
    int64_t whole = 0;
    if (const double* real = value.as_real()) {
      if (type != 'd' && type != 'i' && type != 'u')
        return ev_.error("a format needs a whole number");
      if (!(std::fabs(*real) < 9.2e18)) return ev_.error("a number is too large for its format");
      whole = static_cast<int64_t>(*real);
    } else {
      AIRLLM_TRY(whole, integer_argument(ev_, value));
    }
    const uint64_t size =
        whole < 0 ? 0 - static_cast<uint64_t>(whole) : static_cast<uint64_t>(whole);
    std::string digits = whole_digits(size, type, false);
    if (static_cast<int>(digits.size()) < spec.precision) {
      digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
    }
    std::string sign = sign_of(whole < 0, spec.sign);
    if (spec.alternate && (type == 'x' || type == 'X' || type == 'o'))
      sign += std::string("0") + type;
    return placed(ev_, spec, sign, digits);
  }

  Evaluator& ev_;
  const Text& format_;
  const std::string& text_;
  const Value& arguments_;
  bool is_mapping_ = false;
  Text result_;
  size_t at_ = 0;
  size_t next_ = 0;
  bool keyed_ = false;
  Value key_value_;
};

class BraceFormatter {
 public:
  BraceFormatter(Evaluator& ev, const Call& call) : ev_(ev), call_(call) {}

  Result<Text> run(const Text& format, int depth) {
    if (depth < 0) return ev_.error("a format is nested too deeply");
    const std::string& text = format.text();
    Text result;
    size_t at = 0;
    while (at < text.size()) {
      const size_t brace = std::min(text.find_first_of("{}", at), text.size());
      result.append_range(format, at, brace);
      if (brace == text.size()) break;
      at = brace + 1;
      if (at < text.size() && text[at] == text[brace]) {
        result.append_range(format, at, at + 1);
        ++at;
        continue;
      }
      if (text[brace] == '}') return ev_.error("Single '}' encountered in format string");
      size_t open = 1;
      const size_t begin = at;
      while (at < text.size() && open != 0) {
        if (text[at] == '{') ++open;
        if (text[at] == '}') --open;
        if (text[at] == '[' && open == 1 && text.find(']', at) != std::string::npos)
          at = text.find(']', at);
        ++at;
      }
      if (open != 0) return ev_.error("expected '}' before end of string");
      AIRLLM_TRY(const Text part, field(format.substr(begin, at - 1), depth));
      AIRLLM_TRY_VOID(ev_.charge(part.size()));
      result.append(part);
    }
    return result;
  }

 private:
  Result<Text> field(const Text& source, int depth) {
    const std::string& text = source.text();
    size_t end = 0;
    while (end < text.size() && text[end] != '!' && text[end] != ':') {
      if (text[end] == '{') return ev_.error("unexpected '{' in field name");
      end = text[end] == '[' && text.find(']', end) != std::string::npos ? text.find(']', end)
                                                                         : end + 1;
    }
    AIRLLM_TRY(Value value, lookup(text.substr(0, end)));
    if (end < text.size() && text[end] == '!') {
      if (end + 1 >= text.size() || (end + 2 < text.size() && text[end + 2] != ':'))
        return ev_.error("bad conversion in a format");
      const char how = text[end + 1];
      if (how != 's' && how != 'r')
        return ev_.error("this conversion is not supported in a format");
      Text converted;
      AIRLLM_TRY(converted, how == 's' ? ev_.to_text(value) : ev_.repr(value));
      value = Value::string(std::move(converted));
      end += 2;
    }
    Text spec;
    if (end < text.size()) {
      AIRLLM_TRY(spec, run(source.substr(end + 1, text.size()), depth - 1));
    }
    return apply(value, spec);
  }

  Result<Value> lookup(const std::string& name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    const std::string first = name.substr(0, at);
    Value value;
    const bool is_index = first.find_first_not_of("0123456789") == std::string::npos;
    if (is_index) {
      if (first.size() > 6) return ev_.error("a format's index is too large");
      if ((first.empty() && manual_) || (!first.empty() && next_ != 0)) {
        return ev_.error("cannot switch between manual and automatic field numbering");
      }
      manual_ = manual_ || !first.empty();
      const size_t index = first.empty() ? next_++ : static_cast<size_t>(std::atoi(first.c_str()));
      if (index >= call_.positional.size()) return ev_.error("a format's argument is missing");
      value = call_.positional[index];
    } else {
      const auto found =
          std::find_if(call_.keywords.begin(), call_.keywords.end(),
                       [&](const auto& keyword) { return keyword.name.text() == first; });
      if (found == call_.keywords.end())
        return ev_.error("the format's argument '" + first + "' is missing");
      value = found->value;
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", at + 1), name.size());
        if (stop == at + 1) return ev_.error("empty attribute in format string");
        AIRLLM_TRY(value, ev_.attribute(value, name.substr(at + 1, stop - at - 1)));
        at = stop;
        continue;
      }
      const size_t stop = name.find(']', at);
      if (name[at] != '[' || stop == std::string::npos || stop == at + 1)
        return ev_.error("bad field name in a format");
      const std::string key = name.substr(at + 1, stop - at - 1);
      const bool digits =
          key.find_first_not_of("0123456789") == std::string::npos && key.size() < 10;
      AIRLLM_TRY(value, ev_.item(value, digits ? Value::integer(std::atoi(key.c_str()))
                                               : Value::literal(key)));
      at = stop + 1;
    }
    return value;
  }

  Result<Spec> parse(const Text& source) {
    Spec spec;
    const std::string& text = source.text();
    size_t at = 0;
    size_t after = 0;
    if (!text.empty()) text::next_code_point(text, after);
    static constexpr std::string_view kAligns = "<>^=";
    const auto is_align = [&](size_t i) {
      return i < text.size() && kAligns.find(text[i]) != std::string_view::npos;
    };
    if (after != 0 && is_align(after)) {
      spec.fill = source.substr(0, after);
      spec.align = text[after];
      at = after + 1;
    } else if (is_align(0)) {
      spec.align = text[0];
      at = 1;
    }
    const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
    if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[at++];
    if (peek() == '#') {
      spec.alternate = true;
      ++at;
    }
    if (peek() == '0') {
      if (spec.align == '\0') {
        spec.align = '=';
        spec.fill = Text("0", kTemplateOrigin);
      }
      ++at;
    }
    const auto number = [&](int64_t limit) -> Result<int64_t> {
      int64_t value = 0;
      while (peek() >= '0' && peek() <= '9' && value <= limit)
        value = value * 10 + (text[at++] - '0');
      if (value > limit) return ev_.error("a width or precision is too large");
      return value;
    };
    AIRLLM_TRY(const int64_t width, number(kMaxWidth));
    spec.width = static_cast<size_t>(width);
    if (peek() == ',' || peek() == '_') spec.group = text[at++];
    if (peek() == '.') {
      ++at;
      if (peek() < '0' || peek() > '9') return ev_.error("Format specifier missing precision");
      AIRLLM_TRY(const int64_t precision, number(kMaxPrecision));
      spec.precision = static_cast<int>(precision);
    }
    if (at < text.size()) spec.type = text[at++];
    if (at != text.size()) return ev_.error("Invalid format specifier");
    return spec;
  }

  Result<Text> apply(const Value& value, const Text& source) {
    if (source.empty()) return ev_.to_text(value);
    AIRLLM_TRY(Spec spec, parse(source));
    if (const Text* text = value.as_string()) {
      if ((spec.type != '\0' && spec.type != 's') || spec.align == '=' || spec.sign != '-' ||
          spec.alternate || spec.group != '\0') {
        if (spec.align == '=' && spec.fill.text() == "0" &&
            (spec.type == '\0' || spec.type == 's')) {
          spec.align = '<';  // "{:05}" of a string
        } else {
          return ev_.error("this format is not for strings");
        }
      }
      const Text cut =
          spec.precision >= 0 ? characters(*text, 0, static_cast<size_t>(spec.precision)) : *text;
      return padded(ev_, cut, spec, spec.align == '\0' ? '<' : spec.align);
    }
    if (value.as_real() != nullptr) {
      if (spec.type != '\0' &&
          std::string_view("eEfFgG%").find(spec.type) == std::string_view::npos) {
        return ev_.error("this format is not for a float");
      }
      return format_real(ev_, *value.as_real(), spec);
    }
    if (value.as_integer() == nullptr && value.as_boolean() == nullptr) {
      return ev_.error("unsupported format string passed to " + value.type_name());
    }
    if (value.as_boolean() != nullptr && spec.type == '\0')
      return ev_.error("this format of a truth value is not supported");
    AIRLLM_TRY(const int64_t whole, integer_argument(ev_, value));
    if (spec.type != '\0' &&
        std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos) {
      return format_real(ev_, static_cast<double>(whole), spec);
    }
    if (spec.precision >= 0) return ev_.error("Precision not allowed in integer format specifier");
    if (spec.type != '\0' && std::string_view("dxXob").find(spec.type) == std::string_view::npos) {
      return ev_.error("this format is not for a whole number");
    }
    if (spec.group != '\0' && spec.type != '\0' && spec.type != 'd')
      return ev_.error("groups are not supported in this format");
    const uint64_t size =
        whole < 0 ? 0 - static_cast<uint64_t>(whole) : static_cast<uint64_t>(whole);
    std::string sign = sign_of(whole < 0, spec.sign);
    if (spec.alternate && spec.type != '\0' && spec.type != 'd')
      sign += std::string("0") + spec.type;
    return placed(ev_, spec, sign, whole_digits(size, spec.type, false));
  }

  Evaluator& ev_;
  const Call& call_;
  size_t next_ = 0;
  bool manual_ = false;
};

}  // namespace

Result<Value> format_percent(Evaluator& ev, const Text& format, const Value& arguments) {
  AIRLLM_TRY(Text text, PercentFormatter(ev, format, arguments).run());
  return Value::string(std::move(text));
}

Result<Value> format_braces(Evaluator& ev, const Text& format, const Call& call) {
  AIRLLM_TRY(Text text, BraceFormatter(ev, call).run(format, 2));
  return Value::string(std::move(text));
}

}  // namespace airllm::jinja
