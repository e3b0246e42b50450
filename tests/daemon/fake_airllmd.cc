// airllmd on the fake engine, for tests of the process.
#include <string>
#include <vector>

#include "daemon/daemon.h"
#include "tests/daemon/fake_engine.h"

int main(int argc, char** argv) {
  using namespace airllm;  // NOLINT
  const std::vector<std::string> args(argv + 1, argv + argc);
  return daemon::run_daemon(
      args, [](const engine::EngineOptions&) -> Result<std::unique_ptr<engine::Engine>> {
        return std::unique_ptr<engine::Engine>(std::make_unique<daemon::FakeEngine>());
      });
}
