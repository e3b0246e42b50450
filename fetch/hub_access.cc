#include "fetch/hub_access.h"

#include <ctime>
#include <utility>

#include "fetch/names.h"
#include "fetch/text.h"

namespace airllm::fetch {

Result<HubAccess> HubAccess::make(protocol::Repository& from, Secret token) {
  AIRLLM_TRY(Url endpoint, parse_endpoint(from.endpoint));
  AIRLLM_TRY_VOID(check_repository(from.repository));
  AIRLLM_TRY_VOID(check_revision(from.revision));
  AIRLLM_TRY_VOID(check_token(token.reveal()));
  const Origin& origin = endpoint.origin();
  if (!token.empty() && !origin.is_encrypted() && !origin.is_loopback()) {
    return Unexpected(ErrorCode::kConfig,
                      "the token would go to " + endpoint.shown() + " without encryption",
                      "use an endpoint with https, or ask without a token");
  }
  HubAccess access(std::move(endpoint), std::move(token));
  access.repository_ = std::move(from.repository);
  access.revision_ = std::move(from.revision);
  return access;
}

const Secret* HubAccess::token_for(const Url& url) const {
  return has_token() && url.origin() == endpoint_.origin() ? &token_ : nullptr;
}

std::string HubAccess::page() const {
  return endpoint_.shown() + (endpoint_.text().ends_with('/') ? "" : "/") + repository_;
}

std::string HubAccess::token_page() const {
  return endpoint_.shown() + (endpoint_.text().ends_with('/') ? "" : "/") + "settings/tokens";
}

namespace {

struct Refusal {
  const ResponseHead& head;
  const HubAccess& hub;
  std::string_view name;

