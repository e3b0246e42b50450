// Which experts a row goes to.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/architecture.h"

namespace airllm::model {

struct ExpertChoice {
  uint32_t expert = 0;
  float weight = 0;
};

// What choosing works in; kept, so that a sweep takes no memory.
struct RouterMemory {
  std::vector<float> scores, biased, near, groups;
  std::vector<bool> taken, taken_groups;
  std::vector<ExpertChoice> choices;
};

// Chooses router.chosen experts by their logits, [experts]; `bias` is [experts] or empty. The
// choices, memory.choices, come by expert, upwards.
void choose_experts(const Router& router, std::span<const float> logits,
                    std::span<const float> bias, RouterMemory& memory);

}  // namespace airllm::model
