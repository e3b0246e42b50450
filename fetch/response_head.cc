#include "fetch/response_head.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>

#include "fetch/text.h"

namespace airllm::fetch {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// The number behind `key` in a list of parameters divided by ";".
std::optional<uint64_t> parameter(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view one = trimmed(text.substr(0, end));
    if (one.starts_with(key)) return parse_number(one.substr(key.size()));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::nullopt;
}

std::optional<std::chrono::seconds> seconds_of(std::optional<uint64_t> number) {
  constexpr uint64_t kYear = 366 * 86400;
  if (!number) return std::nullopt;
  return std::chrono::seconds(std::min(*number, kYear));
}

}  // namespace

std::optional<std::string_view> ResponseHead::find(std::string_view name) const {
  for (const auto& [key, value] : fields) {
    if (key == name) return value;
  }
  return std::nullopt;
}

void ResponseHead::add_line(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return;
  fields.emplace_back(lower_case(trimmed(line.substr(0, colon))), trimmed(line.substr(colon + 1)));
}

std::optional<std::string_view> ResponseHead::location() const {
  switch (status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308: return find("location");
    default: return std::nullopt;
  }
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, failure] = std::from_chars(text.data(), end, number);
  if (text.empty() || failure != std::errc() || at != end) return std::nullopt;
  return number;
}

std::optional<ContentRange> parse_content_range(std::string_view value) {
  constexpr std::string_view kUnit = "bytes ";
  value = trimmed(value);
  if (lower_case(value.substr(0, kUnit.size())) != kUnit) return std::nullopt;
  value = trimmed(value.substr(kUnit.size()));
  const size_t dash = value.find('-');
  const size_t slash = value.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) {
    return std::nullopt;
  }
  const auto first = parse_number(value.substr(0, dash));
  const auto last = parse_number(value.substr(dash + 1, slash - dash - 1));
  const std::string_view total = value.substr(slash + 1);
  ContentRange range;
  if (total != "*") range.total = parse_number(total);
  if (!first || !last || *last < *first || *last == UINT64_MAX || (total != "*" && !range.total)) {
    return std::nullopt;
  }
  range.begin = *first;
  range.end = *last + 1;
  if (range.total && range.end > *range.total) return std::nullopt;
  return range;
}

std::string_view etag_content(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') {
    etag = etag.substr(1, etag.size() - 2);
  }
  return etag;
}

std::optional<std::chrono::seconds> asked_wait(const ResponseHead& head, std::time_t now) {
  if (const auto limit = head.find("ratelimit"); limit && parameter(*limit, "r=") == 0U) {
    if (const auto wait = seconds_of(parameter(*limit, "t="))) return wait;
  }
  const auto value = head.find("retry-after");
  if (!value) return std::nullopt;
  if (const auto wait = seconds_of(parse_number(*value))) return wait;
  const std::time_t date = curl_getdate(std::string(*value).c_str(), nullptr);
  if (date == -1) return std::nullopt;
  return seconds_of(date > now ? static_cast<uint64_t>(date - now) : 0);
}

Status check_encoding(const ResponseHead& head) {
  for (const auto& [name, value] : head.fields) {
    const std::string word = lower_case(value);
    const bool is_plain = word.empty() || word == "identity";
    if ((name == "content-encoding" && !is_plain) ||
        (name == "transfer-encoding" && !is_plain && word != "chunked")) {
      return Unexpected(ErrorCode::kData, "the server sends the bytes encoded as " +
                                              in_quotes(value) + ", though it was asked not to");
    }
  }
  return {};
}

Result<BodyPlace> body_place(const ResponseHead& head, uint64_t begin, uint64_t end,
                             uint64_t size) {
  const auto wrong = [](const std::string& what) { return Unexpected(ErrorCode::kData, what); };
  AIRLLM_TRY_VOID(check_encoding(head));
  BodyPlace place{0, size, true};
  if (head.status == 206) {
    const std::string_view value = head.find("content-range").value_or("");
    const auto range = parse_content_range(value);
    if (!range) return wrong("the server's Content-Range cannot be read: " + in_quotes(value) + "");
    if (range->total && *range->total != size) {
      return wrong("the file at the server has " + std::to_string(*range->total) +
                   " bytes, and not the " + std::to_string(size) + " that the listing tells");
    }
    if (range->begin != begin || range->end > end) {
      return wrong("the server sends other bytes than it was asked for: " + in_quotes(value) +
                   " instead of " + std::to_string(begin) + "-" + std::to_string(end - 1));
    }
    place = {range->begin, range->end, false};
  } else if (head.status != 200) {
    return wrong("the server answers with status " + std::to_string(head.status));
  }
  if (const auto text = head.find("content-length")) {
    if (parse_number(*text) != place.end - place.begin) {
      return wrong("the server tells a length of " + in_quotes(*text) + " bytes instead of " +
                   std::to_string(place.end - place.begin));
    }
  }
  return place;
}

}  // namespace airllm::fetch
