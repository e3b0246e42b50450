// An architecture as people and scripts read it: what `airllm show` prints.
#pragma once

#include <cstdint>
#include <span>

#include "base/json_fwd.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"

namespace airllm::model {

// What of it holds for this model alone is left out otherwise: windows, experts, latent attention.
Json describe(const Architecture& architecture);

// Numbers in the weights: of all, and of those that one token passes through, which are all but the
// experts that it does not choose.
struct ParameterCount {
  uint64_t total = 0;
  uint64_t active = 0;
};
ParameterCount count_parameters(const Architecture& architecture,
                                std::span<const StageSpec> stages);

// Of the keys and values of one position.
uint64_t kv_bytes_per_token(const Architecture& architecture);

}  // namespace airllm::model
