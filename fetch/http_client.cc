#include "fetch/http_client.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/units.h"
#include "base/version.h"

namespace airllm::fetch {
namespace {

// What an answer's head may have in all; libcurl bounds a line.
constexpr size_t kMaxHeadBytes = 64 * kKiB;
// What is taken from a connection at once: less where a rate is limited, which would come in
// bursts.
constexpr long kBufferBytes = 256 * kKiB;
constexpr long kSmallBufferBytes = 16 * kKiB;
// Less than this for a while is a stall.
constexpr long kSlowBytesPerSecond = 1024;
// The limiter lets so much of a second through at once.
constexpr double kBurstSeconds = 0.05;

struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// Certificates, names in them, and TLS that could not be agreed on: asking again does not help.
bool is_distrust(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_USE_SSL_FAILED: return true;
    default: return false;
  }
}

}  // namespace

Status initialize_http() {
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return Unexpected(ErrorCode::kInternal, "libcurl cannot be initialized");
  }
  const curl_version_info_data* info = curl_version_info(CURLVERSION_NOW);
  if ((info->features & CURL_VERSION_SSL) == 0) {
    return Unexpected(ErrorCode::kInternal, "this libcurl has no TLS",
                      "install the one that the package depends on");
  }
  return {};
}

class HttpClient::Transfer {
 public:
  Transfer(HttpClient& client, HttpReceiver& receiver) : client_(client), receiver_(receiver) {}

  Status prepare(const HttpRequest& request);
  CURL* easy() const { return easy_.get(); }
  HttpReceiver& receiver() const { return receiver_; }
  HttpEnd end(CURLcode code);

  // Goes on after a pause. What the receiver then says may end the transfer; libcurl only tells.
  void go_on() {
    const CURLcode code = curl_easy_pause(easy_.get(), CURLPAUSE_CONT);
    if (code != CURLE_OK) ended_in_pause = code;
  }

  bool waits_for_rate = false;
  bool waits_for_receiver = false;
  std::optional<CURLcode> ended_in_pause;

 private:
  static size_t on_header(char* data, size_t size, size_t count, void* self);
  static size_t on_data(char* data, size_t size, size_t count, void* self);
  bool take_head_line(std::string_view line);
  // Tells the receiver of the head, once; false when it wants nothing of the body.
  bool tell_head();
  size_t take(std::span<const std::byte> bytes);
  template <typename T>
  void set(CURLoption option, T value) {
    AIRLLM_CHECK(curl_easy_setopt(easy_.get(), option, value) == CURLE_OK);
  }

  HttpClient& client_;
  HttpReceiver& receiver_;
  std::unique_ptr<CURL, FreeEasy> easy_;
  std::unique_ptr<curl_slist, FreeList> fields_;
  std::array<char, CURL_ERROR_SIZE> problem_{};
  Clock::time_point began_ = Clock::now();
  ResponseHead head_;
  size_t head_bytes_ = 0;
  bool head_told_ = false;
  bool stopped_ = false;
  std::string own_problem_;
};

