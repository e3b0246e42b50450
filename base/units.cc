#include "base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace airllm {
namespace {

Unexpected bad_size(std::string_view text) {
  return Unexpected(ErrorCode::kUsage, "not a size: '" + std::string(text) + "'",
                    "write a number with K, M, G or T, such as 512M or 1.5G");
}

// The power of 1024 that a suffix stands for, or -1.
int suffix_power(std::string_view suffix) {
  std::string lower;
  for (char c : suffix) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (lower.empty() || lower == "b") return 0;
  const size_t power = std::string_view("kmgt").find(lower[0]);
  if (power == std::string_view::npos) return -1;
  const std::string_view rest = std::string_view(lower).substr(1);
  if (!rest.empty() && rest != "b" && rest != "ib") return -1;
  return static_cast<int>(power) + 1;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return bad_size(text);
  const int power = suffix_power(std::string_view(rest, static_cast<size_t>(end - rest)));
  if (power < 0) return bad_size(text);
  const double bytes = std::floor(std::ldexp(number, 10 * power));
  if (bytes >= 9.2e18) return bad_size(text);
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> buffer{};
  const bool whole = unit == 0 || value == std::floor(value) || value >= 100;
  std::snprintf(buffer.data(), buffer.size(), whole ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return buffer.data();
}

}  // namespace airllm
