// What a sanitizer needs to be told; nothing in other builds.
#pragma once

#ifdef __SANITIZE_THREAD__
#include <poll.h>
#endif

namespace airllm {

// To call before a signal is awaited. The thread sanitizer of GCC 12 keeps a record of a thread's
// signals from its first blocking call on, and loses one that arrives while it makes that record.
inline void make_record_of_signals() {
#ifdef __SANITIZE_THREAD__
  (void)poll(nullptr, 0, 0);
#endif
}

}  // namespace airllm
