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

// Chooses router.chosen experts by their logits, [experts]; `bias` is [experts] or empty. The
// choices come by expert, upwards.
void choose_experts(const Router& router, std::span<const float> logits,
                    std::span<const float> bias, std::vector<ExpertChoice>& choices);

}  // namespace airllm::model
