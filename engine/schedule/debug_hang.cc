#include "engine/schedule/debug_hang.h"

#include <unistd.h>

#include "base/log.h"

namespace airllm::schedule {
namespace {

[[noreturn]] void hang(const char* what) {
  log::warning("{} hangs for ever, as AIRLLM_DEBUG_HANG says", what);
  for (;;) ::pause();
}

}  // namespace

void DebugHang::at_tile() {
  if (!wanted_ || concerns_reads()) return;
  if (count_++ == wanted_->after) hang("the engine thread");
}

void DebugHang::at_read() {
  if (concerns_reads() && count_++ == wanted_->after) hang("a read");
}

}  // namespace airllm::schedule
