#include "daemon/admission.h"

#include <algorithm>
#include <string>

namespace airllm::daemon {
namespace {

template <typename Predicate>
Admission evict_first(std::span<const Seat> seats, Predicate may_go, Error otherwise) {
  const auto found = std::find_if(seats.begin(), seats.end(), may_go);
  if (found == seats.end()) return {std::nullopt, std::move(otherwise)};
  return {static_cast<size_t>(found - seats.begin()), std::nullopt};
}

}  // namespace

Admission admit(std::span<const Seat> seats, uid_t user, const ConnectionLimits& limits) {
  const auto is_own = [user](const Seat& seat) { return seat.user == user; };
  const auto own = static_cast<uint64_t>(std::count_if(seats.begin(), seats.end(), is_own));
  if (own >= limits.per_user) {
    return evict_first(seats, [&](const Seat& seat) { return is_own(seat) && !seat.greeted; },
                       {ErrorCode::kTemporary,
                        "user " + std::to_string(user) + " has " + std::to_string(own) +
                            " connections, as many as max-connections-per-user allows",
                        "close some, or raise max-connections-per-user in the daemon's settings"});
  }
  if (seats.size() >= limits.total) {
    return evict_first(seats, [](const Seat& seat) { return !seat.greeted; },
                       {ErrorCode::kTemporary,
                        "the daemon has " + std::to_string(seats.size()) +
                            " connections, as many as max-connections allows",
                        "try again later, or raise max-connections in the daemon's settings"});
  }
  return {};
}

}  // namespace airllm::daemon