Status HttpClient::Transfer::prepare(const HttpRequest& request) {
  easy_.reset(curl_easy_init());
  std::string token_field;
  curl_slist* list = curl_slist_append(nullptr, "Accept-Encoding: identity");
  if (request.token != nullptr && !request.token->empty()) {
    token_field = "Authorization: Bearer ";
    token_field += request.token->reveal();
    list = curl_slist_append(list, token_field.c_str());
    wipe(token_field);
  }
  fields_.reset(list);
  if (!easy_ || !fields_) return Unexpected(ErrorCode::kOs, "no memory for a transfer");

  const HttpSettings& settings = client_.settings_;
  const bool is_slow = client_.limit_rate_ > 0;
  set(CURLOPT_URL, request.url.text().c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!settings.ca_file.empty()) {
    set(CURLOPT_CAINFO, settings.ca_file.c_str());
    set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  // One connection for each range: a connection of HTTP/2 would carry all of them, at the speed of
  // one, and keep in memory what waits.
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_HTTP_CONTENT_DECODING, 0L);
  set(CURLOPT_HTTPHEADER, fields_.get());
  set(CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // a proxy gets none of them
  set(CURLOPT_USERAGENT, (std::string("airllm/") + kProgramVersion).c_str());
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings.connect_timeout.count()));
  set(CURLOPT_LOW_SPEED_LIMIT, is_slow ? 1L : kSlowBytesPerSecond);
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(settings.stall_timeout.count()));
  set(CURLOPT_BUFFERSIZE, is_slow ? kSmallBufferBytes : kBufferBytes);
  set(CURLOPT_ERRORBUFFER, problem_.data());
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_data);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  if (request.is_head) set(CURLOPT_NOBODY, 1L);
  if (request.range) {
    const std::string range =
        std::to_string(request.range->begin) + "-" + std::to_string(request.range->end - 1);
    set(CURLOPT_RANGE, range.c_str());
  }
  // What is sent without encryption must not leave the machine.
  if (request.token != nullptr && !request.url.origin().is_encrypted()) set(CURLOPT_NOPROXY, "*");
  return {};
}

size_t HttpClient::Transfer::on_header(char* data, size_t size, size_t count, void* self) {
  const size_t bytes = size * count;
  return static_cast<Transfer*>(self)->take_head_line({data, bytes}) ? bytes : 0;
}

bool HttpClient::Transfer::take_head_line(std::string_view line) {
  head_bytes_ += line.size();
  if (head_bytes_ > kMaxHeadBytes) {
    own_problem_ = "the head of the answer is longer than " + format_size(kMaxHeadBytes);
    return false;
  }
  // Trailers of a chunked body come here as well; they say nothing that counts.
  if (head_told_) return true;
  if (line.starts_with("HTTP/")) {
    head_ = {};  // the one before was an interim answer
    return true;
  }
  head_.add_line(line);
  return true;
}

bool HttpClient::Transfer::tell_head() {
  if (head_told_) return !stopped_;
  head_told_ = true;
  long status = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
  head_.status = static_cast<int>(status);
  stopped_ = !receiver_.on_head(head_);
  return !stopped_;
}

size_t HttpClient::Transfer::on_data(char* data, size_t size, size_t count, void* self) {
  return static_cast<Transfer*>(self)->take(std::as_bytes(std::span(data, size * count)));
}

