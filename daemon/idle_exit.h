// The end of a daemon that --spawn started and nobody needs any more.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <functional>

namespace airllm::daemon {

// Belongs to the thread that runs `io`.
class IdleExit {
 public:
  enum class Need {
    kNow,      // there are clients, jobs or models in memory
    kPerhaps,  // somebody may ask again, for the time of keep_alive
    kNone,
  };
  // Calls `end` once, as soon as `need` says kNone, or kPerhaps when nothing was asked for
  // `keep_alive`. The first client has a minute at least.
  IdleExit(asio::io_context& io, std::chrono::milliseconds keep_alive, std::function<Need()> need,
           std::function<void()> end);

  // A client has come or gone.
  void used();
  void set_keep_alive(std::chrono::milliseconds keep_alive);

 private:
  using Clock = std::chrono::steady_clock;

  void look();
  void look_after(std::chrono::milliseconds time);

  asio::steady_timer timer_;
  std::chrono::milliseconds keep_alive_;
  std::function<Need()> need_;
  std::function<void()> end_;
  Clock::time_point last_used_ = Clock::now();
  bool was_used_ = false;
  bool ended_ = false;
};

}  // namespace airllm::daemon
