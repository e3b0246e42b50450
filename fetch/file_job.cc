#include "fetch/file_job.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "fetch/disk_error.h"
#include "fetch/text.h"

namespace airllm::fetch {
namespace {

// A request asks for what comes in about two seconds, so that its own latency does not count.
constexpr uint64_t kShortPiece = 4 * kMiB;
constexpr uint64_t kLongPiece = 16 * kMiB;
constexpr double kPieceSeconds = 2;
// One that needs longer for the rest of its piece shares it with one that has nothing to do.
constexpr double kSlowSeconds = 4;
constexpr auto kProgressInterval = std::chrono::milliseconds(50);
// libcurl hands out 16 KiB at a time; so much is written at once.
constexpr size_t kWriteBytes = 256 * kKiB;
// Of the body of a refusal.
constexpr uint64_t kMaxIgnoredBytes = 64 * kKiB;

}  // namespace

// One request for bytes of the file.
class FileJob::Transfer : public HttpReceiver {
 public:
  Transfer(FileJob& job, const Piece& first, Url url)
      : piece(first), asked_end(first.end), job_(job), url_(std::move(url)) {}

  bool on_head(const ResponseHead& head) override;
  Taken on_body(std::span<const std::byte> bytes) override;
  void on_end(const HttpEnd& end) override { job_.on_transfer_end(*this, end); }

  double bytes_per_second(Clock::time_point now) const {
    const std::chrono::duration<double> passed = now - began;
    return static_cast<double>(came) / std::max(passed.count(), 0.01);
  }
  // Stores what it holds; nothing is held while the loop waits. False when that failed.
  bool flush();
  // Whether all that it was to bring has come.
  bool is_done() const { return place && position >= last(); }
  uint64_t last() const { return std::min(place->end, piece.end); }
  const Url& url() const { return url_; }

  HttpClient::Transfer* handle = nullptr;
  Piece piece;
  const uint64_t asked_end;
  std::optional<BodyPlace> place;  // of the body, once that is known
  uint64_t position = 0;           // of the body's next byte
  uint64_t came = 0;
  const Clock::time_point began = Clock::now();
  std::optional<Verdict> wrong;  // what was wrong about the answer

