#include "client/access.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "client/socket_path.h"

namespace airllm::client {
namespace {

constexpr const char* kSystemGroup = "airllm";

std::vector<gid_t> process_groups() {
  std::vector<gid_t> groups(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<size_t>(std::max(count, 0)));
  groups.push_back(getegid());
  return groups;
}

// The groups that the database gives the user: those of the next login.
std::vector<gid_t> database_groups() {
  const passwd* const user = getpwuid(geteuid());
  if (user == nullptr) return {};
  int count = 64;
  std::vector<gid_t> groups(static_cast<size_t>(count));
  if (getgrouplist(user->pw_name, user->pw_gid, groups.data(), &count) < 0) {
    groups.resize(static_cast<size_t>(count));
    if (getgrouplist(user->pw_name, user->pw_gid, groups.data(), &count) < 0) return {};
  }
  groups.resize(static_cast<size_t>(count));
  return groups;
}

bool holds(const std::vector<gid_t>& groups, gid_t group) {
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

Membership membership_of(gid_t group) {
  if (holds(process_groups(), group)) return Membership::kMember;
  return holds(database_groups(), group) ? Membership::kNeedsLogin : Membership::kNone;
}

std::string owner_name(uid_t owner) {
  const passwd* const user = getpwuid(owner);
  return user != nullptr ? user->pw_name : std::to_string(owner);
}

// The folder above `path` that this process may not enter; "" when it may enter all.
std::string closed_folder(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path folder;
  for (const fs::path& part : fs::path(path).parent_path()) {
    folder /= part;
    if (faccessat(AT_FDCWD, folder.c_str(), X_OK, AT_EACCESS) != 0 && errno == EACCES) {
      return folder.string();
    }
  }
  return "";
}

Error denied(const std::string& path, const std::string& why, std::string remedy) {
  return {ErrorCode::kNoPermission, "may not connect to " + path + ": " + why, std::move(remedy)};
}

// The socket is there to be looked at, and no group opens it to us.
Error explain_mode(const std::string& path, const struct stat& status) {
  if (status.st_uid != geteuid() && (status.st_mode & S_IWOTH) == 0) {
    return denied(
        path, "it is for user " + owner_name(status.st_uid) + " alone, and you are " + user_name(),
        "use a daemon of your own: airllm --spawn ask ...");
  }
  return denied(path, "the system refuses it",
                "look at its mode ('ls -l " + path + "') and at the system's security policy");
}

}  // namespace

std::string user_name() { return owner_name(geteuid()); }

std::optional<SocketGroup> socket_group(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0) {
    if ((status.st_mode & S_IWGRP) == 0) return std::nullopt;
    const group* const found = getgrgid(status.st_gid);
    const std::string name = found != nullptr ? found->gr_name : std::to_string(status.st_gid);
    return SocketGroup{name, membership_of(status.st_gid)};
  }
  const group* const found = path == kSystemSocket ? getgrnam(kSystemGroup) : nullptr;
  if (found == nullptr) return std::nullopt;
  return SocketGroup{found->gr_name, membership_of(found->gr_gid)};
}

std::string join_group_remedy(const SocketGroup& group) {
  if (group.membership == Membership::kNeedsLogin) {
    return "log in again, or for this shell: newgrp " + group.name;
  }
  return "sudo usermod -aG " + group.name + " " + user_name() + "; then log in again";
}

Error explain_denial(const std::string& path) {
  if (const std::string folder = closed_folder(path); !folder.empty()) {
    return denied(path, "the folder " + folder + " is closed to user " + user_name(),
                  "choose another socket with --socket or AIRLLM_SOCKET, or unset XDG_RUNTIME_DIR "
                  "if it names another user's folder");
  }
  const std::optional<SocketGroup> group = socket_group(path);
  if (group && group->membership == Membership::kNone) {
    return denied(path, "user " + user_name() + " is not in group " + group->name,
                  join_group_remedy(*group));
  }
  if (group && group->membership == Membership::kNeedsLogin) {
    return denied(path,
                  "user " + user_name() + " is in group " + group->name +
                      ", but this login began before that",
                  join_group_remedy(*group));
  }
  struct stat status {};
  (void)stat(path.c_str(), &status);
  return explain_mode(path, status);
}

}  // namespace airllm::client
