#include "client/pass_files.h"

#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace airllm::client {

Status pass_files(
    Connection& connection, uint64_t id, const protocol::OpenFiles& wanted,
    const std::function<CheckpointFolder::Opened(const std::string& name)>& open_file) {
  if (wanted.names.size() > protocol::kMaxDescriptors) {
    return Unexpected(ErrorCode::kProtocol,
                      "the daemon asked for " + std::to_string(wanted.names.size()) +
                          " files at once; at most " + std::to_string(protocol::kMaxDescriptors) +
                          " are allowed");
  }
  protocol::Files files;
  files.id = id;
  files.names = wanted.names;
  std::vector<UniqueFd> owned;
  std::vector<int> descriptors;
  for (const std::string& name : wanted.names) {
    CheckpointFolder::Opened opened = open_file(name);
    if (opened.fd.valid()) descriptors.push_back(opened.fd.get());
    files.status.push_back(std::move(opened.status));
    owned.push_back(std::move(opened.fd));
  }
  return connection.send(std::move(files), descriptors);
}

}  // namespace airllm::client
