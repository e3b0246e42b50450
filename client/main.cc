// airllm, the thin client: it parses, connects to airllmd, and prints.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "client/argv.h"
#include "client/command.h"
#include "client/output.h"
#include "client/signals.h"

int main(int argc, char** argv) {
  using namespace airllm;  // NOLINT: main only
  client::open_standard_descriptors();
  client::install_signal_handlers();
  client::remember_argv(argc, argv);
  try {
    return client::run_command_line(
        std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const std::exception& error) {
    // Out of memory, or a bug.
    client::print_error({ErrorCode::kOs, error.what(), ""});
    return exit_status(ErrorCode::kOs);
  }
}
