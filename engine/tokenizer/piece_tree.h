// Texts found from the front of another text: all pieces as a tree of bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace airllm::tokenizer {

// Immutable after construction; safe to share between threads. The children of a node lie side by
// side, in the order of nodes; 9 bytes per node.
class PieceTree {
 public:
  struct Piece {
    std::string_view text;  // not empty
    int32_t id;
  };
  // The texts differ from each other; they are not kept.
  explicit PieceTree(std::vector<Piece> pieces);

  bool empty() const { return ids_.size() == 1; }

  // Calls `found` with length and id of each piece with which `text` begins, shortest first.
  template <typename Found>
  void for_each_prefix(std::string_view text, Found found) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const char* first = labels_.data() + first_child_[node];
      const size_t count = first_child_[node + 1] - first_child_[node];
      const void* child = std::memchr(first, static_cast<unsigned char>(text[i]), count);
      if (child == nullptr) return;
      node = static_cast<uint32_t>(static_cast<const char*>(child) - labels_.data());
      if (ids_[node] >= 0) found(i + 1, ids_[node]);
    }
  }

 private:
  std::vector<uint32_t> first_child_;  // one more than nodes
  std::vector<int32_t> ids_;           // -1: no piece ends here
  std::string labels_;
};

}  // namespace airllm::tokenizer