size_t HttpClient::Transfer::take(std::span<const std::byte> bytes) {
  if (!tell_head()) return 0;
  if (!client_.may_take(bytes.size())) {
    waits_for_rate = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  switch (receiver_.on_body(bytes)) {
    case Taken::kAll: return bytes.size();
    case Taken::kNothing: waits_for_receiver = true; return CURL_WRITEFUNC_PAUSE;
    case Taken::kStop: break;
  }
  stopped_ = true;
  return 0;
}

HttpEnd HttpClient::Transfer::end(CURLcode code) {
  HttpEnd end;
  if (code == CURLE_OK) tell_head();
  end.head = std::move(head_);
  end.began = began_;
  if (stopped_) {
    end.how = HttpEnd::How::kStopped;
  } else if (code == CURLE_OK) {
    end.how = HttpEnd::How::kComplete;
  } else {
    end.how = is_distrust(code) ? HttpEnd::How::kUntrusted : HttpEnd::How::kBroken;
    end.problem = own_problem_;
    if (end.problem.empty()) end.problem = problem_.data();
    if (end.problem.empty()) end.problem = curl_easy_strerror(code);
  }
  return end;
}

HttpClient::HttpClient(HttpSettings settings)
    : settings_(std::move(settings)), multi_(curl_multi_init()) {
  AIRLLM_CHECK(multi_ != nullptr);
}

HttpClient::~HttpClient() {
  while (!transfers_.empty()) cancel(transfers_.front().get());
  curl_multi_cleanup(multi_);
}

Result<HttpClient::Transfer*> HttpClient::start(const HttpRequest& request,
                                                HttpReceiver& receiver) {
  auto transfer = std::make_unique<Transfer>(*this, receiver);
  AIRLLM_TRY_VOID(transfer->prepare(request));
  if (curl_multi_add_handle(multi_, transfer->easy()) != CURLM_OK) {
    return Unexpected(ErrorCode::kOs, "no memory for a transfer");
  }
  transfers_.push_back(std::move(transfer));
  return transfers_.back().get();
}

void HttpClient::cancel(Transfer* transfer) {
  const auto found = std::find_if(transfers_.begin(), transfers_.end(),
                                  [&](const auto& one) { return one.get() == transfer; });
  AIRLLM_CHECK(found != transfers_.end());
  curl_multi_remove_handle(multi_, transfer->easy());
  transfers_.erase(found);
}

void HttpClient::resume(Transfer* transfer) {
  if (!transfer->waits_for_receiver) return;
  transfer->waits_for_receiver = false;
  transfer->go_on();
}

void HttpClient::set_limit_rate(uint64_t bytes_per_second) {
  limit_rate_ = bytes_per_second;
  allowance_ = 0;
  refilled_ = Clock::now();
}

bool HttpClient::may_take(size_t bytes) {
  if (limit_rate_ == 0) return true;
  if (allowance_ <= 0) return false;
  allowance_ -= static_cast<double>(bytes);
  return true;
}

void HttpClient::refill(Clock::time_point now) {
  const auto rate = static_cast<double>(limit_rate_);
  const std::chrono::duration<double> passed = now - refilled_;
  refilled_ = now;
  allowance_ = std::min(allowance_ + rate * passed.count(), std::max(1.0, rate * kBurstSeconds));
  for (const auto& transfer : transfers_) {
    if (limit_rate_ > 0 && allowance_ <= 0) return;
    if (!transfer->waits_for_rate) continue;
    transfer->waits_for_rate = false;
    transfer->go_on();
  }
}

void HttpClient::run() {
  refill(Clock::now());
  int running = 0;
  curl_multi_perform(multi_, &running);
  end_finished();
}

void HttpClient::end_finished() {
  int waiting = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &waiting)) {
    if (message->msg != CURLMSG_DONE) continue;
    void* self = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &self);
    end(static_cast<Transfer*>(self), message->data.result);
  }
  const auto find = [&] {
    return std::find_if(transfers_.begin(), transfers_.end(),
                        [](const auto& one) { return one->ended_in_pause.has_value(); });
  };
  for (auto found = find(); found != transfers_.end(); found = find()) {
    end(found->get(), *(*found)->ended_in_pause);
  }
}

void HttpClient::end(Transfer* transfer, CURLcode code) {
  HttpReceiver& receiver = transfer->receiver();
  const HttpEnd ended = transfer->end(code);
  cancel(transfer);
  receiver.on_end(ended);
}

void HttpClient::wait(std::span<curl_waitfd> others, Clock::time_point until) {
  if (limit_rate_ > 0) {
    const bool waits = std::any_of(transfers_.begin(), transfers_.end(),
                                   [](const auto& one) { return one->waits_for_rate; });
    const std::chrono::duration<double> wait(
        std::max(0.0, -allowance_) / static_cast<double>(limit_rate_) + kBurstSeconds / 2);
    const auto ready = refilled_ + std::chrono::duration_cast<Clock::duration>(wait);
    if (waits) until = std::min(until, ready);
  }
  constexpr std::chrono::milliseconds kLongest = std::chrono::seconds(60);
  // Rounded up: a wait of less than a millisecond would be none, again and again.
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  const auto wait = std::clamp(left, std::chrono::milliseconds(0), kLongest);
  curl_multi_poll(multi_, others.data(), static_cast<unsigned>(others.size()),
                  static_cast<int>(wait.count()), nullptr);
}

void HttpClient::wake() { curl_multi_wakeup(multi_); }

}  // namespace airllm::fetch
