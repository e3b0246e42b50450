#include "fetch/resolver.h"

#include <utility>

#include "fetch/names.h"
#include "fetch/text.h"

namespace airllm::fetch {

Resolver::~Resolver() {
  if (transfer_ != nullptr) http_.cancel(transfer_);
}

Status Resolver::start() {
  AIRLLM_TRY(Url url, file_url(hub_.endpoint(), hub_.repository(), hub_.revision(), file_.name));
  url_ = std::move(url);
  redirects_ = 0;
  return ask();
}

Status Resolver::ask() {
  AIRLLM_TRY(transfer_, http_.start({*url_, true, hub_.token_for(*url_), {}}, *this));
  return {};
}

bool Resolver::on_head(const ResponseHead&) { return true; }

std::optional<uint64_t> Resolver::told_size(const ResponseHead& head) const {
  if (const auto text = head.find("x-linked-size")) return parse_number(*text);
  // That of a redirect would be the redirect's own.
  if (!head.is_success()) return std::nullopt;
  const auto text = head.find("content-length");
  return text ? parse_number(*text) : std::nullopt;
}

// Whether the hub still means the file that was listed. At a mirror some of it is not told.
std::optional<Failure> Resolver::check(const ResponseHead& head) const {
  const auto changed = [&](const std::string& what) {
    return failure(reason::kChanged, ErrorCode::kData,
                   "the file " + in_quotes(file_.name) + " of " + hub_.repository() +
                       " is not the one that was listed: " + what,
                   "ask again: the repository has perhaps changed");
  };
  const auto commit = head.find("x-repo-commit");
  if (!commit) {
    return failure(reason::kServer, ErrorCode::kUnavailable,
                   url_->shown() + " does not answer as a hub does: X-Repo-Commit is missing",
                   "check HF_ENDPOINT; a network that wants you to sign in answers so, too");
  }
  if (*commit != hub_.revision()) return changed("its commit is " + in_quotes(*commit));
  const std::string etag =
      lower_case(etag_content(head.find("x-linked-etag").value_or(head.find("etag").value_or(""))));
  const auto differs = [&](const std::string& wanted, size_t digits) {
    return !wanted.empty() && is_hex(etag, digits) && etag != wanted;
  };
  if (differs(file_.sha256, kSha256Digits) || differs(file_.git_sha1, kSha1Digits)) {
    return changed("its hash is " + etag);
  }
  const auto size = told_size(head);
  if (size && file_.size && *size != *file_.size) {
    return changed("it has " + std::to_string(*size) + " bytes instead of " +
                   std::to_string(*file_.size));
  }
  return std::nullopt;
}

Resolver::Answer Resolver::located(const HttpEnd& end, Url url) const {
  Verdict refused;
  refused.kind = Verdict::Kind::kFailed;
  if (auto wrong = check(end.head)) {
    refused.failure = std::move(*wrong);
    return refused;
  }
  const auto size = file_.size ? file_.size : told_size(end.head);
  if (!size) {
    refused.failure = failure(reason::kServer, ErrorCode::kUnavailable,
                              url_->shown() + " does not tell the size of the file");
    return refused;
  }
  const bool at_hub = url.origin() == hub_.endpoint().origin();
  return FileLocation{std::move(url), at_hub, *size};
}

void Resolver::on_end(const HttpEnd& end) {
  transfer_ = nullptr;
  Verdict verdict = judge(end, hub_, *url_, true, file_.name);
  if (verdict.kind == Verdict::Kind::kGood) return done_(located(end, *url_), end.began);
  if (verdict.kind != Verdict::Kind::kRedirect) return done_(std::move(verdict), end.began);
  // One to the same host may be a renamed repository, or the place of a small file: what it leads
  // to tells of the file. One to another host is where the bytes are.
  if (verdict.target->origin() != hub_.endpoint().origin()) {
    return done_(located(end, std::move(*verdict.target)), end.began);
  }
  if (++redirects_ > kMaxRedirects) {
    return done_(nonsense(*url_, "it redirects again and again"), end.began);
  }
  url_ = std::move(*verdict.target);
  if (Status status = ask(); !status) {
    verdict.kind = Verdict::Kind::kFailed;
    verdict.failure = failure(reason::kIo, std::move(status.error()));
    done_(std::move(verdict), end.began);
  }
}

}  // namespace airllm::fetch
