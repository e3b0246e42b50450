#include "daemon/remote_directory.h"

#include <algorithm>

namespace airllm::daemon {
namespace {

constexpr const char* kOk = "ok";
constexpr const char* kMissing = "missing";

Unexpected cancelled() { return Unexpected(ErrorCode::kCancelled, "cancelled"); }

}  // namespace

Result<std::vector<UniqueFd>> RemoteDirectory::ask(const protocol::OpenFiles& files) {
  AIRLLM_CHECK(files.names.size() <= protocol::kMaxDescriptors);
  if (files.names.empty()) return std::vector<UniqueFd>();
  std::unique_lock lock(mutex_);
  AIRLLM_CHECK(!asked_);
  if (closed_) return cancelled();
  asked_ = files.names;
  answer_.reset();
  if (!bridge_->ask_files(files)) return cancelled();
  changed_.wait(lock, [&] { return closed_ || answer_; });
  asked_.reset();
  if (!answer_) return cancelled();
  return take(std::move(*answer_), files.directory.empty() ? label_ : files.directory);
}

Result<std::vector<UniqueFd>> RemoteDirectory::take(Answer answer, const std::string& label) {
  std::vector<UniqueFd> opened;
  size_t next = 0;
  for (size_t i = 0; i < answer.files.names.size(); ++i) {
    const std::string& status = answer.files.status[i];
    if (status == kOk) {
      opened.push_back(std::move(answer.descriptors[next++]));
    } else if (status == kMissing) {
      opened.emplace_back();
    } else {
      return Unexpected(ErrorCode::kNoInput, label + "/" + answer.files.names[i] + ": " + status,
                        "the directory must hold plain files that you may read");
    }
  }
  return opened;
}

Status RemoteDirectory::check(const protocol::Files& files, size_t descriptors) const {
  if (!asked_ || answer_) {
    return Unexpected(ErrorCode::kProtocol, "files came that nobody asked for");
  }
  const auto ok = std::count(files.status.begin(), files.status.end(), kOk);
  if (files.names != *asked_ || files.status.size() != files.names.size()) {
    return Unexpected(ErrorCode::kProtocol, "other files came than were asked for");
  }
  if (static_cast<size_t>(ok) != descriptors) {
    return Unexpected(ErrorCode::kProtocol, std::to_string(descriptors) +
                                                " descriptors came with " + std::to_string(ok) +
                                                " opened files");
  }
  return {};
}

Status RemoteDirectory::deliver(protocol::Files files, std::vector<UniqueFd> descriptors) {
  const std::lock_guard lock(mutex_);
  if (closed_) return {};
  AIRLLM_TRY_VOID(check(files, descriptors.size()));
  answer_.emplace(Answer{std::move(files), std::move(descriptors)});
  changed_.notify_all();
  return {};
}

void RemoteDirectory::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace airllm::daemon
