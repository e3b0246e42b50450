// HTTP transfers on libcurl's multi interface: many at once, on one thread, with one limit of rate.
//
// It follows no redirect, decodes no content, and sends a token only where it is told to; TLS is
// always verified. What an answer means is for others to say.
#pragma once

#include <curl/curl.h>

#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "fetch/patience.h"
#include "fetch/response_head.h"
#include "fetch/secret.h"
#include "fetch/url.h"

namespace airllm::fetch {

struct HttpSettings {
  std::string ca_file;  // empty: the system's certificate authorities
  std::chrono::milliseconds connect_timeout{15000};
  // No more than a kilobyte a second for so long ends a transfer.
  std::chrono::seconds stall_timeout{30};
};

struct HttpRequest {
  Url url;
  bool is_head = false;
  const Secret* token = nullptr;  // sent as a bearer's; outlives the transfer
  struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;  // behind the last byte
  };
  std::optional<Range> range;
};

// How a transfer ended.
struct HttpEnd {
  enum class How {
    kComplete,  // the answer is whole, whatever its status
    kStopped,   // its receiver wanted no more
    kBroken,    // the network, or what was said is no HTTP
    kUntrusted  // the certificate, or no TLS could be agreed on
  };
  How how = How::kComplete;
  ResponseHead head;
  std::string problem;  // of the last two, for people
  Clock::time_point began;
};

enum class Taken { kAll, kNothing, kStop };

// Gets what a transfer brings. Called inside of HttpClient::run(); only on_end() may start and end
// transfers.
class HttpReceiver {
 public:
  virtual ~HttpReceiver() = default;
  // The head is complete. False: no byte of the body is wanted.
  virtual bool on_head(const ResponseHead& head) = 0;
  // kNothing: `bytes` are offered again when resume() is called. kStop: ends it.
  virtual Taken on_body(std::span<const std::byte> bytes) = 0;
  // The transfer is gone.
  virtual void on_end(const HttpEnd& end) = 0;
};

// Belongs to one thread, but for wake().
class HttpClient {
 public:
  explicit HttpClient(HttpSettings settings);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  class Transfer;

  // The receiver outlives the transfer. kInternal when libcurl has no memory.
  Result<Transfer*> start(const HttpRequest& request, HttpReceiver& receiver);
  // Ends a transfer at once; on_end() is not called.
  void cancel(Transfer* transfer);
  void resume(Transfer* transfer);
  size_t running() const { return transfers_.size(); }

  // Bytes per second of all transfers together; 0: no limit.
  void set_limit_rate(uint64_t bytes_per_second);

  // Does what can be done without waiting.
  void run();
  // Waits until something can be done: for a transfer, for one of `others`, until `until`, or
  // wake().
  void wait(std::span<curl_waitfd> others, Clock::time_point until);
  // From any thread: wait() returns.
  void wake();

 private:
  friend class Transfer;

  // Whether bytes may be taken now; counts them.
  bool may_take(size_t bytes);
  void end_finished();
  void end(Transfer* transfer, CURLcode code);
  void refill(Clock::time_point now);

  HttpSettings settings_;
  CURLM* multi_;
  std::list<std::unique_ptr<Transfer>> transfers_;
  uint64_t limit_rate_ = 0;
  double allowance_ = 0;  // bytes; below 0 after more was taken than allowed
  Clock::time_point refilled_{};
};

// Once, before there are threads. kInternal when libcurl lacks what is needed.
Status initialize_http();

}  // namespace airllm::fetch
