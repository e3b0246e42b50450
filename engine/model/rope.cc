// Rotary frequencies (arXiv 2104.09864), and their stretching as in Llama 3.1; in float32 step by
// step as transformers' modeling_rope_utils computes them.
#include <cmath>
#include <numbers>

#include "engine/model/architecture.h"

namespace airllm::model {
namespace {

float scale_llama3(float frequency, const RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_frequency_factor);
  const auto high = static_cast<float>(scaling.high_frequency_factor);
  const auto context = static_cast<double>(scaling.original_context);
  const auto longest = static_cast<float>(context / scaling.low_frequency_factor);
  const auto shortest = static_cast<float>(context / scaling.high_frequency_factor);

  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > longest) return frequency / factor;
  if (wavelength < shortest) return frequency;
  const float smooth = (static_cast<float>(context) / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> inverse_frequencies(const Architecture& architecture) {
  const auto theta = static_cast<float>(architecture.rope_theta);
  const auto dim = static_cast<float>(architecture.head_dim);
  std::vector<float> out(architecture.head_dim / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = 1.0F / std::pow(theta, static_cast<float>(2 * i) / dim);
    if (architecture.rope_scaling.kind == RopeScaling::Kind::kLlama3) {
      out[i] = scale_llama3(out[i], architecture.rope_scaling);
    }
  }
  return out;
}

}  // namespace airllm::model
