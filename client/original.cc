#include "client/original.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "base/file_identity.h"
#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;

// In the order in which transformers looks for them; an index names the files.
constexpr const char* kWeights[] = {"model.safetensors", "model.safetensors.index.json",
                                    "pytorch_model.bin", "pytorch_model.bin.index.json"};
constexpr size_t kMaxIndexBytes = 64 * kMiB;
constexpr const char* kLeftRemedy = "nothing else of it was removed";

// Of what lies under the name itself, no link followed.
std::optional<struct stat> status_of(int folder, const std::string& name) {
  struct stat status {};
  if (fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return status;
}

Result<std::string> read_all(int file, const std::string& path) {
  std::string text;
  std::array<char, 65536> piece;
  for (;;) {
    const ssize_t got = read(file, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Unexpected(errno_error("cannot read " + path, errno));
    if (got == 0) return text;
    text.append(piece.data(), static_cast<size_t>(got));
    if (text.size() > kMaxIndexBytes) return Unexpected(ErrorCode::kData, path + ": too long");
  }
}

Status remove_name(int folder, const std::string& name, const std::string& path) {
  if (unlinkat(folder, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return Unexpected(
      errno_error("cannot remove " + path, errno, "the same command goes on when that is mended"));
}

}  // namespace

Result<Original> Original::find(const CheckpointFolder& folder) {
  Original out(folder);
  AIRLLM_TRY_VOID(out.find_names());
  AIRLLM_TRY_VOID(out.find_other_links());
  AIRLLM_TRY_VOID(out.look());
  return out;
}

Status Original::find_names() {
  for (const std::string name : kWeights) {
    if (!status_of(folder_.fd(), name)) continue;
    if (name.ends_with(".json")) return read_index(name);
    names_.push_back(name);
    return {};
  }
  return Unexpected(ErrorCode::kNoInput, folder_.real_path() + ": there are no weights in it",
                    "give the folder of a Hugging Face model");
}

Status Original::read_index(const std::string& name) {
  const std::string path = folder_.real_path() + "/" + name;
  const CheckpointFolder::Opened opened = folder_.open_file(name);
  if (!opened.fd.valid()) return Unexpected(ErrorCode::kNoInput, path + ": " + opened.status);
  AIRLLM_TRY(const std::string text, read_all(opened.fd.get(), path));
  AIRLLM_TRY(const Json root, parse_json_object(text, path));
  const auto map = root.find("weight_map");
  if (map == root.end() || !map->is_object()) {
    return Unexpected(ErrorCode::kData, path + ": it has no weight_map");
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !is_plain_component(file.get_ref<const std::string&>())) {
      return Unexpected(ErrorCode::kData, path + ": it names what is no plain file");
    }
    names.insert(file.get<std::string>());
  }
  names.erase(name);
  names_.assign(names.begin(), names.end());
  names_.push_back(name);
  index_ = name;
  return {};
}

Original::Place Original::place_of(const std::string& name) const {
  const std::string blob = folder_.blob_of(name);
  if (blob.empty()) return {folder_.fd(), name};
  return {folder_.blobs(), blob};
}

Status Original::look() {
  for (const std::string& name : names_) {
    const Place place = place_of(name);
    const auto status = status_of(place.folder, place.name);
    if (!status) {
      missing_.push_back(name);
    } else if (!S_ISREG(status->st_mode)) {
      return Unexpected(ErrorCode::kNoInput,
                        folder_.real_path() + "/" + name +
                            ": neither a file nor a link into the "
                            "repository's blobs/",
                        "remove the original yourself");
    } else {
      identities_[name] = file_identity(*status);
    }
  }
  return {};
}

// Those of the whole repository, but for the ones that are to be removed.
Status Original::find_other_links() {
  if (folder_.blobs() < 0) return {};
  const fs::path snapshots = folder_.repository() + "/snapshots";
  std::error_code failure;
  fs::recursive_directory_iterator at(snapshots, failure);
  for (; !failure && at != fs::end(at); at.increment(failure)) {
    if (!at->is_symlink(failure)) continue;
    const bool is_own =
        at->path().parent_path() == folder_.real_path() &&
        std::find(names_.begin(), names_.end(), at->path().filename().string()) != names_.end();
    const fs::path target = fs::read_symlink(at->path(), failure);
    if (!is_own && !failure) other_blobs_.insert(target.filename().string());
  }
  if (!failure) return {};
  return Unexpected(errno_error("cannot look for other links in " + snapshots.string(),
                                failure.value(), "remove the original yourself"));
}

bool Original::is_shared(const std::string& name) const {
  const std::string blob = folder_.blob_of(name);
  return !blob.empty() && other_blobs_.contains(blob);
}

uint64_t Original::freed_bytes() const {
  uint64_t sum = 0;
  for (const std::string& name : names_) {
    const Place place = place_of(name);
    const auto status = status_of(place.folder, place.name);
    if (!status || status->st_nlink > 1 || is_shared(name)) continue;
    sum += static_cast<uint64_t>(status->st_size);
  }
  return sum;
}

Status Original::check_made_into(const Json& shown) const {
  std::map<std::string, std::string> made_from;
  if (shown.is_object() && shown.value("in_place", Json()).is_null()) {
    for (const Json& file : shown.value("source_files", Json::array())) {
      if (!file.is_object()) continue;
      const Json name = file.value("name", Json()), identity = file.value("identity", Json());
      if (!name.is_string() || !identity.is_string()) continue;
      made_from[name.get<std::string>()] = identity.get<std::string>();
    }
  }
  for (const std::string& name : names_) {
    if (name == index_) continue;
    const auto source = made_from.find(name);
    const auto now = identities_.find(name);
    const bool is_missing = now == identities_.end();
    if (source != made_from.end() && (is_missing || now->second == source->second)) continue;
    return Unexpected(ErrorCode::kData,
                      folder_.real_path() + "/" + name +
                          (is_missing ? ": it is missing, and" : ": it was changed since:") +
                          " the model was not made of it",
                      "nothing was removed; download the checkpoint again, or use another --name");
  }
  return {};
}

Status Original::remove_one(const std::string& name) const {
  const std::string path = folder_.real_path() + "/" + name;
  const Place place = place_of(name);
  const auto status = status_of(place.folder, place.name);
  const auto known = identities_.find(name);
  if (status && (known == identities_.end() || known->second != file_identity(*status))) {
    return Unexpected(ErrorCode::kData, path + ": it was changed meanwhile", kLeftRemedy);
  }
  // The blob first: a link without it shows that its removal is not done.
  if (place.folder != folder_.fd() && !is_shared(name)) {
    AIRLLM_TRY_VOID(remove_name(place.folder, place.name, path));
  }
  return remove_name(folder_.fd(), name, path);
}

Status Original::remove() const {
  for (const std::string& name : names_) AIRLLM_TRY_VOID(remove_one(name));
  return {};
}

}  // namespace airllm::client
