// Which model a request means, and the default that can be changed while the daemon runs.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/engine.h"

namespace airllm::daemon {

// The daemon's default model: STORE/default when it was set at run time, else the configuration's.
// Belongs to the connection thread.
class DefaultModel {
 public:
  // Reads STORE/default. A file that is none of ours is a kConfig error.
  static Result<DefaultModel> load(const std::string& store_dir, std::string configured);

  // Empty: none.
  const std::string& get() const { return stored_.empty() ? configured_ : stored_; }
  // The configuration's has changed.
  void configure(std::string name) { configured_ = std::move(name); }
  // Remembers `name` durably; an empty one goes back to the configuration's.
  Status set(const std::string& name);

 private:
  std::string path_;
  std::string configured_;
  std::string stored_;
};

// The model that a request means that names `wanted`: that one (Engine::find), else the default,
// else the only one that `viewer` may ask, where a bundled one does not count beside another.
// Otherwise a kUsage error with the names that there are.
Result<engine::ModelRef> resolve_model(const std::string& wanted, const DefaultModel& default_model,
                                       engine::Engine& engine, const engine::Viewer& viewer);

// model_name_from_path() of what a client calls the directory; kUsage when that says no name.
Result<std::string> name_from_label(const std::string& source_label);

}  // namespace airllm::daemon
