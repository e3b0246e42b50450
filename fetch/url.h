// Addresses, and where a redirect may lead. Parsed by libcurl, which also connects to them: two
// parsers that read a host differently are how tokens get to strangers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm::fetch {

// Scheme, host and port: what decides who sees a token.
struct Origin {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; IPv6 in brackets
  uint16_t port = 0;

  bool operator==(const Origin&) const = default;
  bool is_encrypted() const { return scheme == "https"; }
  // "localhost" and the addresses that are this machine's own by definition.
  bool is_loopback() const;
};

// An absolute http or https URL without user and fragment.
class Url {
 public:
  // `what` names the source in messages. Anything else is a kUsage error that shows the text up to
  // its query, which may hold a signature.
  static Result<Url> parse(std::string_view text, std::string_view what);

  // Where `location`, the header of a redirect from here, leads; it may be relative. A kData error
  // for what is no such URL, and for one that leads from https to http.
  Result<Url> redirected(std::string_view location) const;

  const Origin& origin() const { return origin_; }
  const std::string& text() const { return text_; }
  // For messages and logs: without the query.
  std::string shown() const;

 private:
  Origin origin_;
  std::string text_;
};

// The endpoint of a hub: a URL, perhaps with a path, without a query; its last "/" is left out.
Result<Url> parse_endpoint(std::string_view text);

// Everything but letters, digits and -._~ as %XX; "/" stays where `keep_slashes`.
std::string percent_encoded(std::string_view text, bool keep_slashes);

// The hub's addresses (docs/hub-protocol.md): information about a repository at a revision with the
// files' sizes and hashes, and a file. Names are checked (names.h) before.
Result<Url> info_url(const Url& endpoint, std::string_view repository, std::string_view revision);
Result<Url> file_url(const Url& endpoint, std::string_view repository, std::string_view commit,
                     std::string_view name);

}  // namespace airllm::fetch
