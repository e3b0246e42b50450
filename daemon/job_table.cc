#include "daemon/job_table.h"

#include "base/log.h"

namespace airllm::daemon {

void JobTable::add(engine::JobId job, uid_t owner, std::shared_ptr<RemoteDirectory> directory) {
  jobs_.insert_or_assign(job, Row{owner, std::move(directory)});
  if (on_change_) on_change_();
}

void JobTable::remove(engine::JobId job) {
  if (jobs_.erase(job) == 0) return;
  if (on_change_) on_change_();
  if (jobs_.empty() && on_empty_) on_empty_();
}

Status JobTable::cancel(engine::JobId job, const User& user) {
  const auto found = jobs_.find(job);
  if (found != jobs_.end()) {
    if (user.uid != found->second.owner && !user.is_operator) {
      return Unexpected(ErrorCode::kNoPermission,
                        "job " + std::to_string(job) +
                            " belongs to another user: only that user, root and the daemon's own "
                            "user may cancel it",
                        "airllm ps shows whose job it is");
    }
    if (found->second.directory) found->second.directory->close();
  }
  return engine_.cancel(job);
}

void JobTable::cancel_now(engine::JobId job) {
  const auto found = jobs_.find(job);
  if (found != jobs_.end() && found->second.directory) found->second.directory->close();
  if (auto status = engine_.cancel(job); !status) {
    // It has ended by itself meanwhile.
    log::debug("job {}: {}", job, status.error().message);
  }
}

}  // namespace airllm::daemon
