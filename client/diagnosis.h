// The findings of `airllm doctor`: a list of checks, and what follows from them.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json_fwd.h"

namespace airllm::client {

// A problem is what makes asking fail; a warning is anything else that should be mended.
enum class Finding { kOk, kWarning, kProblem };

struct Check {
  std::string name;
  Finding finding = Finding::kOk;
  std::string message;
  std::string remedy;                        // a command where one helps; may be empty
  ErrorCode code = ErrorCode::kUnavailable;  // of a problem: what asking fails with
};

class Diagnosis {
 public:
  void ok(std::string name, std::string message);
  void warning(std::string name, std::string message, std::string remedy);
  void problem(std::string name, const Error& error);
  // Those of the daemon: an array of {"name","status","message","remedy"}. What is no such object
  // is left out; a status that is not known counts as a warning.
  void add(const Json& checks);

  // Whether asking would work.
  bool is_ok() const;
  // 0, else the status of the first problem.
  int exit_status() const;

  // {"ok","checks":[{"name","status","message","remedy"}]}
  Json json() const;
  // One line for each check and one for its remedy, in columns, and what follows.
  std::string text() const;

 private:
  std::vector<Check> checks_;
};

}  // namespace airllm::client
