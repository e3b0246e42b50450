#include "engine/store/owner.h"

#include <charconv>
#include <memory>

#include "base/log.h"

namespace airllm::store {
namespace {

constexpr uint64_t kMaxOwnerBytes = 64;

}  // namespace

std::optional<uid_t> parse_user(std::string_view text) {
  uid_t user = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), user);
  // -1 stands for "no user" in system calls.
  if (error != std::errc() || rest != text.data() + text.size() || user == uid_t(-1)) return {};
  return user;
}

std::optional<uid_t> read_owner(Disk& disk, const std::string& folder) {
  const std::string path = folder + "/" + kOwnerName;
  if (!disk.exists(path)) return {};
  const Result<std::unique_ptr<DiskFile>> file = disk.open(path, OpenMode::kRead);
  const Result<std::string> text =
      file ? read_text(**file, kMaxOwnerBytes) : Result<std::string>(Unexpected(file.error()));
  std::string_view digits = text ? std::string_view(*text) : std::string_view();
  if (digits.ends_with('\n')) digits.remove_suffix(1);
  const std::optional<uid_t> user = parse_user(digits);
  if (!user) log::warning("{}: not a user's number; the model counts as the daemon's own", path);
  return user;
}

Status write_owner(Disk& disk, const std::string& folder, uid_t owner) {
  return write_text_atomically(disk, folder + "/" + kOwnerName, std::to_string(owner) + "\n");
}

}  // namespace airllm::store
