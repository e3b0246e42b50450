#include "fetch/source_job.h"

#include <utility>

namespace airllm::fetch {

bool SourceJob::begin_resolving(Clock::time_point now) {
  if (has_ended() || location_ || is_resolving_ || now < patience_.not_before()) return false;
  if (Status status = resolver_.start(); !status) {
    fail(failure(reason::kUsage, std::move(status.error())));
    return false;
  }
  is_resolving_ = true;
  return true;
}

void SourceJob::on_resolved(Resolver::Answer answer, Clock::time_point began) {
  is_resolving_ = false;
  if (auto* found = std::get_if<FileLocation>(&answer)) {
    location_ = std::move(*found);
    location_worked_ = false;
    redirects_ = 0;
    return;
  }
  const Verdict& verdict = std::get<Verdict>(answer);
  if (verdict.kind == Verdict::Kind::kFailed) return fail(verdict.failure);
  try_again(verdict, began);
}

HttpRequest SourceJob::data_request(std::optional<HttpRequest::Range> range) const {
  const Secret* token = location_->at_hub ? hub_.token_for(location_->url) : nullptr;
  return {location_->url, false, token, range};
}

void SourceJob::location_works() {
  location_worked_ = true;
  redirects_ = 0;
}

Verdict SourceJob::judge_data(const HttpEnd& end, const Url& url) const {
  const bool at_hub = url.origin() == hub_.endpoint().origin();
  return judge(end, hub_, url, at_hub, wanted_.name);
}

void SourceJob::heed(const Verdict& verdict, const Url& url, Clock::time_point began) {
  // Of several requests that were sent to one place the first that hears of another one moves all.
  const bool is_current = location_ && location_->url.text() == url.text();
  switch (verdict.kind) {
    case Verdict::Kind::kGood: return;
    case Verdict::Kind::kFailed: return fail(verdict.failure);
    case Verdict::Kind::kAgain: return try_again(verdict, began);
    case Verdict::Kind::kExpired:
      if (!is_current) return;
      location_.reset();
      // One that was good until now has reached its end: no reason to wait.
      if (!location_worked_) try_again(verdict, began);
      return;
    case Verdict::Kind::kRedirect:
      if (!is_current) return;
      if (++redirects_ > kMaxRedirects) {
        return try_again(nonsense(url, "it redirects again and again"), began);
      }
      // Whoever has left the hub gets no token again, wherever the way leads.
      location_->at_hub = location_->at_hub && verdict.target->origin() == hub_.endpoint().origin();
      location_->url = *verdict.target;
      return;
  }
}

}  // namespace airllm::fetch
