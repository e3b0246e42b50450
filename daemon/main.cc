// airllmd: see airllmd(8).
#include <string>
#include <vector>

#include "daemon/daemon.h"
#include "engine/engine.h"

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  return airllm::daemon::run_daemon(args, airllm::engine::Engine::open);
}
