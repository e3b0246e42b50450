#include "client/argv.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace airllm::client {
namespace {

std::span<char*> arguments;

bool is_secret(std::string_view text, std::span<const std::string> secrets) {
  return !text.empty() && std::find(secrets.begin(), secrets.end(), text) != secrets.end();
}

// In place, so that arguments that follow stay where they are. Not the NUL at the end: without it
// the kernel would take the environment for a part of the arguments.
void overwrite(char* text) {
  const size_t length = std::strlen(text);
  const size_t stars = std::min<size_t>(length, 3);
  std::memset(text, '*', stars);
  std::memset(text + stars, 0, length - stars);
}

}  // namespace

void remember_argv(int argc, char** argv) {
  arguments = {argv, static_cast<size_t>(std::max(argc, 0))};
}

void hide_in_argv(std::span<const std::string> secrets) {
  for (char* const argument : arguments) {
    char* const equals = argument[0] == '-' ? std::strchr(argument, '=') : nullptr;
    if (is_secret(argument, secrets)) {
      overwrite(argument);
    } else if (equals != nullptr && is_secret(equals + 1, secrets)) {
      overwrite(equals + 1);
    }
  }
}

}  // namespace airllm::client
