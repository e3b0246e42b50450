#include "client/socket_path.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace airllm::client {
namespace {

std::string folder_below_tmp() { return "/tmp/airllm-" + std::to_string(getuid()); }

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::string user_socket_path() {
  std::string folder = environment("XDG_RUNTIME_DIR").value_or("");
  // A relative path there is to be ignored, says the XDG specification.
  if (folder.empty() || folder.front() != '/') {
    folder = "/run/user/" + std::to_string(getuid());
    struct stat status {};
    const bool is_ours = stat(folder.c_str(), &status) == 0 && status.st_uid == getuid();
    if (!is_ours) return folder_below_tmp() + "/airllm.sock";
  }
  return folder + "/airllm/airllm.sock";
}

bool is_private_place(const std::string& user_socket_path) {
  const std::string folder = folder_below_tmp();
  if (!user_socket_path.starts_with(folder + "/")) return true;
  struct stat status {};
  if (lstat(folder.c_str(), &status) != 0) return errno == ENOENT;
  return S_ISDIR(status.st_mode) && status.st_uid == getuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::string log_of(const std::string& socket_path) {
  if (access((socket_path + ".log").c_str(), F_OK) == 0) return socket_path + ".log";
  if (socket_path == kSystemSocket) return "journalctl -u airllmd";
  if (socket_path == user_socket_path()) return "journalctl --user -u airllmd";
  return "what it wrote to standard error";
}

std::optional<NamedSocket> named_socket(const Globals& globals) {
  if (globals.socket) return NamedSocket{*globals.socket, "--socket"};
  if (const auto path = environment("AIRLLM_SOCKET")) return NamedSocket{*path, "AIRLLM_SOCKET"};
  return std::nullopt;
}

std::vector<std::string> socket_candidates(const Globals& globals) {
  if (const auto named = named_socket(globals)) return {named->path};
  std::vector<std::string> paths;
  if (const std::string path = user_socket_path(); is_private_place(path)) paths.push_back(path);
  paths.emplace_back(kSystemSocket);
  return paths;
}

}  // namespace airllm::client
