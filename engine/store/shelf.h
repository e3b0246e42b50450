// A shelf: the models that the same people see, in one folder.
//
//   SHELF/models/NAME/…      whole models
//   SHELF/incoming/NAME/…    splits under way or interrupted, and what is being removed
//
// The store's own folder is the shelf of the shared models; STORE/users/UID is that of the models
// that this user alone sees.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/store/disk.h"
#include "engine/store/journal.h"

namespace airllm::store {

// Names are valid ones (store.h). Borrows the disk. Locks nothing: the caller makes sure that
// nobody else works on the same model of the shelf.
class Shelf {
 public:
  // A shelf that `may_be_absent` has no models when its folder is not there; otherwise that is an
  // error.
  Shelf(Disk& disk, std::string root, bool may_be_absent)
      : disk_(disk), root_(std::move(root)), may_be_absent_(may_be_absent) {}

  const std::string& root() const { return root_; }
  std::string models() const { return root_ + "/models"; }
  std::string incoming() const { return root_ + "/incoming"; }
  std::string model(const std::string& name) const { return models() + "/" + name; }
  // One flat folder per split under way: '+' is in no model's name.
  std::string incoming(std::string name) const;

  // Drops what a crash left that cannot be resumed. To be called before anything else. `on_step` is
  // called for each folder it looks into; may be empty.
  Status clean(const std::function<void()>& on_step);

  bool has(const std::string& name) const;
  bool has_unfinished(const std::string& name) const;
  // Of the whole models.
  Result<std::vector<std::string>> names() const;
  std::vector<Journal> unfinished() const;

  // models/a and models/a/b cannot both be models: kCannotCreate.
  Status check_nesting(const std::string& name) const;
  // Makes `folder`, complete and synced, the model `name` by one rename, and syncs that. No model
  // of the name is there.
  Status take_in(const std::string& folder, const std::string& name);
  // Removes a folder of the shelf so that a crash leaves all of it or nothing that counts.
  Status discard(const std::string& folder);
  // Removes the folders above a model that is gone, as far as they are empty.
  Status drop_empty_parents(std::string name);

 private:
  Status clean_incoming(const std::function<void()>& on_step);
  Status clean_models(const std::function<void()>& on_step);
  Status collect_models(const std::string& prefix, int depth, std::vector<std::string>& out) const;

  Disk& disk_;
  std::string root_;
  bool may_be_absent_;
};

}  // namespace airllm::store
