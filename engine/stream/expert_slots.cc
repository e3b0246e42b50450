// The part of WeightStream that keeps experts in memory.
#include <algorithm>

#include "engine/stream/weight_stream.h"

namespace airllm::stream {

// Calls use(expert) for the experts that the sweep uses of the layer that begins at `begin`.
template <typename Use>
void WeightStream::for_each_used(size_t begin, const Use& use) const {
  for (size_t i = begin; i < plan_.experts.size() && plan_.experts[i].stage == *chosen_stage_;
       ++i) {
    if (used_experts_[plan_.experts[i].expert]) use(plan_.experts[i]);
  }
}

void WeightStream::count_experts(size_t begin) {
  for_each_used(begin, [this](const ExpertTiles& expert) {
    const bool is_hit = std::all_of(own_.begin() + static_cast<std::ptrdiff_t>(expert.begin),
                                    own_.begin() + static_cast<std::ptrdiff_t>(expert.end),
                                    [](const Place& p) { return p.state == State::kReady; });
    ++(is_hit ? expert_counters_.hits : expert_counters_.misses);
  });
}

bool WeightStream::is_being_fetched(const ExpertTiles& expert) const {
  return std::any_of(own_.begin() + static_cast<std::ptrdiff_t>(expert.begin),
                     own_.begin() + static_cast<std::ptrdiff_t>(expert.end), [](const Place& p) {
                       return p.state == State::kReading || p.state == State::kCopying;
                     });
}

// A read or a copy under way keeps its memory until it ends, although its sweep is given up.
void WeightStream::note_busy_experts() {
  busy_experts_.clear();
  if (!expert_cache_) return;
  for (uint32_t i = 0; i < plan_.experts.size(); ++i) {
    if (is_being_fetched(plan_.experts[i])) busy_experts_.push_back(i);
  }
}

void WeightStream::place_experts(size_t begin) {
  std::erase_if(busy_experts_, [this](uint32_t i) { return !is_being_fetched(plan_.experts[i]); });
  const uint32_t layer = plan_.experts[begin].layer;
  for (const ExpertCache::Placed& placed :
       expert_cache_->choose(layer, used_experts_, busy_experts_)) {
    if (placed.evicted != ExpertCache::kNone) leave_slot(plan_.experts[placed.evicted]);
    const ExpertTiles& expert = plan_.experts[placed.expert];
    std::byte* memory = slab_.data() + plan_.slot_offset(expert.slot_class, placed.slot);
    for (size_t tile = expert.begin; tile < expert.end; ++tile) {
      own_[tile].memory = memory;
      memory += plan_.list.tiles[tile].read_bytes();
    }
  }
}

void WeightStream::leave_slot(const ExpertTiles& expert) {
  for (size_t tile = expert.begin; tile < expert.end; ++tile) {
    leave_place(own_[tile]);
    own_[tile].memory = nullptr;
  }
}

// All reads of experts with places of their own go out at once, in the order of use: the engine
// thread waits for the first of them first, and the rest are read while it multiplies. That is the
// order of the file, too. Those that stream follow as the ring has room (feed()).
void WeightStream::queue_experts(size_t begin) {
  bool queued = false;
  for_each_used(begin, [&](const ExpertTiles& expert) {
    for (size_t tile = expert.begin; tile < expert.end; ++tile) {
      Place& place = own_[tile];
      if (place.memory != nullptr && place.state == State::kAbsent) queued |= fetch(place);
    }
  });
  if (queued) wake_readers();
}

}  // namespace airllm::stream
