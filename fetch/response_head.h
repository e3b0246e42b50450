// What a server says before the bytes, read strictly: a wrong length or place must not become wrong
// bytes in a file.
#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace airllm::fetch {

struct ResponseHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case

  // The first field of this name (lower case).
  std::optional<std::string_view> find(std::string_view name) const;
  // Adds a line "Name: value" with or without its line end; what is no such line is left out.
  void add_line(std::string_view line);

  bool is_success() const { return status >= 200 && status < 300; }
  // That of a redirect with a Location.
  std::optional<std::string_view> location() const;
};

// A number of decimal digits alone, without a sign.
std::optional<uint64_t> parse_number(std::string_view text);

// "bytes 0-99/1000" (RFC 9110, 14.4).
struct ContentRange {
  uint64_t begin = 0;
  uint64_t end = 0;               // behind the last byte
  std::optional<uint64_t> total;  // unset for "*"
};
std::optional<ContentRange> parse_content_range(std::string_view value);

// What an etag holds without W/ and quotes.
std::string_view etag_content(std::string_view etag);

// How long the server asks to wait: Retry-After in seconds or as a date (RFC 9110, 10.2.3), or
// RateLimit ("name";r=0;t=55) when nothing is left. `now` is the time of the wall clock.
std::optional<std::chrono::seconds> asked_wait(const ResponseHead& head, std::time_t now);

// Whether the body is the bytes themselves: a Content-Encoding other than identity, or a
// Transfer-Encoding other than chunked, is a kData error.
Status check_encoding(const ResponseHead& head);

// Which bytes of a file the body of an answer to a request for [begin, end) holds.
struct BodyPlace {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool is_whole = false;  // the server knows no ranges, or does not like this one
};
// `size` is that of the whole file. kData when the answer is about another file or place, or tells
// a length that does not fit.
Result<BodyPlace> body_place(const ResponseHead& head, uint64_t begin, uint64_t end, uint64_t size);

}  // namespace airllm::fetch
