#include "engine/store/shelf.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "engine/store/names.h"

namespace airllm::store {
namespace {

constexpr int kMaxNameParts = 64;
constexpr const char* kTrashPrefix = ".trash-";

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

std::string Shelf::incoming(std::string name) const {
  std::replace(name.begin(), name.end(), '/', '+');
  return incoming() + "/" + name;
}

// ---- after a crash -----------------------------------------------------------------------------

Status Shelf::clean(const std::function<void()>& on_step) {
  if (disk_.exists(incoming())) AIRLLM_TRY_VOID(clean_incoming(on_step));
  return clean_models(on_step);
}

// A crash leaves trash, and folders without a journal that could go on.
Status Shelf::clean_incoming(const std::function<void()>& on_step) {
  AIRLLM_TRY(const std::vector<DirEntry> entries, disk_.list(incoming()));
  for (const DirEntry& entry : entries) {
    if (on_step) on_step();
    const std::string path = incoming() + "/" + entry.name;
    const Result<Journal> journal = read_journal(disk_, path);
    if (journal && incoming(journal->name) == path) continue;
    if (!journal && journal.error().code == ErrorCode::kIo) continue;
    log::info("store: dropping {}, which cannot be resumed", path);
    AIRLLM_TRY_VOID(disk_.remove_tree(path));
  }
  return {};
}

// A crash right behind a split's rename leaves its journal in the model.
Status Shelf::clean_models(const std::function<void()>& on_step) {
  AIRLLM_TRY(const std::vector<std::string> all, names());
  for (const std::string& name : all) {
    if (on_step) on_step();
    const std::string journal = model(name) + "/" + kJournalName;
    if (disk_.exists(journal)) AIRLLM_TRY_VOID(disk_.remove_file(journal));
  }
  return {};
}

// ---- what is there -----------------------------------------------------------------------------

// A folder above other models, such as an organisation's, is no model.
bool Shelf::has(const std::string& name) const {
  return disk_.exists(model(name) + "/" + kManifestName);
}

bool Shelf::has_unfinished(const std::string& name) const { return disk_.exists(incoming(name)); }

Result<std::vector<std::string>> Shelf::names() const {
  std::vector<std::string> out;
  if (may_be_absent_ && !disk_.exists(models())) return out;
  Status status = collect_models("", 0, out);
  if (status) return out;
  Error error = std::move(status).error();
  error.message = "cannot list the store: " + error.message;
  error.remedy = "see whether its disk is there and may be read; then restart the daemon";
  return Unexpected(std::move(error));
}

Status Shelf::collect_models(const std::string& prefix, int depth,
                             std::vector<std::string>& out) const {
  AIRLLM_TRY(const std::vector<DirEntry> entries,
             disk_.list(prefix.empty() ? models() : model(prefix)));
  for (const DirEntry& entry : entries) {
    const std::string name = prefix.empty() ? entry.name : prefix + "/" + entry.name;
    if (!entry.is_directory || !is_valid_model_name(name)) continue;
    if (has(name)) {
      out.push_back(name);
    } else if (depth < kMaxNameParts) {
      AIRLLM_TRY_VOID(collect_models(name, depth + 1, out));
    }
  }
  return {};
}

std::vector<Journal> Shelf::unfinished() const {
  std::vector<Journal> out;
  if (!disk_.exists(incoming())) return out;
  Result<std::vector<DirEntry>> entries = disk_.list(incoming());
  if (!entries) return out;
  for (const DirEntry& entry : *entries) {
    if (!entry.is_directory || entry.name.starts_with('.')) continue;
    Result<Journal> journal = read_journal(disk_, incoming() + "/" + entry.name);
    if (journal) out.push_back(std::move(journal).value());
  }
  return out;
}

Status Shelf::check_nesting(const std::string& name) const {
  AIRLLM_TRY(const std::vector<std::string> all, names());
  for (const std::string& other : all) {
    if (other.starts_with(name + "/") || name.starts_with(other + "/")) {
      return Unexpected(ErrorCode::kCannotCreate,
                        "the name " + name + " cannot stand beside the model " + other,
                        "choose another name with --name");
    }
  }
  return {};
}

// ---- changes -----------------------------------------------------------------------------------

Status Shelf::take_in(const std::string& folder, const std::string& name) {
  const std::string target = model(name);
  const std::string parent = parent_of(target);
  AIRLLM_TRY_VOID(disk_.make_directories(parent));
  AIRLLM_TRY_VOID(disk_.rename(folder, target));
  AIRLLM_TRY_VOID(disk_.sync_directory(parent));
  if (parent != models()) AIRLLM_TRY_VOID(disk_.sync_directory(models()));
  return disk_.sync_directory(parent_of(folder));
}

Status Shelf::discard(const std::string& folder) {
  AIRLLM_TRY_VOID(disk_.make_directories(incoming()));
  std::string trash;
  for (int i = 0; trash.empty() || disk_.exists(trash); ++i) {
    trash = incoming() + "/" + kTrashPrefix + std::to_string(::getpid()) + "-" + std::to_string(i);
  }
  AIRLLM_TRY_VOID(disk_.rename(folder, trash));
  AIRLLM_TRY_VOID(disk_.sync_directory(parent_of(folder)));
  return disk_.remove_tree(trash);
}

Status Shelf::drop_empty_parents(std::string name) {
  for (size_t slash = name.rfind('/'); slash != name.npos; slash = name.rfind('/')) {
    name.resize(slash);
    const Result<std::vector<DirEntry>> entries = disk_.list(model(name));
    if (!entries || !entries->empty()) break;
    AIRLLM_TRY_VOID(disk_.remove_tree(model(name)));
  }
  return {};
}

}  // namespace airllm::store
