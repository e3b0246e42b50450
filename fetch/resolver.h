// Finds where the bytes of a file are: asks the hub, which redirects to a store or has them itself,
// and checks that it still means the same file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "fetch/http_client.h"
#include "fetch/hub_access.h"

namespace airllm::fetch {

struct WantedFile {
  std::string name;
  std::optional<uint64_t> size;
  std::string sha256;  // as in protocol::FileParams; both may be empty
  std::string git_sha1;
};

struct FileLocation {
  Url url;
  bool at_hub = false;  // of the endpoint's origin, reached without leaving it: may get the token
  uint64_t size = 0;
};

// Belongs to the loop's thread.
class Resolver : private HttpReceiver {
 public:
  // kRedirect and kGood are never told as a Verdict.
  using Answer = std::variant<FileLocation, Verdict>;
  // All are borrowed. `done` is called once after each start(), with when the last transfer began;
  // it may destroy the resolver.
  Resolver(HttpClient& http, const HubAccess& hub, const WantedFile& file,
           std::function<void(Answer, Clock::time_point began)> done)
      : http_(http), hub_(hub), file_(file), done_(std::move(done)) {}
  ~Resolver() override;

  Status start();

 private:
  bool on_head(const ResponseHead& head) override;
  Taken on_body(std::span<const std::byte>) override { return Taken::kAll; }
  void on_end(const HttpEnd& end) override;
  Status ask();
  std::optional<Failure> check(const ResponseHead& head) const;
  std::optional<uint64_t> told_size(const ResponseHead& head) const;
  Answer located(const HttpEnd& end, Url url) const;

  HttpClient& http_;
  const HubAccess& hub_;
  const WantedFile& file_;
  const std::function<void(Answer, Clock::time_point)> done_;
  HttpClient::Transfer* transfer_ = nullptr;
  std::optional<Url> url_;
  int redirects_ = 0;
};

}  // namespace airllm::fetch
