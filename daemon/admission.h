// Which connections there may be: so many in all, so many of one user, and those that have said no
// hello give way to new ones.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>

#include "base/error.h"

namespace airllm::daemon {

struct ConnectionLimits {
  uint64_t total = 256;
  uint64_t per_user = 224;
};

// A connection that is there.
struct Seat {
  uid_t user = 0;
  bool greeted = false;  // it has said hello
};

// What is done with a new connection. Neither: it is taken.
struct Admission {
  std::optional<size_t> evicted;  // the seat that is closed to make room
  std::optional<Error> refused;
};

// `seats` in the order of arrival. At a limit the oldest seat without a hello is evicted, at the
// user's own limit one of the user's; where all have said hello the new one is refused, with a
// kTemporary error that names the limit.
Admission admit(std::span<const Seat> seats, uid_t user, const ConnectionLimits& limits);

}  // namespace airllm::daemon
