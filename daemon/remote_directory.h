// The directory that a split reads, or files of a model that is read in place, at the client's
// side: the daemon asks for names, the client opens them with its own rights and passes
// descriptors.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/job_bridge.h"
#include "engine/engine.h"
#include "protocol/messages.h"

namespace airllm::daemon {

// Thread-safe: open() blocks the job's worker, the rest is called by the connection.
class RemoteDirectory : public engine::SourceDirectory, public engine::OwnerFiles {
 public:
  // `label` names the directory in messages; `chat_templates` is what the client says is there.
  RemoteDirectory(std::shared_ptr<JobBridge> bridge, std::string label,
                  std::vector<std::string> chat_templates)
      : bridge_(std::move(bridge)),
        label_(std::move(label)),
        chat_templates_(std::move(chat_templates)) {}

  Result<std::vector<UniqueFd>> open(std::span<const std::string> names) override {
    return ask({{names.begin(), names.end()}, ""});
  }
  Result<std::vector<UniqueFd>> open_in(const std::string& directory,
                                        std::span<const std::string> names) override {
    return ask({{names.begin(), names.end()}, directory});
  }
  std::vector<std::string> chat_templates() const override { return chat_templates_; }

  // The client's answer. kProtocol when it does not fit what was asked; open() then fails, too.
  Status deliver(protocol::Files files, std::vector<UniqueFd> descriptors);
  // Makes a waiting open(), and all later ones, end with kCancelled.
  void close();

 private:
  struct Answer {
    protocol::Files files;
    std::vector<UniqueFd> descriptors;
  };
  Result<std::vector<UniqueFd>> ask(const protocol::OpenFiles& files);
  Status check(const protocol::Files& files, size_t descriptors) const;
  static Result<std::vector<UniqueFd>> take(Answer answer, const std::string& label);

  const std::shared_ptr<JobBridge> bridge_;
  const std::string label_;
  const std::vector<std::string> chat_templates_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::vector<std::string>> asked_;
  std::optional<Answer> answer_;
  bool closed_ = false;
};

}  // namespace airllm::daemon
