// Rotary frequencies (arXiv 2104.09864) and their stretching, in float32 step by step as
// transformers' modeling_rope_utils computes them: linear, dynamic NTK, Llama 3.1's, YaRN
// (arXiv 2309.00071), LongRoPE (arXiv 2402.13753). And the slopes of ALiBi.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "engine/model/architecture.h"

namespace airllm::model {
namespace {

using Kind = RopeScaling::Kind;

// theta^(2 i / dim)
float power_of(double theta, size_t i, uint64_t dim) {
  return std::pow(static_cast<float>(theta), static_cast<float>(2 * i) / static_cast<float>(dim));
}

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

// Between the pairs `low` and `high` frequencies go over from what they were to what is divided.
struct YarnRange {
  double low, high;
};

YarnRange yarn_range(const Rope& rope) {
  const auto pair_of = [&](double turns) {
    const auto context = static_cast<double>(rope.scaling.original_context);
    return static_cast<double>(rope.spread()) * std::log(context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  YarnRange range{pair_of(rope.scaling.beta_fast), pair_of(rope.scaling.beta_slow)};
  if (rope.scaling.truncate) range = {std::floor(range.low), std::ceil(range.high)};
  range.low = std::max(range.low, 0.0);
  range.high = std::min(range.high, static_cast<double>(rope.spread()) - 1);
  if (range.low == range.high) range.high += 0.001;
  return range;
}

float yarn_frequency(const Rope& rope, const YarnRange& range, size_t i, float power) {
  const float ramp = std::clamp((static_cast<float>(i) - static_cast<float>(range.low)) /
                                    static_cast<float>(range.high - range.low),
                                0.0F, 1.0F);
  const float kept = 1 - ramp;
  return 1.0F / (static_cast<float>(rope.scaling.factor) * power) * (1 - kept) +
         1.0F / power * kept;
}

double stretched_theta(const Rope& rope, uint64_t length) {
  const auto context = static_cast<double>(rope.scaling.original_context);
  const double longer = std::max(static_cast<double>(length), context);
  const double stretch = rope.scaling.factor * longer / context - (rope.scaling.factor - 1);
  const auto dim = static_cast<double>(rope.spread());
  return rope.theta * std::pow(stretch, dim / (dim - 2));
}

}  // namespace

double attention_factor(const Rope& rope, uint64_t length) {
  const RopeScaling& scaling = rope.scaling;
  const bool is_long = scaling.kind == Kind::kLongrope && length > scaling.original_context;
  return is_long ? scaling.long_attention_factor : scaling.attention_factor;
}

bool depends_on_length(const Rope& rope) {
  return rope.scaling.kind == Kind::kDynamic || rope.scaling.kind == Kind::kLongrope;
}

bool are_rotated_alike(const Architecture& architecture, uint64_t length, uint64_t other) {
  const auto is_alike = [&](const Rope& rope) {
    const uint64_t context = rope.scaling.original_context;
    if (rope.scaling.kind == Kind::kLongrope) return (length > context) == (other > context);
    if (rope.scaling.kind != Kind::kDynamic) return true;
    return std::max(length, context) == std::max(other, context);
  };
  return std::all_of(architecture.ropes.begin(), architecture.ropes.end(), is_alike);
}

std::vector<float> inverse_frequencies(const Rope& rope, uint64_t length) {
  const RopeScaling& scaling = rope.scaling;
  const double theta = scaling.kind == Kind::kDynamic ? stretched_theta(rope, length) : rope.theta;
  const YarnRange range = scaling.kind == Kind::kYarn ? yarn_range(rope) : YarnRange{};
  const std::vector<double>& factors =
      length > scaling.original_context ? scaling.long_factors : scaling.short_factors;
  std::vector<float> out(rope.dim / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    const float power = power_of(theta, i, rope.spread());
    out[i] = 1.0F / power;
    switch (scaling.kind) {
      case Kind::kNone:
      case Kind::kDynamic: break;
      case Kind::kLinear: out[i] /= static_cast<float>(scaling.factor); break;
      case Kind::kLlama3: out[i] = scale_llama3(out[i], scaling); break;
      case Kind::kYarn: out[i] = yarn_frequency(rope, range, i, power); break;
      case Kind::kLongrope: out[i] = 1.0F / (static_cast<float>(factors[i]) * power); break;
    }
  }
  return out;
}

std::vector<float> alibi_slopes(uint64_t heads) {
  // Of a power of two: 2^(-8 / n), its square, …; of other numbers those of the next lower power,
  // and between them every other one of twice that power.
  const uint64_t power = std::bit_floor(heads);
  std::vector<float> slopes;
  const auto add = [&](uint64_t of, uint64_t number) {
    slopes.push_back(static_cast<float>(
        std::pow(2.0, -8.0 / static_cast<double>(of) * static_cast<double>(number))));
  };
  for (uint64_t i = 1; i <= power; ++i) add(power, i);
  for (uint64_t i = 1; slopes.size() < heads; i += 2) add(2 * power, i);
  return slopes;
}

}  // namespace airllm::model
