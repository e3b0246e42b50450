// Settings that families have in common, under all the names that they go by.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "engine/model/architecture.h"
#include "engine/model/config_reader.h"

namespace airllm::model {

// Far above every model there is, and low enough that products of three of them fit 64 bits.
inline constexpr uint64_t kMaxLayers = 4096;
inline constexpr uint64_t kMaxHeads = 1 << 16;
inline constexpr uint64_t kMaxHeadDim = 1 << 14;
inline constexpr uint64_t kMaxWidth = 1 << 24;
inline constexpr uint64_t kMaxVocabulary = 1 << 26;
inline constexpr uint64_t kMaxExperts = 4096;
inline constexpr uint64_t kMaxContext = uint64_t{1} << 31;

// What holds when config.json does not say.
struct Defaults {
  uint64_t context = 2048;
  uint64_t head_dim = 0;     // 0: hidden / heads
  bool wide_mlp = false;     // the MLP is 4 * hidden wide; else its width must be given
  bool is_rotated = true;    // heads are rotated
  double theta = 10000;      // of rotary positions
  double rotary_part = 1;    // of a head that is rotated
  bool interleaved = false;  // rotary pairs are neighbours
  // The keys of settings that families call otherwise; null: there is no such setting.
  const char* epsilon_key = "rms_norm_eps";
  double epsilon = 1e-6;
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
  bool tied_head = false;
  bool is_latent = false;  // attention is
};

// Sizes, norm, activation, rotary positions, head, tokens. All layers are alike: rotated as the
// defaults say, no window, scores divided by the root of head_dim.
Status read_common(const ConfigReader& config, const Defaults& defaults, Architecture& out);

// A layer norm with weight and, but for `bias`, bias.
Norm layer_norm(const Norm& like, bool bias = true);

// Experts: how many there are and are chosen, under the names of all families, and the width of
// one, under `width_keys`. All layers get them; the router is as `out` says, else a softmax.
Status read_experts(const ConfigReader& config, Keys width_keys, Architecture& out);

// What is said of rotary positions, in one of two spellings: rope_scaling, beside rope_theta, wins
// over the newer rope_parameters, as in transformers.
Result<ConfigReader> read_rope_settings(const ConfigReader& config);
// By how much YaRN scales attention (arXiv 2309.00071).
double yarn_mscale(double factor, double mscale);

// Two kinds of rotary positions: those of layers without a window (ropes[0]) and with one
// (ropes[1]). "rope_parameters" may have both, under the names of the layers' types.
Status read_two_ropes(const ConfigReader& config, const Defaults& full, const Defaults& sliding,
                      Architecture& out);

// "sliding_window": null says none; absent, it is `fallback`.
Result<uint64_t> read_window(const ConfigReader& config, uint64_t fallback);
// Which layers have a window, as "layer_types" says, else as `by_default` does.
Result<std::vector<bool>> read_sliding_layers(const ConfigReader& config, uint64_t layers,
                                              const std::function<bool(uint64_t)>& by_default);
// Sets the window of the layers that `layer_types` or `by_default` names.
Status set_windows(const ConfigReader& config, uint64_t window,
                   const std::function<bool(uint64_t)>& by_default, Architecture& out);

}  // namespace airllm::model
