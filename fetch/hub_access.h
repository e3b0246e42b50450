// What a request may ask of a hub, with which token, and what the hub's answers mean.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "fetch/failure.h"
#include "fetch/http_client.h"
#include "fetch/secret.h"
#include "fetch/url.h"

namespace airllm::fetch {

// Redirects in a row that are followed.
inline constexpr int kMaxRedirects = 8;

// A repository at an endpoint, and the token for it. The token goes to the endpoint's origin and to
// no other (token_for).
class HubAccess {
 public:
  // Checks all of it; takes the token out of `from`. kUsage for what is malformed; kConfig for a
  // token that would go through a network without encryption.
  static Result<HubAccess> make(protocol::Repository& from, Secret token);

  const Url& endpoint() const { return endpoint_; }
  const std::string& repository() const { return repository_; }
  const std::string& revision() const { return revision_; }
  bool has_token() const { return !token_.empty(); }
  // nullptr where `url` is of another origin, or there is no token.
  const Secret* token_for(const Url& url) const;
  // Where the repository is shown to people.
  std::string page() const;
  std::string token_page() const;

 private:
  HubAccess(Url endpoint, Secret token)
      : endpoint_(std::move(endpoint)), token_(std::move(token)) {}

  Url endpoint_;
  std::string repository_;
  std::string revision_;
  Secret token_;
};

// What the end of a transfer means for whoever asked.
struct Verdict {
  enum class Kind {
    kGood,      // 2xx
    kRedirect,  // to `target`
    kExpired,   // a store's address that is no longer good: the hub gives a new one
    kAgain,     // worth another try, perhaps after `asked`; `failure` is why, should it be the last
    kFailed     // for good: `failure`
  };
  Kind kind = Kind::kGood;
  std::optional<Url> target;
  std::optional<std::chrono::seconds> asked;
  Failure failure;
};

// `url` is what was asked. `at_hub`: of the hub itself, whose refusals are explained; else of a
// store. `name`: of the file, or empty for a listing. A transfer that was stopped is judged by its
// head.
Verdict judge(const HttpEnd& end, const HubAccess& hub, const Url& url, bool at_hub,
              std::string_view name);

// A verdict of kAgain, of something that a server said and should not have.
Verdict nonsense(const Url& url, std::string_view problem);

}  // namespace airllm::fetch
