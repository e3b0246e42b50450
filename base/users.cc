#include "base/users.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <vector>

namespace airllm {
namespace {

constexpr size_t kFirstBufferBytes = 1024;
// A group's entry lists its members.
constexpr size_t kMostBufferBytes = size_t{16} << 20;

// Calls look_up(buffer) with larger and larger buffers, as the *_r functions want it.
template <typename LookUp>
bool with_buffer(const LookUp& look_up) {
  for (size_t bytes = kFirstBufferBytes; bytes <= kMostBufferBytes; bytes *= 4) {
    std::vector<char> buffer(bytes);
    const int error = look_up(buffer);
    if (error != ERANGE) return error == 0;
  }
  return false;
}

}  // namespace

std::string user_name(uid_t user) {
  std::string name = std::to_string(user);
  (void)with_buffer([&](std::vector<char>& buffer) {
    passwd entry{};
    passwd* found = nullptr;
    const int error = ::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found);
    if (error == 0 && found != nullptr) name = entry.pw_name;
    return error;
  });
  return name;
}

std::optional<gid_t> find_group(const std::string& name) {
  std::optional<gid_t> id;
  (void)with_buffer([&](std::vector<char>& buffer) {
    group entry{};
    group* found = nullptr;
    const int error = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (error == 0 && found != nullptr) id = entry.gr_gid;
    return error;
  });
  return id;
}

}  // namespace airllm