 private:
  FileJob& job_;
  const Url url_;
  std::vector<std::byte> held_;  // the bytes before `position`
  uint64_t ignored_ = 0;
  uint64_t offered_again_ = 0;  // bytes at the front of what comes that are stored already
};

bool FileJob::Transfer::on_head(const ResponseHead& head) {
  if (!head.is_success()) return true;
  auto found = body_place(head, piece.position, asked_end, job_.size());
  if (!found) {
    wrong = nonsense(url_, found.error().message);
    return false;
  }
  if (!found->is_whole) {
    job_.saw_part_ = true;
  } else if (!job_.goes_on_with_all(*this)) {
    wrong = nonsense(url_, "the server sends the whole file where a part was asked for");
    return false;
  }
  place = *found;
  position = found->begin;
  job_.location_works();
  return true;
}

Taken FileJob::Transfer::on_body(std::span<const std::byte> bytes) {
  if (!place) {
    ignored_ += bytes.size();
    return ignored_ > kMaxIgnoredBytes ? Taken::kStop : Taken::kAll;
  }
  const uint64_t known = std::min<uint64_t>(offered_again_, bytes.size());
  offered_again_ -= known;
  bytes = bytes.subspan(known);
  const uint64_t room = last() - std::min(last(), position);
  const bool is_surplus = bytes.size() > room;
  if (is_surplus) bytes = bytes.first(room);
  // Only all of the file comes without being asked for.
  const uint64_t allowed = place->is_whole ? job_.allowed() : last();
  const bool must_wait = position + bytes.size() > allowed;
  if (must_wait) bytes = bytes.first(allowed - std::min(allowed, position));
  held_.insert(held_.end(), bytes.begin(), bytes.end());
  position += bytes.size();
  came += bytes.size();
  if (held_.size() >= kWriteBytes && !flush()) return Taken::kStop;
  if (must_wait) {
    offered_again_ = known + bytes.size();
    return Taken::kNothing;
  }
  // At its own end the body is left to end, so that the connection can be used again.
  const bool is_cut_short = is_done() && position < place->end;
  return is_surplus || is_cut_short ? Taken::kStop : Taken::kAll;
}

bool FileJob::Transfer::flush() {
  if (held_.empty()) return true;
  const bool is_stored = job_.store(piece, position - held_.size(), held_);
  held_.clear();
  return is_stored;
}

FileJob::FileJob(JobContext& context, uint64_t id, HubAccess hub,
                 const protocol::FileParams& params, std::unique_ptr<FileSink> sink)
    : SourceJob(context, id, std::move(hub),
                {params.name, params.size, params.sha256, params.git_sha1}),
      sink_(std::move(sink)),
      window_(params.window),
      limit_(params.limit.value_or(UINT64_MAX)),
      parallel_(context.connections) {}

FileJob::~FileJob() {
  for (const auto& transfer : transfers_) context_.http.cancel(transfer->handle);
}

void FileJob::grant(uint64_t limit) { limit_ = std::max(limit_, limit); }

uint64_t FileJob::allowed() const {
  const uint64_t hashed = sink_->look().hashed;
  const uint64_t by_window = hashed + std::min(window_, size() - hashed);
  return std::min({by_window, limit_, size()});
}

uint64_t FileJob::piece_bytes() const {
  const auto wanted =
      std::clamp(static_cast<uint64_t>(bytes_per_second_ * kPieceSeconds), kShortPiece, kLongPiece);
  // So that all connections find something to do inside of the window, and to the end.
  const uint64_t reach = std::min(window_ / 2, sink_->plan().missing());
  return std::clamp(reach / std::max<size_t>(parallel_, 1), kBlockBytes, wanted);
}

bool FileJob::begin_transfer(Clock::time_point now) {
  if (has_ended() || disk_failure_ || sink_->plan().is_complete() || now < patience_.not_before()) {
    return false;
  }
  if (!location()) return begin_resolving(now);
  // One, until a server has shown that it knows ranges.
  const size_t most = saw_part_ ? std::min<size_t>(parallel_, context_.connections) : 1;
  if (sends_all_ || transfers_.size() >= most) return false;
  auto piece = sink_->plan().take(allowed(), piece_bytes());
  if (!piece) piece = part_of_slow_one(now);
  return piece && begin_piece(*piece);
}

std::optional<Piece> FileJob::part_of_slow_one(Clock::time_point now) {
  for (const auto& transfer : transfers_) {
    if (!transfer->place || transfer->place->is_whole) continue;
    const auto left = static_cast<double>(transfer->last() - transfer->position);
    if (left < kSlowSeconds * transfer->bytes_per_second(now)) continue;
    if (now - transfer->began < std::chrono::duration<double>(kSlowSeconds)) continue;
    if (auto part = sink_->plan().split(transfer->piece)) return part;
  }
  return std::nullopt;
}

bool FileJob::begin_piece(const Piece& piece) {
  auto transfer = std::make_unique<Transfer>(*this, piece, location()->url);
  auto started =
      context_.http.start(data_request(HttpRequest::Range{piece.position, piece.end}), *transfer);
  if (!started) {
    sink_->plan().give_back(piece);
    fail(failure(reason::kIo, std::move(started.error())));
    return false;
  }
  transfer->handle = *started;
  transfers_.push_back(std::move(transfer));
  return true;
}

bool FileJob::goes_on_with_all(Transfer& transfer) {
  // One that has sent ranges perhaps does so again; if not, it is asked once nothing else is under
  // way.
  if (std::exchange(saw_part_, false) || transfers_.size() > 1) return false;
  sends_all_ = true;
  sink_->plan().give_back(transfer.piece);
  transfer.piece = *sink_->plan().take_all();
  return true;
}

Failure FileJob::of_disk(Error error) const {
  const std::string_view why = is_disk_full(error) ? reason::kDiskFull : reason::kIo;
  error.message = in_quotes(wanted().name) + ": " + error.message;
  return resumable(failure(why, std::move(error)));
}

bool FileJob::store(Piece& piece, uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t missing = sink_->plan().missing();
  sink_->count_received(piece.lane, bytes.size());
  if (Status status = sink_->write(piece, offset, bytes); !status) {
    disk_failure_ = of_disk(std::move(status.error()));
    return false;
  }
  unrewarded_ += missing - sink_->plan().missing();
  // A server that gives a few bytes and hangs up, again and again, is no progress.
  if (unrewarded_ >= kBlockBytes || sink_->plan().is_complete()) {
    unrewarded_ = 0;
    patience_.progressed();
  }
  return true;
}

void FileJob::on_transfer_end(Transfer& transfer, const HttpEnd& end) {
  const auto found = std::find_if(transfers_.begin(), transfers_.end(),
                                  [&](const auto& one) { return one.get() == &transfer; });
  const std::unique_ptr<Transfer> ended = std::move(*found);
  transfers_.erase(found);
  ended->flush();
  sink_->plan().give_back(ended->piece);
  // Ranges are tried again: what was between us and the server has perhaps changed.
  sends_all_ = false;
  if (disk_failure_) return fail(*disk_failure_);
  if (ended->is_done()) {
    bytes_per_second_ = bytes_per_second_ == 0
                            ? ended->bytes_per_second(Clock::now())
                            : (bytes_per_second_ + ended->bytes_per_second(Clock::now())) / 2;
    parallel_ = std::min<size_t>(parallel_ + 1, context_.connections);
    // A server may send less than it was asked for, but not for ever less than a block.
    if (ended->last() == ended->piece.end || ended->came >= kBlockBytes) return;
  }
  Verdict verdict = ended->wrong ? *ended->wrong : judge_data(end, ended->url());
  if (verdict.kind == Verdict::Kind::kGood)
    verdict = nonsense(ended->url(), "the answer is too short");
  if (verdict.asked || end.head.status == 429) parallel_ = std::max<size_t>(parallel_ / 2, 1);
  heed(verdict, ended->url(), ended->began);
}

void FileJob::look(Clock::time_point now) {
  if (has_ended()) return;
  for (const auto& transfer : transfers_) transfer->flush();
  if (disk_failure_) return fail(*disk_failure_);
  const FileSink::Now sink = sink_->look();
  if (sink.error) {
    tell_progress(now, true);
    return fail(of_disk(*sink.error));
  }
  if (sink.digest) return compare(*sink.digest);
  tell_progress(now, !has_told_ || sink.hashed >= told_prefix_ + window_ / 8);
  if (sends_all_) {
    for (const auto& transfer : transfers_) {
      if (transfer->position < allowed()) context_.http.resume(transfer->handle);
    }
  }
}

Clock::time_point FileJob::next_look() const {
  const Clock::time_point now = Clock::now();
  Clock::time_point next = Clock::time_point::max();
  if (has_news_ || !transfers_.empty()) next = std::max(told_at_, now) + kProgressInterval;
  if (patience_.not_before() > now) next = std::min(next, patience_.not_before());
  return next;
}

void FileJob::tell_progress(Clock::time_point now, bool is_due) {
  const uint64_t prefix = sink_->look().hashed;
  const uint64_t received = sink_->received();
  has_news_ = !has_told_ || prefix != told_prefix_ || received != told_received_;
  if (!has_news_ || (!is_due && now < told_at_ + kProgressInterval)) return;
  // Who does not read is told later.
  if (!context_.replies.has_room()) return;
  has_told_ = true;
  has_news_ = false;
  told_prefix_ = prefix;
  told_received_ = received;
  told_at_ = now;
  context_.replies.event(id(), protocol::FetchProgress{prefix, received});
}

void FileJob::compare(const std::string& digest) {
  const bool is_git = wanted().sha256.empty();
  const std::string& expected = is_git ? wanted().git_sha1 : wanted().sha256;
  if (digest == expected) {
    tell_progress(Clock::now(), true);
    return finish({hub_.revision(), 0, size(), sink_->received()});
  }
  // Nothing of it is of use to anybody: the next request begins anew.
  if (Status status = sink_->restart(); !status) {
    return fail(of_disk(std::move(status.error())));
  }
  if (is_git && !std::exchange(started_over_, true)) {
    tell_progress(Clock::now(), true);
    return;
  }
  fail(failure(reason::kHash, ErrorCode::kData,
               "the file " + in_quotes(wanted().name) + " of " + hub_.repository() +
                   " is not what the hub lists: its " + (is_git ? "git hash" : "sha256") + " is " +
                   digest + " instead of " + expected,
               "nothing of it was kept; ask again, and if it happens again tell the repository's "
               "authors, or look at what stands between you and the hub"));
}

}  // namespace airllm::fetch
