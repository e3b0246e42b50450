#include "daemon/service_manager.h"

#include <systemd/sd-daemon.h>

#include <cstdlib>
#include <ctime>
#include <set>
#include <utility>

namespace airllm::daemon {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusInterval = std::chrono::seconds(1);
// What the start may take from one step to the next.
constexpr auto kStartStep = std::chrono::seconds(60);

std::string count_of(size_t count, const std::string& what) {
  if (count == 0) return "no " + what + "s";
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

uint64_t microseconds(std::chrono::seconds time) {
  return static_cast<uint64_t>(std::chrono::microseconds(time).count());
}

}  // namespace

bool has_service_manager() {
  return std::getenv("NOTIFY_SOCKET") != nullptr;  // NOLINT(concurrency-mt-unsafe)
}

std::optional<Watchdog> Watchdog::from_environment() {
  uint64_t timeout = 0;
  if (!has_service_manager() || ::sd_watchdog_enabled(0, &timeout) <= 0) return std::nullopt;
  return Watchdog(std::chrono::microseconds(timeout));
}

void Watchdog::pet() {
  const Clock::time_point now = Clock::now();
  if (now - last_ < interval_) return;
  last_ = now;
  ::sd_notify(0, "WATCHDOG=1");
}

void StartProgress::advance() {
  const Clock::time_point now = Clock::now();
  if (now - last_ < kStatusInterval) return;
  last_ = now;
  ::sd_notifyf(0, "STATUS=Starting: checking the store\nEXTEND_TIMEOUT_USEC=%llu",
               static_cast<unsigned long long>(microseconds(kStartStep)));
}

void tell_ready() { ::sd_notify(0, "READY=1"); }

void tell_reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
               static_cast<unsigned long long>(now.tv_sec) * 1000000ULL +
                   static_cast<unsigned long long>(now.tv_nsec) / 1000ULL);
}

void tell_stopping(const std::string& status, std::chrono::seconds time) {
  ::sd_notifyf(0, "STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%llu", status.c_str(),
               static_cast<unsigned long long>(microseconds(time)));
}

void StatusLine::changed() {
  if (closed_ || !has_service_manager() || std::exchange(is_due_, true)) return;
  timer_.expires_after(told_.empty() ? std::chrono::seconds(0) : kStatusInterval);
  timer_.async_wait([this](const std::error_code& error) {
    if (!error) tell();
  });
}

void StatusLine::tell() {
  is_due_ = false;
  if (closed_) return;
  Now now = describe_();
  if (now.text != told_) {
    told_ = std::move(now.text);
    ::sd_notify(0, ("STATUS=" + told_).c_str());
  }
  if (now.may_change) changed();
}

void StatusLine::close() {
  closed_ = true;
  timer_.cancel();
}

std::string describe_jobs(const std::vector<engine::JobInfo>& jobs, size_t models) {
  if (jobs.empty()) return "Idle: " + count_of(models, "model") + ", no jobs";
  std::set<engine::ModelRef> models_in_use;
  size_t running = 0;
  for (const engine::JobInfo& job : jobs) {
    if (job.state == "queued") continue;
    ++running;
    models_in_use.insert(job.model);
  }
  std::string text = "Running " + count_of(running, "job");
  if (running > 0) text += " of " + count_of(models_in_use.size(), "model");
  if (jobs.size() > running) text += ", " + std::to_string(jobs.size() - running) + " waiting";
  return text;
}

}  // namespace airllm::daemon
