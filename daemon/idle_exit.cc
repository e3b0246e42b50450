#include "daemon/idle_exit.h"

#include <algorithm>
#include <utility>

#include "base/duration.h"

namespace airllm::daemon {
namespace {

// As long as a client waits for the daemon that it has started.
constexpr std::chrono::milliseconds kFirstClient = std::chrono::minutes(1);
// How often models in memory are looked at that stay longer than the daemon would.
constexpr std::chrono::milliseconds kInterval = std::chrono::seconds(1);
constexpr std::chrono::milliseconds kLongestWait = std::chrono::hours(24);

}  // namespace

IdleExit::IdleExit(asio::io_context& io, std::chrono::milliseconds keep_alive,
                   std::function<Need()> need, std::function<void()> end)
    : timer_(io), keep_alive_(keep_alive), need_(std::move(need)), end_(std::move(end)) {
  look_after(std::max(kFirstClient, std::min(keep_alive_, kLongestWait)));
}

void IdleExit::used() {
  last_used_ = Clock::now();
  was_used_ = true;
  // From a fresh stack: the client that goes is not quite gone.
  look_after(std::chrono::milliseconds(0));
}

void IdleExit::set_keep_alive(std::chrono::milliseconds keep_alive) {
  keep_alive_ = keep_alive;
  look_after(std::chrono::milliseconds(0));
}

void IdleExit::look() {
  const Need need = need_();
  const auto idle = std::chrono::floor<std::chrono::milliseconds>(Clock::now() - last_used_);
  const auto patience = was_used_ ? keep_alive_ : std::max(keep_alive_, kFirstClient);
  const bool is_over = patience != kForever && idle >= patience;
  if (need == Need::kNone || (need == Need::kPerhaps && is_over)) {
    ended_ = true;
    return end_();
  }
  // Clients tell when they go; a model does not, and may stay longer than the daemon would.
  if (patience == kForever) return;
  look_after(is_over ? kInterval : std::min(patience - idle, kLongestWait));
}

void IdleExit::look_after(std::chrono::milliseconds time) {
  if (ended_) return;
  timer_.expires_after(time);
  timer_.async_wait([this](const std::error_code& error) {
    if (!error) look();
  });
}

}  // namespace airllm::daemon
