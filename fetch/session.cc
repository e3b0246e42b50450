#include "fetch/session.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/overloaded.h"
#include "base/units.h"
#include "base/version.h"
#include "fetch/disk_error.h"
#include "fetch/file_job.h"
#include "fetch/names.h"
#include "fetch/read_job.h"
#include "fetch/repository_job.h"
#include "fetch/text.h"

namespace airllm::fetch {
namespace {

constexpr size_t kReceiveBytes = 64 * kKiB;
// No message to us is longer: names and a token.
constexpr uint64_t kMaxRequestBytes = 64 * kKiB;
// Transfers beyond the others for requests that are short.
constexpr size_t kMaxShortTransfers = 4;
// How long a daemon that broke the rules has to read why.
constexpr auto kFarewell = std::chrono::seconds(2);

Unexpected broken(std::string what) {
  return Unexpected(ErrorCode::kProtocol, std::move(what),
                    "airllmd and airllm-fetch should be of the same version");
}

Unexpected wrong(std::string what) { return Unexpected(ErrorCode::kUsage, std::move(what)); }

Status check_commit(const HubAccess& hub) {
  if (is_hex(hub.revision(), kSha1Digits)) return {};
  return wrong(in_quotes(hub.revision()) + " is no commit; list the repository first");
}

Status check(const protocol::ReadParams& params) {
  AIRLLM_TRY_VOID(check_file_name(params.name));
  const bool fits = params.length > 0 && params.length <= kMaxReadBytes &&
                    params.offset <= kMaxFileBytes && params.size.value_or(0) <= kMaxFileBytes;
  if (fits) return {};
  return wrong("a range of " + std::to_string(params.length) + " bytes at " +
               std::to_string(params.offset) + "; it may have 1 to " +
               std::to_string(kMaxReadBytes));
}

Status check(const protocol::FileParams& params) {
  AIRLLM_TRY_VOID(check_file_name(params.name));
  if (params.size > kMaxFileBytes) {
    return wrong("a file of " + std::to_string(params.size) + " bytes; it may have " +
                 std::to_string(kMaxFileBytes));
  }
  const bool is_lfs = is_hex(params.sha256, kSha256Digits) && params.git_sha1.empty();
  const bool is_git = is_hex(params.git_sha1, kSha1Digits) && params.sha256.empty();
  if (!is_lfs && !is_git) return wrong("neither a sha256 nor a git_sha1 alone, in lower case");
  if (params.window >= kMinWindow) return {};
  return wrong("a window of " + std::to_string(params.window) + " bytes; it has at least " +
               std::to_string(kMinWindow));
}

void make_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

}  // namespace

Session::Session(UniqueFd socket, const Options& options, Secret own_token)
    : socket_(std::move(socket)),
      options_(options),
      own_token_(std::move(own_token)),
      http_(options.http),
      context_{http_, replies_, options.retry, current_boot_id(), options.connections},
      buffer_(kReceiveBytes),
      frames_(kMaxRequestBytes) {
  make_nonblocking(socket_.get());
  http_.set_limit_rate(options.limit_rate);
}

Session::~Session() = default;

Status Session::run() {
  Status status;
  while (!is_gone_ && status) {
    http_.run();
    const Clock::time_point now = Clock::now();
    look_after_jobs(now);
    begin_transfers(now);
    if (Status flushed = replies_.flush(socket_.get()); !flushed) return {};
    wait();
    status = read_bytes();
  }
  if (status) return {};
  jobs_.clear();
  replies_.event(0, failure(reason::kProtocol, status.error()));
  const auto end = Clock::now() + kFarewell;
  while (replies_.flush(socket_.get()) && !replies_.empty() && Clock::now() < end) {
    pollfd waits{socket_.get(), POLLOUT, 0};
    ::poll(&waits, 1, 100);
  }
  return status;
}

void Session::wait() {
  const int events = CURL_WAIT_POLLIN | (replies_.empty() ? 0 : CURL_WAIT_POLLOUT);
  std::array<curl_waitfd, 1> others{curl_waitfd{socket_.get(), static_cast<short>(events), 0}};
  Clock::time_point until = Clock::time_point::max();
  const Clock::time_point now = Clock::now();
  for (const auto& job : jobs_) {
    if (job->has_ended()) until = now;
    // What lies behind us waits for something else than the time.
    if (const auto next = job->next_look(); next > now) until = std::min(until, next);
  }
  http_.wait(others, until);
}

void Session::begin_transfers(Clock::time_point now) {
  // One for whoever has fewest, until there is no room, or nobody wants one.
  std::vector<Job*> waiting;
  for (const auto& job : jobs_) waiting.push_back(job.get());
  while (!waiting.empty()) {
    const auto next = std::min_element(waiting.begin(), waiting.end(), [](Job* a, Job* b) {
      return a->transfers() < b->transfers();
    });
    // A short one does not wait for the pieces of files.
    const bool has_room =
        http_.running() < context_.connections ||
        ((*next)->is_short() && http_.running() < context_.connections + kMaxShortTransfers);
    if (!has_room || !(*next)->begin_transfer(now)) waiting.erase(next);
  }
}

void Session::look_after_jobs(Clock::time_point now) {
  for (const auto& job : jobs_) {
    if (!job->has_ended()) job->look(now);
  }
  std::erase_if(jobs_, [](const auto& job) { return job->has_ended(); });
}

Status Session::read_bytes() {
  AIRLLM_TRY(Received received, receive(socket_.get(), buffer_));
  if (received.would_block) return {};
  if (received.at_end) {
    is_gone_ = true;
    return {};
  }
  received_bytes_ += received.bytes;
  frames_.append({buffer_.data(), received.bytes});
  ::explicit_bzero(buffer_.data(), received.bytes);  // there may be a token in it
  AIRLLM_TRY_VOID(descriptors_.add(std::move(received.descriptors), received_bytes_));
  return take_frames();
}

Status Session::take_frames() {
  for (;;) {
    AIRLLM_TRY(std::optional<std::string> payload, frames_.next());
    if (!payload) break;
    auto message = protocol::decode_to_fetch(*payload);
    wipe(*payload);
    if (!message) return Unexpected(std::move(message).error());
    const uint64_t frame_end = received_bytes_ - frames_.pending_bytes();
    AIRLLM_TRY_VOID(take_message(std::move(*message), descriptors_.take(frame_end)));
  }
  if (frames_.pending_bytes() == 0) frames_.drop();
  return {};
}

Status Session::take_message(protocol::ToFetch message, std::vector<UniqueFd> descriptors) {
  if (!heard_hello_ && !std::holds_alternative<protocol::Hello>(message)) {
    return broken("the first message is not a hello");
  }
  return std::visit(
      Overloaded{
          [&](const protocol::Hello& hello) { return take_hello(hello); },
          [&](const protocol::FetchSettings& settings) { return take_settings(settings); },
          [&](protocol::FetchRequest& request) {
            return take_request(std::move(request), std::move(descriptors));
          },
          [&](const protocol::Grant& grant) {
            if (Job* job = find(grant.id)) job->grant(grant.limit);
            return Status();
          },
          [&](const protocol::Cancel& cancel) {
            if (Job* job = find(cancel.id)) {
              job->fail(resumable(failure(reason::kCancelled, ErrorCode::kCancelled, "cancelled")));
            }
            return Status();
          }},
      message);
}

Status Session::take_hello(const protocol::Hello& hello) {
  if (heard_hello_) return broken("a second hello");
  if (hello.version != protocol::kFetchProtocolVersion) {
    return broken("the daemon (" + escape_for_display(hello.program, true) + ") speaks version " +
                  std::to_string(hello.version) + " of the protocol; airllm-fetch speaks " +
                  std::to_string(protocol::kFetchProtocolVersion));
  }
  heard_hello_ = true;
  protocol::Hello answer;
  answer.version = protocol::kFetchProtocolVersion;
  answer.program = std::string("airllm-fetch ") + kProgramVersion;
  answer.pid = static_cast<uint64_t>(::getpid());
  replies_.send(answer);
  return {};
}

Status Session::take_settings(const protocol::FetchSettings& settings) {
  if (settings.connections) {
    if (*settings.connections == 0) return broken("settings: no connections");
    // No more than whoever started this program allows.
    context_.connections = std::min(*settings.connections, options_.connections);
  }
  if (settings.limit_rate) {
    const uint64_t most = options_.limit_rate;
    const uint64_t asked = *settings.limit_rate;
    http_.set_limit_rate(most == 0 ? asked : asked == 0 ? most : std::min(asked, most));
  }
  return {};
}

Job* Session::find(uint64_t id) const {
  for (const auto& job : jobs_) {
    if (job->id() == id && !job->has_ended()) return job.get();
  }
  return nullptr;
}

Status Session::take_request(protocol::FetchRequest request, std::vector<UniqueFd> descriptors) {
  if (request.id == 0 || find(request.id) != nullptr) {
    return broken("a request has id " + std::to_string(request.id) +
                  (request.id == 0 ? "" : ", which another one has"));
  }
  Failure failed;
  auto job = begin(request, std::move(descriptors), failed);
  if (job) {
    jobs_.push_back(std::move(job));
  } else {
    replies_.event(request.id, std::move(failed));
  }
  return {};
}

// The token of the request, or the service's own, where that is meant for the endpoint.
Result<HubAccess> Session::access(protocol::Repository& from) {
  Secret token(std::move(from.token));
  wipe(from.token);
  if (!from.own_token) return HubAccess::make(from, std::move(token));
  AIRLLM_TRY(const Url endpoint, parse_endpoint(from.endpoint));
  const bool is_meant = std::any_of(options_.endpoints.begin(), options_.endpoints.end(),
                                    [&](const Url& one) { return one.text() == endpoint.text(); });
  if (!is_meant || own_token_.empty()) {
    return Unexpected(
        ErrorCode::kNoPermission, "the service has no token of its own for " + endpoint.shown(),
        "set HF_TOKEN, or have the administrator name the endpoint (airllm-fetch(8))");
  }
  return HubAccess::make(from, Secret(std::string(own_token_.reveal())));
}

std::unique_ptr<Job> Session::begin(protocol::FetchRequest& request,
                                    std::vector<UniqueFd> descriptors, Failure& failed) {
  const uint64_t id = request.id;
  if (jobs_.size() >= kMaxJobs) {
    failed = failure(reason::kBusy, ErrorCode::kTemporary,
                     std::to_string(kMaxJobs) + " requests run already",
                     "wait until one of them has ended");
    return nullptr;
  }
  const auto begun = [&](auto& params) -> Result<std::unique_ptr<Job>> {
    using Params = std::decay_t<decltype(params)>;
    if constexpr (std::is_same_v<Params, protocol::UnknownMethod>) {
      return Unexpected(wrong("unknown method " + in_quotes(params.method)));
    } else {
      AIRLLM_TRY(HubAccess hub, access(params.from));
      if constexpr (std::is_same_v<Params, protocol::RepositoryParams>) {
        return std::unique_ptr<Job>(std::make_unique<RepositoryJob>(context_, id, std::move(hub)));
      } else {
        AIRLLM_TRY_VOID(check_commit(hub));
        AIRLLM_TRY_VOID(check(params));
        if constexpr (std::is_same_v<Params, protocol::ReadParams>) {
          return std::unique_ptr<Job>(
              std::make_unique<ReadJob>(context_, id, std::move(hub), params));
        } else {
          return begin_file(id, std::move(hub), params, std::move(descriptors));
        }
      }
    }
  };
  auto job = std::visit(begun, request.params);
  if (job) return std::move(*job);
  const bool is_usage = job.error().code != ErrorCode::kIo && job.error().code != ErrorCode::kOs;
  const bool is_full = is_disk_full(job.error());
  failed = failure(is_usage  ? reason::kUsage
                   : is_full ? reason::kDiskFull
                             : reason::kIo,
                   std::move(job.error()));
  failed.resumable = !is_usage;
  return nullptr;
}

Result<std::unique_ptr<Job>> Session::begin_file(uint64_t id, HubAccess hub,
                                                 const protocol::FileParams& params,
                                                 std::vector<UniqueFd> descriptors) {
  if (descriptors.size() != 2) {
    return wrong(std::to_string(descriptors.size()) + " descriptors instead of two");
  }
  JournalSubject subject;
  subject.size_bytes = params.size;
  subject.kind = params.sha256.empty() ? HashKind::kGitBlob : HashKind::kSha256;
  subject.digest = params.sha256.empty() ? params.git_sha1 : params.sha256;
  AIRLLM_TRY(auto sink, FileSink::open(std::move(descriptors[0]), std::move(descriptors[1]),
                                       subject, context_.boot, [this] { http_.wake(); }));
  if (!sink->fresh_because().empty()) {
    log::warning("the journal of {} is of no use: {}", in_quotes(params.name),
                 sink->fresh_because());
  }
  return std::unique_ptr<Job>(
      std::make_unique<FileJob>(context_, id, std::move(hub), params, std::move(sink)));
}

}  // namespace airllm::fetch
