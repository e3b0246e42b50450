// A hang on purpose, so that tests can see what notices it. See AIRLLM_DEBUG_HANG in airllmd(8).
#pragma once

#include <atomic>

#include "engine/engine.h"

namespace airllm::schedule {

// Thread-safe.
class DebugHang {
 public:
  explicit DebugHang(const std::optional<engine::DebugHang>& wanted) : wanted_(wanted) {}

  // Call on the engine thread after each tile; may never return.
  void at_tile();
  // Call on a reader before each read; may never return.
  void at_read();
  bool concerns_reads() const {
    return wanted_ && wanted_->where == engine::DebugHang::Where::kRead;
  }

 private:
  const std::optional<engine::DebugHang> wanted_;
  std::atomic<uint64_t> count_{0};
};

}  // namespace airllm::schedule
