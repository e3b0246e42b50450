#include "client/diagnosis.h"

#include <algorithm>

#include "base/json.h"
#include "client/output.h"
#include "client/table.h"

namespace airllm::client {
namespace {

const char* finding_name(Finding finding) {
  switch (finding) {
    case Finding::kOk: return "ok";
    case Finding::kWarning: return "warning";
    case Finding::kProblem: return "problem";
  }
  return "problem";
}

Finding finding_of(const std::string& name) {
  for (const Finding finding : {Finding::kOk, Finding::kProblem}) {
    if (name == finding_name(finding)) return finding;
  }
  return Finding::kWarning;
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool is_problem(const Check& check) { return check.finding == Finding::kProblem; }

}  // namespace

void Diagnosis::ok(std::string name, std::string message) {
  checks_.push_back({std::move(name), Finding::kOk, std::move(message), {}});
}

void Diagnosis::warning(std::string name, std::string message, std::string remedy) {
  checks_.push_back({std::move(name), Finding::kWarning, std::move(message), std::move(remedy)});
}

void Diagnosis::problem(std::string name, const Error& error) {
  checks_.push_back({std::move(name), Finding::kProblem, error.message, error.remedy, error.code});
}

void Diagnosis::add(const Json& checks) {
  if (!checks.is_array()) return;
  for (const Json& check : checks) {
    if (!check.is_object()) continue;
    checks_.push_back({text_of(check, "name"), finding_of(text_of(check, "status")),
                       text_of(check, "message"), text_of(check, "remedy")});
  }
}

bool Diagnosis::is_ok() const { return std::none_of(checks_.begin(), checks_.end(), is_problem); }

int Diagnosis::exit_status() const {
  const auto first = std::find_if(checks_.begin(), checks_.end(), is_problem);
  return first == checks_.end() ? 0 : airllm::exit_status(first->code);
}

Json Diagnosis::json() const {
  Json checks = Json::array();
  for (const Check& check : checks_) {
    checks.push_back({{"name", check.name},
                      {"status", finding_name(check.finding)},
                      {"message", check.message},
                      {"remedy", check.remedy}});
  }
  return Json{{"ok", is_ok()}, {"checks", std::move(checks)}};
}

std::string Diagnosis::text() const {
  std::vector<std::vector<std::string>> rows;
  for (const Check& check : checks_) {
    rows.push_back(
        {finding_name(check.finding), name_on_stdout(check.name), name_on_stdout(check.message)});
    if (!check.remedy.empty()) rows.push_back({"", "", "  " + name_on_stdout(check.remedy)});
  }
  const auto problems = std::count_if(checks_.begin(), checks_.end(), is_problem);
  return format_table(rows) +
         (problems == 0   ? "\nasking works\n"
          : problems == 1 ? "\nasking does not work: 1 problem\n"
                          : "\nasking does not work: " + std::to_string(problems) + " problems\n");
}

}  // namespace airllm::client
