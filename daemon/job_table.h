// All jobs that the daemon has started and whose end their clients have not been told yet.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>

#include "daemon/remote_directory.h"
#include "daemon/user.h"
#include "engine/engine.h"

namespace airllm::daemon {

// Belongs to the connection thread.
class JobTable {
 public:
  explicit JobTable(engine::Engine& engine) : engine_(engine) {}

  void add(engine::JobId job, uid_t owner, std::shared_ptr<RemoteDirectory> directory);
  void remove(engine::JobId job);
  size_t size() const { return jobs_.size(); }
  // Called whenever a job has come or gone.
  void on_change(std::function<void()> callback) { on_change_ = std::move(callback); }
  // Called whenever the table becomes empty.
  void on_empty(std::function<void()> callback) { on_empty_ = std::move(callback); }

  // Cancels for `user`: one's own jobs; operators may cancel all. kNoPermission for another's job,
  // kNoInput for an unknown one.
  Status cancel(engine::JobId job, const User& user);
  // Cancels without asking whose it is; also wakes a split that waits for files.
  void cancel_now(engine::JobId job);

 private:
  struct Row {
    uid_t owner;
    std::shared_ptr<RemoteDirectory> directory;
  };
  engine::Engine& engine_;
  std::map<engine::JobId, Row> jobs_;
  std::function<void()> on_empty_;
  std::function<void()> on_change_;
};

}  // namespace airllm::daemon
