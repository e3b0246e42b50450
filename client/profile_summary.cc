#include "client/profile_summary.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/units.h"
#include "base/utf8.h"

namespace airllm::client {
namespace {

// Stages by name; a model has some hundred, and a daemon that is none could send any number.
constexpr size_t kMostStages = 4096;
constexpr size_t kStagesShown = 8;
constexpr double kNanosecondsPerSecond = 1e9;
// Some decades; what no daemon sends could overflow.
constexpr int64_t kLongestNs = int64_t{1} << 60;

double seconds(uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / kNanosecondsPerSecond;
}

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

template <typename... Values>
std::string print(const char* format, Values... values) {
  std::array<char, 160> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, values...);
  return buffer.data();
}

std::string time_line(const char* what, double part, double whole, const char* meaning) {
  return print("  %-9s %9.3f s  %5.1f %%  %s\n", what, part, percent(part, whole), meaning);
}

}  // namespace

void ProfileSummary::add(const protocol::Profile& profile) {
  for (const protocol::ProfileEvent& event : profile.events) add(event);
  lost_ = profile.lost;
}

void ProfileSummary::Transfers::add(const protocol::ProfileEvent& event) {
  ++count;
  bytes += event.read_bytes;
  if (event.begin_ns < -kLongestNs || event.begin_ns > kLongestNs ||
      event.duration_ns > static_cast<uint64_t>(kLongestNs))
    return;
  time.add(event.begin_ns, event.begin_ns + static_cast<int64_t>(event.duration_ns));
}

double ProfileSummary::Transfers::total_seconds() const {
  return std::max(static_cast<double>(time.length()), 0.0) / kNanosecondsPerSecond;
}

std::string ProfileSummary::Transfers::rate() const {
  const double taken = total_seconds();
  return format_size(bytes) +
         print(" at %.2f GB/s in ", taken > 0 ? static_cast<double>(bytes) / taken / 1e9 : 0.0) +
         std::to_string(count);
}

void ProfileSummary::add(const protocol::ProfileEvent& event) {
  if (event.kind == "sweep") {
    ++sweeps_;
    sweeps_ns_ += event.duration_ns;
    rows_ += event.rows;
    other_rows_ += event.other_rows;
  } else if (event.kind == "wait") {
    waits_ns_ += event.duration_ns;
  } else if (event.kind == "sample") {
    samples_ns_ += event.duration_ns;
  } else if (event.kind == "read") {
    reads_.add(event);
  } else if (event.kind == "copy") {
    copies_.add(event);
  } else if (event.kind == "stage") {
    if (stages_.size() >= kMostStages && !stages_.contains(event.name)) return;
    Stage& stage = stages_[event.name];
    ++stage.times;
    stage.duration_ns += event.duration_ns;
    stage.read_bytes += event.read_bytes;
  }
}

std::string ProfileSummary::text(const protocol::Generated& generated) const {
  const double total = generated.total_ms / 1000;
  const double waiting = seconds(waits_ns_);
  const double computing = std::max(seconds(sweeps_ns_) - waiting, 0.0);
  std::string out = print("profile: %.3f s, %llu sweeps, %llu tokens\n", total,
                          static_cast<unsigned long long>(sweeps_),
                          static_cast<unsigned long long>(generated.completion_tokens));
  out += time_line("computing", computing, total, "of the engine thread");
  out += time_line("waiting", waiting, total, "of the engine thread, for reading");
  out += time_line("sampling", seconds(samples_ns_), total, "of the engine thread");
  out += time_line("reading", reads_.total_seconds(), total, "of the readers, beside all these");
  if (copies_.count > 0) {
    out += time_line("copying", copies_.total_seconds(), total,
                     "to the device's memory, beside all these");
  }
  out += "  read " + reads_.rate() + " reads; used " + format_size(generated.read_bytes) +
         " from disk, " + format_size(generated.cache_bytes) + " from memory\n";
  if (copies_.count > 0) out += "  copied " + copies_.rate() + " copies\n";
  out += "  rows: " + std::to_string(rows_) + " of this job, " + std::to_string(other_rows_) +
         " of others\n";
  out += slowest_stages();
  if (lost_ > 0) {
    out += "  " + std::to_string(lost_) +
           " events are left out, since there were too many: ask for fewer tokens (-n)\n";
  }
  if (sweeps_ == 0 && lost_ == 0 && generated.sweeps > 0) {
    out += "  the daemon told nothing: it is older than this program; restart it\n";
  }
  return out;
}

std::string ProfileSummary::slowest_stages() const {
  std::vector<std::pair<std::string, Stage>> sorted(stages_.begin(), stages_.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second.duration_ns > b.second.duration_ns;
  });
  if (sorted.size() > kStagesShown) sorted.resize(kStagesShown);
  std::string out = sorted.empty() ? "" : "  slowest stages, each time and read from disk:\n";
  for (const auto& [name, stage] : sorted) {
    const std::string shown = escape_for_display(name, true).substr(0, 40);
    out += print("    %-12s %9.3f ms  ", shown.c_str(),
                 seconds(stage.duration_ns) * 1000 / static_cast<double>(stage.times)) +
           format_size(stage.read_bytes / stage.times) + "\n";
  }
  return out;
}

}  // namespace airllm::client
