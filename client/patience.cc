#include "client/patience.h"

#include <poll.h>

#include <algorithm>

#include "client/output.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

constexpr std::chrono::milliseconds kLongestPause{500};

// False when a signal came first.
bool sleep_for(Patience::Clock::duration time) {
  pollfd wake{signal_wake_fd(), POLLIN, 0};
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(time).count();
  (void)poll(&wake, 1, static_cast<int>(milliseconds));
  return caught_signal() == 0;
}

}  // namespace

Patience::Clock::time_point Patience::deadline(Clock::duration allowance) {
  if (!deadline_) deadline_ = Clock::now() + allowance;
  return *deadline_;
}

Result<bool> Patience::wait(Outlook outlook, const std::string& reason) {
  if (caught_signal() != 0) return Unexpected(ErrorCode::kCancelled, "cancelled");
  // Once a daemon was seen to restart, its socket may also be gone for a while.
  if (!asked_ && !deadline_ && outlook == Outlook::kNobodyExpected) return false;
  const Clock::time_point end = deadline(asked_.value_or(kDefault));
  const auto left = end - Clock::now();
  if (left <= Clock::duration::zero()) return false;
  has_waited_ = true;
  notify(reason);
  if (!sleep_for(std::min(left, pause_))) return Unexpected(ErrorCode::kCancelled, "cancelled");
  pause_ = std::min<Clock::duration>(pause_ * 2, kLongestPause);
  return true;
}

std::optional<Patience::Clock::time_point> Patience::greeting_deadline() {
  // "0" means not to wait for a daemon that is absent; this one is there.
  if (!asked_ || *asked_ == Clock::duration::zero()) return std::nullopt;
  return deadline(*asked_);
}

void Patience::greeted() {
  if (!has_waited_) deadline_.reset();
}

void Patience::notify(const std::string& reason) {
  if (notified_ || !stderr_is_terminal()) return;
  notified_ = true;
  std::string text = "airllm: " + shown_on_stderr(reason) + "; waiting";
  if (deadline_) {
    const auto left = std::chrono::ceil<std::chrono::seconds>(*deadline_ - Clock::now()).count();
    text += " up to " + std::to_string(left) + " s";
  }
  print_err(text + "\n");
}

}  // namespace airllm::client
