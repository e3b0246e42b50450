#include "fetch/read_job.h"

#include <algorithm>
#include <utility>

#include "base/units.h"

namespace airllm::fetch {
namespace {

// So much of a file may come for nothing, where a server knows no ranges.
constexpr uint64_t kMaxSkippedBytes = 16 * kMiB;

}  // namespace

ReadJob::~ReadJob() {
  if (transfer_ != nullptr) context_.http.cancel(transfer_);
}

bool ReadJob::begin_transfer(Clock::time_point now) {
  if (has_ended() || transfer_ != nullptr || now < patience_.not_before()) return false;
  if (!location()) return begin_resolving(now);
  if (next_ >= end()) {
    finish({hub_.revision(), 0, location()->size, received_});
    return false;
  }
  url_ = location()->url;
  place_.reset();
  auto started = context_.http.start(data_request(HttpRequest::Range{next_, end()}), *this);
  if (!started) {
    fail(failure(reason::kIo, std::move(started.error())));
    return false;
  }
  transfer_ = *started;
  return true;
}

void ReadJob::look(Clock::time_point) {
  if (transfer_ != nullptr && context_.replies.has_room()) context_.http.resume(transfer_);
}

bool ReadJob::on_head(const ResponseHead& head) {
  if (!head.is_success()) return true;
  auto place = body_place(head, next_, end(), location()->size);
  if (!place) {
    wrong_ = nonsense(*url_, place.error().message);
  } else if (place->is_whole && next_ > kMaxSkippedBytes) {
    wrong_ = nonsense(*url_, "the server sends the whole file where a part was asked for");
  }
  if (wrong_) return false;
  place_ = *place;
  position_ = place->begin;
  location_works();
  return true;
}

Taken ReadJob::on_body(std::span<const std::byte> bytes) {
  if (!place_) return Taken::kAll;  // of a refusal
  if (!context_.replies.has_room()) return Taken::kNothing;
  received_ += bytes.size();
  const uint64_t skipped = std::min<uint64_t>(next_ - position_, bytes.size());
  position_ += bytes.size();
  bytes = bytes.subspan(skipped);
  const uint64_t most = end() - next_;
  const bool is_last = bytes.size() >= most;
  if (is_last) bytes = bytes.first(most);
  if (!bytes.empty()) patience_.progressed();
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<size_t>(bytes.size(), protocol::kMaxFetchDataBytes));
    protocol::FetchData data{next_, {}};
    data.data.bytes.assign(reinterpret_cast<const char*>(part.data()), part.size());
    context_.replies.event(id(), std::move(data));
    next_ += part.size();
    bytes = bytes.subspan(part.size());
  }
  return is_last && position_ < place_->end ? Taken::kStop : Taken::kAll;
}

void ReadJob::on_end(const HttpEnd& end) {
  transfer_ = nullptr;
  const Url url = *url_;
  if (wrong_) return heed(*std::exchange(wrong_, {}), url, end.began);
  if (place_ && next_ >= this->end()) return;  // begin_transfer() tells
  Verdict verdict = judge_data(end, url);
  // Whole, and yet not all: what is missing is asked for again.
  if (verdict.kind == Verdict::Kind::kGood) verdict = nonsense(url, "the answer is too short");
  heed(verdict, url, end.began);
}

}  // namespace airllm::fetch
