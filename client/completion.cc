#include "client/completion.h"

#include <array>
#include <utility>

namespace airllm::client {

ValueKind value_kind(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, ValueKind>, 5> kKinds{{
      {"MODEL", ValueKind::kModel},
      {"JOB", ValueKind::kJob},
      {"PATH", ValueKind::kFile},
      {"FILE", ValueKind::kFile},
      {"DIR", ValueKind::kFolder},
  }};
  for (const auto& [known, kind] : kKinds) {
    if (name == known) return kind;
  }
  return ValueKind::kFree;
}

std::string shell_quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

}  // namespace airllm::client
