// Which experts of a model stay in memory: by use.
//
// A sweep is no cyclic scan of the experts: it uses some of each layer. Belady's policy drops what
// is used again last; this one goes by an estimate of when that will be. Of every expert it keeps
// how often its layer's sweeps used it, averaged over short, middle and long times. What each of
// these tells of the next sweep differs from model to model and is learned from the sweeps
// themselves (normalized least mean squares). From the chance p to be used in a sweep, and how far
// the layer is ahead in the present one, follows the expected wait.
//
// A batch that uses nearly all experts of a layer, as that of a prompt does, says little of which
// are used next, and counts as little. What would wait longer than all that is kept gets no slot.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace airllm::stream {

// Experts are numbered in the order of use, layer after layer.
struct ExpertCacheShape {
  std::vector<uint32_t> layer_of;  // of each expert: its layer, among those with experts
  std::vector<uint32_t> class_of;  // of each expert: which slots it may have
  std::vector<uint32_t> slots;     // of each class: how many; those of a class are numbered after
                                   // those of the classes before it
};

// Deterministic. Used by one thread. Knows nothing of bytes.
class ExpertCache {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // An expert has got a slot, which held another or nothing (kNone).
  struct Placed {
    uint32_t expert;
    uint32_t slot;
    uint32_t evicted;
  };

  explicit ExpertCache(ExpertCacheShape shape);

  // The sweep has come to `layer` and uses some of its experts. Those that have slots already keep
  // them; returns who of the others got one, in the order of use. The rest has none. `busy` experts
  // keep their slots, used or not.
  std::vector<Placed> choose(uint32_t layer, const std::vector<bool>& used,
                             std::span<const uint32_t> busy = {});

  uint32_t slot_of(uint32_t expert) const { return slot_of_[expert]; }

 private:
  static constexpr size_t kTimes = 3;
  struct Use {
    std::array<double, kTimes> mean{};  // of used (1) or not (0), over each time
    double wait = 0;                    // expected, in sweeps, as of its layer's last one
  };
  struct Layer {
    uint32_t begin = 0, end = 0;  // its experts
    uint64_t sweeps = 0;
  };

  void learn(Layer& layer, const std::vector<bool>& used);
  void observe(Layer& layer, const std::vector<bool>& used);
  double chance(const Use& use) const;
  // Until the expert is used again, in sweeps, seen from the end of layer `now`.
  double expected_wait(uint32_t expert, uint32_t now) const;
  std::vector<Placed> place(uint32_t slot_class, std::span<const uint32_t> missing, uint32_t now,
                            const std::vector<bool>& stays);

  ExpertCacheShape shape_;
  std::vector<Layer> layers_;
  std::vector<Use> uses_;               // by expert
  std::array<double, kTimes> weights_;  // of the means, for the chance
  std::vector<uint32_t> slot_of_;       // by expert
  std::vector<uint32_t> expert_in_;     // by slot
  std::vector<uint32_t> first_slot_;    // by class
};

}  // namespace airllm::stream
