// libFuzzer's entry to all targets; tools/fuzz is the way to run it.
//
//   AIRLLM_FUZZ_TARGET=NAME fuzz [libFuzzer's options] CORPUS
//   fuzz --list          the targets' names
//   fuzz --seeds DIR     writes every target's seeds to DIR/NAME/
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/fuzz/targets.h"

namespace {

using airllm::fuzz::Target;

const Target* chosen = nullptr;

int list_targets() {
  for (const Target& target : airllm::fuzz::targets()) std::puts(target.name.c_str());
  return 0;
}

int write_seeds(const std::filesystem::path& dir) {
  for (const Target& target : airllm::fuzz::targets()) {
    std::filesystem::create_directories(dir / target.name);
    for (size_t i = 0; i < target.seeds.size(); ++i) {
      std::ofstream file(dir / target.name / ("seed-" + std::to_string(i)), std::ios::binary);
      if (!(file << target.seeds[i]).flush()) {
        std::perror(dir.c_str());
        return 74;
      }
    }
  }
  return 0;
}

const Target* find_target(const char* name) {
  for (const Target& target : airllm::fuzz::targets()) {
    if (name != nullptr && target.name == name) return &target;
  }
  return nullptr;
}

}  // namespace

// libFuzzer starts further processes of this program with its own arguments, which is why the
// target comes from the environment.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string_view first = *argc > 1 ? (*argv)[1] : "";
  if (first == "--list") std::exit(list_targets());
  if (first == "--seeds" && *argc == 3) std::exit(write_seeds((*argv)[2]));
  chosen = find_target(std::getenv("AIRLLM_FUZZ_TARGET"));
  if (chosen == nullptr) {
    std::fputs("fuzz: AIRLLM_FUZZ_TARGET names no target; --list shows them\n", stderr);
    std::exit(64);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
