#include "fetch/repository_job.h"

#include <algorithm>
#include <vector>

#include "base/units.h"
#include "fetch/listing.h"

namespace airllm::fetch {

RepositoryJob::~RepositoryJob() {
  if (transfer_ != nullptr) context_.http.cancel(transfer_);
}

bool RepositoryJob::begin_transfer(Clock::time_point now) {
  if (has_ended() || transfer_ != nullptr || now < patience_.not_before()) return false;
  if (!url_) {
    auto url = info_url(hub_.endpoint(), hub_.repository(), hub_.revision());
    if (!url) {
      fail(failure(reason::kUsage, std::move(url.error())));
      return false;
    }
    url_ = std::move(*url);
  }
  body_.clear();
  HttpRequest request{*url_, false, hub_.token_for(*url_), {}};
  auto started = context_.http.start(request, *this);
  if (!started) {
    fail(failure(reason::kIo, std::move(started.error())));
    return false;
  }
  transfer_ = *started;
  return true;
}

bool RepositoryJob::on_head(const ResponseHead& head) {
  if (!head.is_success()) return true;
  const Status plain = check_encoding(head);
  if (!plain) refused_ = nonsense(*url_, plain.error().message).failure;
  return plain.has_value();
}

Taken RepositoryJob::on_body(std::span<const std::byte> bytes) {
  if (body_.size() + bytes.size() > kMaxListingBytes) {
    refused_ = failure(
        reason::kTooLarge, ErrorCode::kData,
        "the listing of " + hub_.repository() + " is longer than " + format_size(kMaxListingBytes),
        "this is no model: those have fewer files");
    return Taken::kStop;
  }
  body_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return Taken::kAll;
}

void RepositoryJob::on_end(const HttpEnd& end) {
  transfer_ = nullptr;
  if (refused_) return fail(*std::exchange(refused_, {}));
  const Verdict verdict = judge(end, hub_, *url_, true, {});
  switch (verdict.kind) {
    case Verdict::Kind::kGood: return tell();
    case Verdict::Kind::kRedirect: return follow(*verdict.target);
    case Verdict::Kind::kExpired:
    case Verdict::Kind::kAgain: return try_again(verdict, end.began);
    case Verdict::Kind::kFailed: return fail(verdict.failure);
  }
}

void RepositoryJob::follow(const Url& target) {
  if (target.origin() == hub_.endpoint().origin() && ++redirects_ <= kMaxRedirects) {
    url_ = target;
    return;
  }
  fail(failure(reason::kServer, ErrorCode::kUnavailable,
               redirects_ > kMaxRedirects
                   ? url_->shown() + " redirects again and again"
                   : url_->shown() + " redirects to another host: " + target.shown(),
               "check HF_ENDPOINT; a network that wants you to sign in answers so, too"));
}

void RepositoryJob::tell() {
  auto listing = parse_listing(body_, url_->shown());
  std::string().swap(body_);
  if (!listing) return fail(failure(reason::kListing, std::move(listing.error())));
  protocol::FetchDone done{listing->commit, listing->files.size(), listing->size_bytes, 0};
  for (size_t begin = 0; begin < listing->files.size();) {
    const size_t end = std::min(begin + protocol::kMaxListedFiles, listing->files.size());
    const auto at = [&](size_t index) {
      return std::make_move_iterator(listing->files.begin() + static_cast<ptrdiff_t>(index));
    };
    context_.replies.event(id(), protocol::ListedFiles{{at(begin), at(end)}});
    begin = end;
  }
  finish(std::move(done));
}

}  // namespace airllm::fetch
