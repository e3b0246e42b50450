#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

#include "base/duration.h"
#include "base/json.h"
#include "base/units.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

constexpr double kMostSeconds = 1e9;

std::string progress_cell(const Json& job) {
  if (!job.contains("done")) return "-";  // another user's
  const auto amount = [&](const char* key) {
    const uint64_t count = count_of(job, key);
    return job.value("unit", Json("")) == Json("bytes") ? format_size(count)
                                                        : std::to_string(count);
  };
  std::string text = amount("done");
  if (job.value("total", Json(0)) != Json(0)) text += " of " + amount("total");
  return cell(job, "unit") == "tokens" ? text + " tokens" : text;
}

std::string age_cell(const Json& job) {
  const Json age = job.value("age_seconds", Json());
  if (!age.is_number()) return "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.0f s", age.get<double>());
  return text.data();
}

std::string format_jobs(const Json& jobs) {
  std::vector<std::vector<std::string>> rows{
      {"JOB", "USER", "KIND", "MODEL", "STATE", "PROGRESS", "AGE"}};
  for (const Json& job : jobs) {
    if (!job.is_object()) continue;
    rows.push_back({cell(job, "job"), cell(job, "user"), cell(job, "kind"), cell(job, "model"),
                    cell(job, "state"), progress_cell(job), age_cell(job)});
  }
  return format_table(rows);
}

std::string expiry_cell(const Json& model) {
  if (model.value("kept", Json()) == Json(true)) return "never (keep)";
  const Json seconds = model.value("expires_seconds", Json());
  if (!seconds.is_number()) return "never";
  const std::chrono::duration<double> time(std::min(seconds.get<double>(), kMostSeconds));
  const std::string text =
      format_duration(std::chrono::duration_cast<std::chrono::milliseconds>(time));
  return model.value("in_use", Json()) == Json(true) ? text + " after its jobs" : "in " + text;
}

std::string reader_cell(const Json& model) {
  const bool is_buffered = model.value("direct", Json()) == Json(false);
  return cell(model, "reader") + (is_buffered ? ", buffered" : "");
}

std::string hits_cell(const Json& experts) {
  const auto hits = static_cast<double>(count_of(experts, "hits"));
  const double uses = hits + static_cast<double>(count_of(experts, "misses"));
  if (uses == 0) return "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %%", 100 * hits / uses);
  return text.data();
}

// Under memory pressure, what is left of the budget.
std::string format_budget(const Json& status) {
  const uint64_t budget = count_of(status, "ram_budget_bytes");
  const uint64_t full = count_of(status, "ram_bytes");
  if (budget == 0 || budget >= full) return {};
  return "\nRAM budget: " + format_size(budget) + " of " + format_size(full) + ": " +
         cell(status, "ram_budget_reason") + "\n";
}

// Of models with experts: how many memory has room for, and what that has saved.
std::string format_experts(const Json& models) {
  std::vector<std::vector<std::string>> rows{
      {"EXPERTS OF", "ROOM FOR", "RESIDENT", "HITS", "READ", "SAVED"}};
  for (const Json& model : models) {
    const Json experts = model.is_object() ? model.value("experts", Json()) : Json();
    if (!experts.is_object()) continue;
    rows.push_back({cell(model, "name"), cell(experts, "slots") + " of " + cell(experts, "count"),
                    cell(experts, "resident_bytes"), hits_cell(experts),
                    cell(experts, "read_bytes"), cell(experts, "saved_bytes")});
  }
  return rows.size() == 1 ? std::string() : "\n" + format_table(rows);
}

// The models in memory; nothing when there are none.
std::string format_models(const Json& status) {
  const Json models = status.is_object() ? status.value("models", Json()) : Json();
  if (!models.is_array() || models.empty()) return {};
  const bool has_vram = status.value("vram_bytes", Json()).is_number();
  std::vector<std::vector<std::string>> rows{{"IN MEMORY", "TAKES"}};
  if (has_vram) rows.front().push_back("VRAM");
  for (const char* const title : {"RESIDENT", "READ BY", "GOES"}) rows.front().push_back(title);
  for (const Json& model : models) {
    if (!model.is_object()) continue;
    std::vector<std::string>& row = rows.emplace_back();
    row = {cell(model, "name"), cell(model, "ram_bytes")};
    if (has_vram) row.push_back(cell(model, "vram_bytes"));
    row.insert(row.end(), {cell(model, "resident_bytes"), reader_cell(model), expiry_cell(model)});
  }
  return "\n" + format_table(rows) + format_experts(models);
}

}  // namespace

Result<int> run_ps(const Invocation& call) {
  Globals globals = call.globals;
  ArgParser parser("airllm ps", "List the jobs that wait and run, and the models in memory.");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  AIRLLM_TRY(const std::string result, simple_request(connection, protocol::PsParams{}));
  if (globals.json) {
    AIRLLM_TRY_VOID(print_result_json(result));
    return 0;
  }
  AIRLLM_TRY(Json value, parse_result(result));
  Json jobs = value;
  if (value.is_object()) {  // the jobs, and what the daemon says beside them
    jobs = value.value("jobs", Json::array());
    value.erase("jobs");
    AIRLLM_TRY_VOID(print_out(format_object(value)));
  }
  AIRLLM_TRY(const std::string status, simple_request(connection, protocol::StatusParams{}));
  AIRLLM_TRY(const Json memory, parse_result(status));
  AIRLLM_TRY_VOID(print_out(format_jobs(jobs) + format_models(memory) + format_budget(memory)));
  return 0;
}

}  // namespace airllm::client
