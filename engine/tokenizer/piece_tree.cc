#include "engine/tokenizer/piece_tree.h"

#include <algorithm>

namespace airllm::tokenizer {

PieceTree::PieceTree(std::vector<Piece> pieces) {
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.text < b.text; });
  struct Range {
    uint32_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, static_cast<uint32_t>(pieces.size()), 0}};
  labels_.push_back('\0');
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    const bool is_piece = begin < end && pieces[begin].text.size() == depth;
    ids_.push_back(is_piece ? pieces[begin++].id : -1);
    first_child_.push_back(static_cast<uint32_t>(ranges.size()));
    while (begin < end) {
      const char label = pieces[begin].text[depth];
      uint32_t stop = begin + 1;
      while (stop < end && pieces[stop].text[depth] == label) ++stop;
      ranges.push_back({begin, stop, depth + 1});
      labels_.push_back(label);
      begin = stop;
    }
  }
  first_child_.push_back(static_cast<uint32_t>(ranges.size()));
}

}  // namespace airllm::tokenizer
