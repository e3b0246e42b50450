// airllm-fetch: see airllm-fetch(8).
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/log.h"
#include "fetch/http_client.h"
#include "fetch/options.h"
#include "fetch/process.h"
#include "fetch/session.h"

namespace airllm::fetch {
namespace {

Status serve(const Options& options) {
  AIRLLM_TRY(UniqueFd connection, take_connection(options.socket_fd));
  AIRLLM_TRY(Secret own_token, take_own_token());
  AIRLLM_TRY_VOID(close_off(connection.get()));
  AIRLLM_TRY_VOID(initialize_http());
  auto session = std::make_unique<Session>(std::move(connection), options, std::move(own_token));
  Status status = session->run();
  if (!status) return status;
  // At once: a thread may wait for the disk, and the journals need nobody who closes them.
  log::debug("the daemon is gone");
  std::fflush(nullptr);
  ::_exit(0);
}

int run(const std::vector<std::string>& args) {
  auto line = parse_command_line(args);
  log::init(line ? line->options.log_level : log::Level::kInfo, log::stderr_is_journal());
  if (line && line->print) {
    std::fputs(line->print->c_str(), stdout);
    return 0;
  }
  const Status status = line ? serve(line->options) : Status(Unexpected(line.error()));
  if (status) return 0;
  log::error("{}", status.error().message);
  if (!status.error().remedy.empty()) log::error("{}", status.error().remedy);
  return exit_status(status.error().code);
}

}  // namespace
}  // namespace airllm::fetch

int main(int argc, char** argv) {
  return airllm::fetch::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
