// The weights of a checkpoint that `airllm split --delete-original` removes when the store has
// them.
//
// What is removed: the files that the index names, or the single one, then the index; never
// anything else. In a snapshot of the hub's cache these are links, and the blobs behind them go
// with them unless another link of the repository leads there. Since the index goes last, an
// interrupted removal is seen by the files that it misses, and the model, whose manifest names them
// all, tells that it was not an incomplete download.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/checkpoint_folder.h"
#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::client {

// Borrows the folder.
class Original {
 public:
  // Finds the weights in the order in which transformers looks for them. kNoInput when there are
  // none; an index that names no plain files is kData.
  static Result<Original> find(const CheckpointFolder& folder);

  // Those whose removal has begun lack some.
  bool is_complete() const { return missing_.empty(); }
  size_t count() const { return names_.size(); }
  // What remove() would free now.
  uint64_t freed_bytes() const;

  // Whether `shown`, the result of a show request, is of a model that holds all the weights itself
  // and was made from the very files that are there. A kData error says which one differs.
  Status check_made_into(const Json& shown) const;
  // Removes them. What is exchanged meanwhile is left alone, and is an error.
  Status remove() const;

 private:
  struct Place {
    int folder;
    std::string name;
  };

  explicit Original(const CheckpointFolder& folder) : folder_(folder) {}
  Status find_names();
  Status read_index(const std::string& name);
  Status look();
  Status find_other_links();
  Place place_of(const std::string& name) const;
  bool is_shared(const std::string& name) const;
  Status remove_one(const std::string& name) const;

  const CheckpointFolder& folder_;
  std::vector<std::string> names_;  // the index last
  std::string index_;               // its name, or empty
  std::vector<std::string> missing_;
  std::map<std::string, std::string> identities_;  // of those that are there
  std::set<std::string> other_blobs_;              // that other links lead to
};

}  // namespace airllm::client
