#include "engine/store/load_marks.h"

#include <algorithm>
#include <utility>

#include "base/event.h"
#include "base/json.h"

namespace airllm::store {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{16} << 20;
constexpr int kMostCrashes = 2;

}  // namespace

std::unique_ptr<LoadMarks> LoadMarks::open(Disk& disk, std::string path) {
  std::unique_ptr<LoadMarks> marks(new LoadMarks(disk, std::move(path)));
  if (const Status status = marks->read(); !status) {
    log::warning("no crashes are remembered: {}", status.error().message);
    marks->marks_.clear();
  }
  const std::lock_guard lock(marks->mutex_);
  bool changed = false;
  for (auto& [place, mark] : marks->marks_) {
    if (!std::exchange(mark.loading, false)) continue;
    ++mark.crashes;
    changed = true;
    log::warning("model {}: the daemon ended while it was loading ({} in a row)", place,
                 mark.crashes);
  }
  if (changed) marks->write();
  return marks;
}

Status LoadMarks::read() {
  if (!disk_.exists(path_)) return {};
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk_.open(path_, OpenMode::kRead));
  AIRLLM_TRY(const std::string text, read_text(*file, kMaxFileBytes));
  AIRLLM_TRY(const Json json, parse_json(text, path_));
  if (!json.is_object()) return Unexpected(ErrorCode::kData, path_ + ": not an object");
  for (const auto& [place, entry] : json.items()) {
    const auto crashes = entry.find("crashes");
    const auto loading = entry.find("loading");
    if (crashes == entry.end() || !crashes->is_number_unsigned() || loading == entry.end() ||
        !loading->is_boolean()) {
      return Unexpected(ErrorCode::kData, path_ + ": the entry '" + place + "' is none of ours");
    }
    const uint64_t count = std::min<uint64_t>(crashes->get<uint64_t>(), kMostCrashes);
    marks_[place] = {static_cast<int>(count), loading->get<bool>()};
  }
  return {};
}

Status LoadMarks::check(const std::string& place, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = marks_.find(place);
  if (found == marks_.end() || found->second.crashes < kMostCrashes) return {};
  log::event_happened(
      log::event::kModelRefused,
      {{log::kModelField, name}, {log::kErrorField, std::string(error_name(ErrorCode::kData))}},
      "model {}: refused, the daemon crashed twice in a row while it was loading", name);
  return Unexpected(
      ErrorCode::kData,
      "the model '" + name + "' is refused: the daemon crashed twice in a row while it was loading",
      "look for damage, which lets it run again: airllm verify " + name);
}

void LoadMarks::begin(const std::string& place) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  marks_[place].loading = true;
  write();
}

void LoadMarks::end(const std::string& place) {
  const std::lock_guard lock(mutex_);
  const auto found = marks_.find(place);
  if (found == marks_.end() || !std::exchange(found->second.loading, false)) return;
  if (found->second.crashes == 0) marks_.erase(found);
  write();
}

void LoadMarks::clear(const std::string& place) {
  const std::lock_guard lock(mutex_);
  if (marks_.erase(place) > 0) write();
}

void LoadMarks::move(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  const bool had_stale = marks_.erase(to) > 0;
  auto mark = marks_.extract(from);
  if (!mark.empty()) {
    mark.key() = to;
    marks_.insert(std::move(mark));
  } else if (!had_stale) {
    return;
  }
  write();
}

void LoadMarks::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  bool changed = false;
  for (auto& [place, mark] : marks_) changed = std::exchange(mark.loading, false) || changed;
  if (changed) write();
}

void LoadMarks::write() {
  Json json = Json::object();
  for (const auto& [place, mark] : marks_) {
    if (mark.crashes == 0 && !mark.loading) continue;
    json[place] = {{"crashes", mark.crashes}, {"loading", mark.loading}};
  }
  if (const Status status = write_text_atomically(disk_, path_, dump_json(json)); !status) {
    log::warning("a load cannot be marked: {}", status.error().message);
  }
}

}  // namespace airllm::store
