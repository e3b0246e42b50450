#include "client/in_place.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>
#include <vector>

#include "base/checkpoint_folder.h"
#include "base/utf8.h"
#include "client/pass_files.h"
#include "client/session.h"
#include "client/socket_path.h"
#include "client/user_file.h"

namespace airllm::client {
namespace {

Result<std::string> state_path() {
  if (const auto state = environment("XDG_STATE_HOME"); state && state->front() == '/') {
    return *state + "/airllm/in-place";
  }
  if (const auto home = environment("HOME")) return *home + "/.local/state/airllm/in-place";
  return Unexpected(ErrorCode::kUsage,
                    "there is no place to keep which folders are read in place: HOME is not set",
                    "set HOME or XDG_STATE_HOME");
}

Result<std::vector<std::string>> remembered() {
  AIRLLM_TRY(const std::string path, state_path());
  std::vector<std::string> lines;
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return lines;
    return Unexpected(errno_error("cannot read " + path, errno));
  }
  std::string text;
  std::array<char, 4096> piece;
  ssize_t got = 0;
  while ((got = read(file.get(), piece.data(), piece.size())) > 0) {
    text.append(piece.data(), static_cast<size_t>(got));
  }
  if (got < 0) return Unexpected(errno_error("cannot read " + path, errno));
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool is_weight_file(const std::string& name) {
  return name.ends_with(".safetensors") || name.ends_with(".bin");
}

}  // namespace

Status remember_in_place(const std::string& real_path) {
  AIRLLM_TRY(std::vector<std::string> lines, remembered());
  if (std::find(lines.begin(), lines.end(), real_path) != lines.end()) return {};
  lines.push_back(real_path);
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  AIRLLM_TRY(const std::string path, state_path());
  return write_user_file(path, text);
}

Status pass_files_in_place(Connection& connection, uint64_t id, const protocol::OpenFiles& wanted) {
  if (wanted.directory.empty()) return unexpected_event();
  AIRLLM_TRY(const std::vector<std::string> folders, remembered());
  if (std::find(folders.begin(), folders.end(), wanted.directory) == folders.end()) {
    return Unexpected(ErrorCode::kNoPermission,
                      "the daemon asks for files of '" +
                          escape_for_display(wanted.directory, true) +
                          "', which is not among the folders that you have split in place",
                      "if it should be: airllm split --in-place FOLDER");
  }
  AIRLLM_TRY(const CheckpointFolder folder, CheckpointFolder::open(wanted.directory));
  return pass_files(connection, id, wanted, [&](const std::string& name) {
    if (is_weight_file(name)) return folder.open_file(name);
    return CheckpointFolder::Opened{UniqueFd(), "not a file of weights"};
  });
}

}  // namespace airllm::client
