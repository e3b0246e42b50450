// Questions on the terminal.
#pragma once

#include <string>

namespace airllm::client {

// Whether there is somebody to ask: standard input and standard error are terminals.
bool can_ask();

// Asks; anything but a line that begins with y means no, and so does a signal.
bool confirm(const std::string& question);

}  // namespace airllm::client
