#include "fetch/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/utf8.h"
#include "fetch/text.h"

namespace airllm::fetch {
namespace {

// Longer than any signed URL that is known.
constexpr size_t kMaxUrlBytes = 16384;

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using CurlUrl = std::unique_ptr<CURLU, FreeUrl>;

std::string part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, which, &text, flags) != CURLUE_OK) return {};
  std::string out(text);
  curl_free(text);
  return out;
}

std::string without_query(std::string_view text) {
  return escape_for_display(text.substr(0, std::min(text.find('?'), size_t{200})), true);
}

Result<Origin> origin_of(CURLU* url) {
  Origin origin{lower_case(part(url, CURLUPART_SCHEME)), lower_case(part(url, CURLUPART_HOST)), 0};
  const std::string port = part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), origin.port);
  const bool has_port = failure == std::errc() && end == port.data() + port.size();
  const bool has_scheme = origin.scheme == "https" || origin.scheme == "http";
  if (!has_scheme || !has_port || origin.host.empty()) {
    return Unexpected(ErrorCode::kUsage, "no http or https address");
  }
  if (!part(url, CURLUPART_USER).empty() || !part(url, CURLUPART_PASSWORD).empty()) {
    return Unexpected(ErrorCode::kUsage, "an address with a user or password in it");
  }
  return origin;
}

bool is_loopback_address(std::string_view host) {
  constexpr std::string_view kPrefix = "127.";
  if (!host.starts_with(kPrefix)) return false;
  // Four numbers: "127.example.org" is a name like any other.
  return std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == std::string_view::npos && host.back() != '.';
}

}  // namespace

bool Origin::is_loopback() const {
  return host == "localhost" || host == "[::1]" || is_loopback_address(host);
}

Result<Url> Url::parse(std::string_view text, std::string_view what) {
  const auto refused = [&](const std::string& why) {
    return Unexpected(ErrorCode::kUsage,
                      std::string(what) + ": " + why + ": " + without_query(text),
                      "write it like https://host or https://host/path");
  };
  if (text.size() > kMaxUrlBytes) return refused("an address that is too long");
  const CurlUrl url(curl_url());
  const std::string copy(text);
  if (!url || copy.find('\0') != std::string::npos ||
      curl_url_set(url.get(), CURLUPART_URL, copy.c_str(), 0) != CURLUE_OK) {
    return refused("no http or https address");
  }
  auto origin = origin_of(url.get());
  if (!origin) return refused(origin.error().message);
  curl_url_set(url.get(), CURLUPART_FRAGMENT, nullptr, 0);
  Url out;
  out.origin_ = std::move(*origin);
  out.text_ = part(url.get(), CURLUPART_URL);
  return out;
}

Result<Url> Url::redirected(std::string_view location) const {
  const auto refused = [&](const std::string& why) {
    return Unexpected(ErrorCode::kData,
                      shown() + " redirects to " + why + ": " + without_query(location));
  };
  const CurlUrl url(curl_url());
  const std::string copy(location);
  // As libcurl does for redirects that it follows: what should have been encoded is.
  if (!url || location.empty() || location.size() > kMaxUrlBytes ||
      curl_url_set(url.get(), CURLUPART_URL, text_.c_str(), 0) != CURLUE_OK ||
      curl_url_set(url.get(), CURLUPART_URL, copy.c_str(), CURLU_URLENCODE) != CURLUE_OK) {
    return refused("what is no http or https address");
  }
  auto target = parse(part(url.get(), CURLUPART_URL), "Location");
  if (!target) return refused("what is no http or https address");
  if (origin_.is_encrypted() && !target->origin_.is_encrypted()) {
    return refused("an address without encryption, which is not followed");
  }
  return target;
}

std::string Url::shown() const { return without_query(text_); }

Result<Url> parse_endpoint(std::string_view text) {
  while (!text.empty() && text.back() == '/') text.remove_suffix(1);
  if (text.find_first_of("?#") != std::string_view::npos) {
    return Unexpected(ErrorCode::kUsage, "the endpoint has a query: " + without_query(text),
                      "write it like https://host or https://host/path");
  }
  return Url::parse(text, "the endpoint");
}

std::string percent_encoded(std::string_view text, bool keep_slashes) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  for (const char c : text) {
    if (kPlain.find(c) != std::string_view::npos || (keep_slashes && c == '/')) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

namespace {

Result<Url> below(const Url& endpoint, const std::string& path) {
  std::string base = endpoint.text();
  while (!base.empty() && base.back() == '/') base.pop_back();
  return Url::parse(base + path, "the address");
}

}  // namespace

Result<Url> info_url(const Url& endpoint, std::string_view repository, std::string_view revision) {
  return below(endpoint, "/api/models/" + percent_encoded(repository, true) + "/revision/" +
                             percent_encoded(revision, false) + "?blobs=true");
}

Result<Url> file_url(const Url& endpoint, std::string_view repository, std::string_view commit,
                     std::string_view name) {
  return below(endpoint, "/" + percent_encoded(repository, true) + "/resolve/" +
                             percent_encoded(commit, false) + "/" + percent_encoded(name, true));
}

}  // namespace airllm::fetch
