#include "tests/fuzz/targets.h"

#include <iterator>
#include <utility>

namespace airllm::fuzz {

const std::vector<Target>& targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> out{frame_target()};
    for (Target& target : message_targets()) out.push_back(std::move(target));
    for (Target& target : file_targets()) out.push_back(std::move(target));
    for (Target& target : sentencepiece_targets()) out.push_back(std::move(target));
    for (Target& target : fetch_targets()) out.push_back(std::move(target));
    return out;
  }();
  return all;
}

}  // namespace airllm::fuzz
