// A request of the daemon's while it is worked on.
#pragma once

#include <cstdint>
#include <utility>

#include "fetch/failure.h"
#include "fetch/http_client.h"
#include "fetch/hub_access.h"
#include "fetch/journal.h"
#include "fetch/patience.h"
#include "fetch/replies.h"

namespace airllm::fetch {

// What all jobs of a connection share. Outlives them.
struct JobContext {
  HttpClient& http;
  Replies& replies;
  RetryRules retry;
  BootId boot;
  uint64_t connections = 8;
};

// Belongs to the loop's thread.
class Job {
 public:
  Job(JobContext& context, uint64_t id, HubAccess hub)
      : context_(context), id_(id), hub_(std::move(hub)), patience_(context.retry) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  uint64_t id() const { return id_; }
  bool has_ended() const { return has_ended_; }

  // Begins one transfer, if there is something to transfer now. Whether it did.
  virtual bool begin_transfer(Clock::time_point now) = 0;
  // Tells what is new. Called whenever something may be, and not later than next_look().
  virtual void look(Clock::time_point now) = 0;
  virtual Clock::time_point next_look() const { return patience_.not_before(); }
  virtual size_t transfers() const = 0;
  // It asks for little, and others wait for it: listings and headers.
  virtual bool is_short() const { return true; }
  virtual void grant(uint64_t /*limit*/) {}

  // The last event. The job is destroyed soon after, which ends its transfers.
  void finish(protocol::FetchDone done) { end(std::move(done)); }
  void fail(Failure failed) { end(std::move(failed)); }

 protected:
  // After a verdict of kAgain or kExpired: waits, or, when that was the last try, fails.
  void try_again(const Verdict& verdict, Clock::time_point began) {
    if (patience_.failed(began, Clock::now(), verdict.asked)) return;
    Failure failed = verdict.failure;
    failed.error.message +=
        "; gave up after " + std::to_string(patience_.tries()) + " tries that brought nothing";
    fail(std::move(failed));
  }

  void end(protocol::FetchEventBody body) {
    if (std::exchange(has_ended_, true)) return;
    context_.replies.event(id_, std::move(body));
  }

  JobContext& context_;
  const uint64_t id_;
  HubAccess hub_;
  Patience patience_;

 private:
  bool has_ended_ = false;
};

}  // namespace airllm::fetch
