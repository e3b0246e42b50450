#include "daemon/job_table.h"

#include <unistd.h>

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

Status JobTable::cancel(engine::JobId job, uid_t user) {
  const auto found = jobs_.find(job);
  if (found != jobs_.end()) {
    if (user != found->second.owner && user != 0 && user != ::geteuid()) {
      return Unexpected(ErrorCode::kNoPermission,
                        "job " + std::to_string(job) + " belongs to another user");
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
