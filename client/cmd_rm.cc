#include <poll.h>
#include <unistd.h>

#include <array>
#include <limits>

#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/prompt.h"
#include "client/session.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

// Asks on the terminal; anything but a line that begins with y means no.
bool confirm(const std::vector<std::string>& names) {
  std::string question = "Remove";
  for (const std::string& name : names) question += " " + shown_on_stderr(name);
  print_err(question + "? [y/N] ");
  std::array<pollfd, 2> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{signal_wake_fd(), POLLIN, 0}};
  while (poll(waits.data(), waits.size(), -1) < 0 && caught_signal() == 0) {
  }
  if (caught_signal() != 0) return false;
  std::array<char, 256> answer{};
  const ssize_t got = read(STDIN_FILENO, answer.data(), answer.size());
  return got > 0 && (answer[0] == 'y' || answer[0] == 'Y');
}

}  // namespace

Result<int> run_rm(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> names;
  bool yes = false;
  ArgParser parser("airllm rm", "Remove models from the store.");
  parser.usage("airllm rm [OPTIONS] MODEL...");
  parser.words("MODEL", names, 1, std::numeric_limits<size_t>::max(), "The models");
  parser.flag("-y,--yes", yes, "Do not ask (only a terminal is asked)");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  for (const std::string& name : names) AIRLLM_TRY_VOID(check_model_name(name));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  if (!yes && stdin_is_terminal() && stderr_is_terminal() && !confirm(names)) {
    return Unexpected(ErrorCode::kCancelled, "nothing was removed");
  }
  const Status removed = run_each(names, "removed", [&](const std::string& name) -> Status {
    protocol::RemoveParams params;
    params.model = name;
    AIRLLM_TRY_VOID(simple_request(connection, params));
    return {};
  });
  AIRLLM_TRY_VOID(removed);
  if (globals.json) {
    AIRLLM_TRY_VOID(print_out(json_for_stdout(Json{{"removed", names}}) + "\n"));
  }
  return 0;
}

}  // namespace airllm::client
