#include "daemon/models.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "base/json.h"
#include "base/model_name.h"
#include "base/unique_fd.h"
#include "base/utf8.h"

namespace airllm::daemon {
namespace {

constexpr size_t kMaxNameBytes = 255;

Status write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t size = ::write(fd, text.data(), text.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Unexpected(errno_error(path, errno));
    text.remove_prefix(static_cast<size_t>(size));
  }
  if (::fsync(fd) != 0) return Unexpected(errno_error(path, errno));
  return {};
}

// So that a rename or an unlink in the file's directory survives a crash.
void sync_parent(const std::string& path) {
  const std::string dir = std::filesystem::path(path).parent_path().string();
  const UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) ::fsync(fd.get());
}

Status replace_file(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  const UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd.valid()) return Unexpected(errno_error(temporary, errno));
  if (auto status = write_all(fd.get(), text, temporary); !status) {
    ::unlink(temporary.c_str());
    return status;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Unexpected(errno_error(path, errno));
  sync_parent(path);
  return {};
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

bool flag(const Json& model, const char* key, bool otherwise) {
  const auto found = model.find(key);
  return found != model.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

struct Names {
  std::vector<std::string> bundled;
  std::vector<std::string> others;
};

Names complete_models(const Json& list) {
  Names names;
  if (!list.is_array()) return names;
  for (const Json& model : list) {
    const auto name = model.find("name");
    if (name == model.end() || !name->is_string() || !flag(model, "complete", true)) continue;
    (flag(model, "bundled", false) ? names.bundled : names.others)
        .push_back(name->get<std::string>());
  }
  return names;
}

}  // namespace

Result<DefaultModel> DefaultModel::load(const std::string& store_dir, std::string configured) {
  DefaultModel model;
  model.path_ = store_dir + "/default";
  model.configured_ = std::move(configured);
  const UniqueFd fd(::open(model.path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT) return model;
    return Unexpected(errno_error(model.path_, errno));
  }
  std::array<char, kMaxNameBytes + 2> buffer{};
  const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
  if (size < 0) return Unexpected(errno_error(model.path_, errno));
  std::string name(buffer.data(), static_cast<size_t>(size));
  if (name.ends_with('\n')) name.pop_back();
  const bool wrong = name.size() > kMaxNameBytes || name.find('\n') != std::string::npos ||
                     find_invalid_utf8(name) != kValidUtf8;
  if (wrong) {
    return Unexpected(ErrorCode::kConfig, model.path_ + ": not the name of a model",
                      "remove the file, then choose again: airllm default --daemon MODEL");
  }
  model.stored_ = std::move(name);
  return model;
}

Status DefaultModel::set(const std::string& name) {
  if (name.empty()) {
    if (::unlink(path_.c_str()) != 0 && errno != ENOENT) {
      return Unexpected(errno_error(path_, errno));
    }
    sync_parent(path_);
  } else {
    if (name.size() > kMaxNameBytes || name.find('\n') != std::string::npos) {
      return Unexpected(ErrorCode::kUsage, "not the name of a model");
    }
    AIRLLM_TRY_VOID(replace_file(path_, name + "\n"));
  }
  stored_ = name;
  return {};
}

namespace {

Result<std::string> choose_model(const DefaultModel& default_model, engine::Engine& engine,
                                 const engine::Viewer& viewer) {
  if (!default_model.get().empty()) return default_model.get();
  AIRLLM_TRY(const Json list, engine.list({viewer.user}));
  const Names names = complete_models(list);
  if (names.others.size() == 1) return names.others.front();
  if (names.others.empty() && names.bundled.size() == 1) return names.bundled.front();
  std::vector<std::string> all = names.others;
  all.insert(all.end(), names.bundled.begin(), names.bundled.end());
  if (all.empty()) {
    return Unexpected(ErrorCode::kUsage, "the store has no model",
                      "make one: airllm split DIR --name NAME");
  }
  return Unexpected(ErrorCode::kUsage,
                    "no model is named, and the store has several: " + joined(all),
                    "name one with -m MODEL, or choose a default: airllm default MODEL");
}

}  // namespace

Result<engine::ModelRef> resolve_model(const std::string& wanted, const DefaultModel& default_model,
                                       engine::Engine& engine, const engine::Viewer& viewer) {
  std::string name = wanted;
  if (name.empty()) {
    AIRLLM_TRY(name, choose_model(default_model, engine, viewer));
  }
  AIRLLM_TRY(engine::FoundModel found, engine.find(name, viewer));
  return std::move(found.model);
}

Result<std::string> name_from_label(const std::string& source_label) {
  std::string name = model_name_from_path(source_label);
  if (!name.empty()) return name;
  return Unexpected(ErrorCode::kUsage, "'" + source_label + "' says no name for the model",
                    "give one with --name NAME");
}

}  // namespace airllm::daemon
