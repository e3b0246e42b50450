// How much of what all users share one of them may take, where no setting says it.
#pragma once

#include <cstdint>

namespace airllm {

// All but an eighth, which others then always find. Of less than eight things there is no eighth.
constexpr uint64_t share_of_one_user(uint64_t total) { return total - total / 8; }

}  // namespace airllm
