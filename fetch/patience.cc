#include "fetch/patience.h"

#include <algorithm>

namespace airllm::fetch {

bool Patience::failed(Clock::time_point began, Clock::time_point now,
                      std::optional<std::chrono::seconds> asked) {
  using std::chrono::milliseconds;
  const bool is_new = tries_ == 0 || began >= last_failure_;
  if (is_new) {
    ++tries_;
    last_failure_ = now;
    constexpr int kMaxDoublings = 20;
    const milliseconds bound = std::min(
        rules_.longest_wait, rules_.first_wait * (1 << std::min(tries_ - 1, kMaxDoublings)));
    std::uniform_int_distribution<milliseconds::rep> part(0, bound.count());
    not_before_ = std::max(not_before_, now + milliseconds(part(random_)));
  }
  if (asked) {
    // A little more than asked, and not all at once.
    std::uniform_int_distribution<milliseconds::rep> extra(0, rules_.first_wait.count());
    not_before_ = std::max(
        not_before_, now + std::min(*asked, rules_.longest_asked) + milliseconds(extra(random_)));
  }
  return tries_ < rules_.max_tries;
}

}  // namespace airllm::fetch