  std::string_view field(std::string_view key) const { return head.find(key).value_or(""); }
  bool says(std::string_view words) const {
    return field("x-error-message").find(words) != std::string_view::npos;
  }
  // "the hub says 403: '…'", for the end of a message.
  std::string said() const {
    const std::string_view words = field("x-error-message");
    return " (status " + std::to_string(head.status) +
           (words.empty() ? ")" : ": " + in_quotes(words) + ")");
  }
  std::string repository() const { return hub.repository() + " at " + hub.endpoint().shown(); }
};

Failure gated(const Refusal& refusal) {
  const HubAccess& hub = refusal.hub;
  if (!hub.has_token()) {
    return failure(
        reason::kGated, ErrorCode::kNoPermission,
        refusal.repository() + " is open only to those who accepted its terms" + refusal.said(),
        "accept them at " + hub.page() + ", make a token at " + hub.token_page() +
            ", and set HF_TOKEN to it");
  }
  if (refusal.says("awaiting")) {
    return failure(reason::kGated, ErrorCode::kNoPermission,
                   "the authors of " + refusal.repository() +
                       " have not answered your request for access yet" + refusal.said(),
                   "wait for them; " + hub.page() + " shows when they have");
  }
  if (refusal.says("fine-grained")) {
    return failure(reason::kGated, ErrorCode::kNoPermission,
                   "the token has no right to read gated repositories, such as " +
                       refusal.repository() + refusal.said(),
                   "give it that right at " + hub.token_page() +
                       " (\"public gated repositories you can access\")");
  }
  return failure(reason::kGated, ErrorCode::kNoPermission,
                 "the token's owner has no access to " + refusal.repository() + refusal.said(),
                 "accept its terms at " + hub.page() + " with the account that the token is of");
}

Failure no_repository(const Refusal& refusal) {
  const HubAccess& hub = refusal.hub;
  return failure(reason::kNoRepository, ErrorCode::kNoInput,
                 "no repository is called " + refusal.repository() +
                     (hub.has_token() ? ", or the token may not read it" : ", or it is private") +
                     refusal.said(),
                 hub.has_token() ? "check the spelling, and that the token's owner may read it"
                                 : "check the spelling; for a private one set HF_TOKEN to a token "
                                   "that may read it");
}

Failure explain(const Refusal& refusal) {
  const HubAccess& hub = refusal.hub;
  const std::string_view code = refusal.field("x-error-code");
  const int status = refusal.head.status;
  if (code == "GatedRepo" || (status == 403 && refusal.says("gated"))) return gated(refusal);
  if (code == "RevisionNotFound") {
    return failure(reason::kNoRevision, ErrorCode::kNoInput,
                   refusal.repository() + " has no revision " + in_quotes(hub.revision()),
                   "look at its branches and commits at " + hub.page());
  }
  if (code == "EntryNotFound" || (status == 404 && code.empty() && !refusal.name.empty())) {
    return failure(reason::kNoFile, ErrorCode::kNoInput,
                   refusal.repository() + " has no file " + in_quotes(refusal.name) +
                       " at revision " + in_quotes(hub.revision()),
                   "list it again: " + hub.page());
  }
  if (status == 401 && refusal.says("Invalid credentials")) {
    return failure(
        reason::kUnauthorized, ErrorCode::kNoPermission,
        "the token is not known to " + hub.endpoint().shown() + refusal.said(),
        "it was perhaps revoked: make another at " + hub.token_page() + ", and set HF_TOKEN to it");
  }
  if (code == "RepoNotFound" || status == 401 || status == 404) return no_repository(refusal);
  return failure(reason::kServer, ErrorCode::kUnavailable,
                 refusal.repository() + " refused the request" + refusal.said(),
                 "look at " + hub.page() + " with a browser");
}

bool is_worth_a_try(int status) {
  return status == 408 || status == 425 || status == 429 || status >= 500;
}

}  // namespace

Verdict nonsense(const Url& url, std::string_view problem) {
  Verdict verdict;
  verdict.kind = Verdict::Kind::kAgain;
  verdict.failure = resumable(failure(reason::kServer, ErrorCode::kUnavailable,
                                      url.shown() + ": " + std::string(problem),
                                      "ask again later; a proxy on the way may be the cause"));
  return verdict;
}

Verdict judge(const HttpEnd& end, const HubAccess& hub, const Url& url, bool at_hub,
              std::string_view name) {
  Verdict verdict;
  if (end.how == HttpEnd::How::kUntrusted) {
    verdict.kind = Verdict::Kind::kFailed;
    verdict.failure = resumable(
        failure(reason::kTls, ErrorCode::kUnavailable,
                "cannot trust " + url.shown() + ": " + escape_for_display(end.problem, true),
                "check the clock of this machine and its certificates (package ca-certificates); "
                "where a proxy has a certificate of its own, name that with SSL_CERT_FILE"));
    return verdict;
  }
  if (end.how == HttpEnd::How::kBroken) {
    verdict.kind = Verdict::Kind::kAgain;
    verdict.failure = resumable(failure(
        reason::kNetwork, ErrorCode::kUnavailable,
        "no connection to " + url.shown() + " that lasts: " + escape_for_display(end.problem, true),
        "check the network and the proxy's settings (HTTPS_PROXY), then ask again: what "
        "is there stays"));
    return verdict;
  }
  const ResponseHead& head = end.head;
  if (head.is_success()) return verdict;
  if (const auto location = head.location()) {
    auto target = url.redirected(*location);
    if (!target) return nonsense(url, target.error().message);
    verdict.kind = Verdict::Kind::kRedirect;
    verdict.target = std::move(*target);
    return verdict;
  }
  if (is_worth_a_try(head.status)) {
    verdict = nonsense(url, "the server answers with status " + std::to_string(head.status) +
                                (head.status == 429 ? ": too many requests" : ""));
    verdict.asked = asked_wait(head, std::time(nullptr));
    return verdict;
  }
  if (!at_hub && head.status >= 400) {
    verdict = nonsense(url, "the store answers with status " + std::to_string(head.status));
    verdict.kind = Verdict::Kind::kExpired;
    return verdict;
  }
  verdict.kind = Verdict::Kind::kFailed;
  verdict.failure = explain({head, hub, name});
  return verdict;
}

}  // namespace airllm::fetch
