// The arguments as the system shows them: /proc/PID/cmdline, and so ps(1), read the memory that
// main() was given. What a user asks is nobody else's business, so it is overwritten there once it
// has been read. Not thread-safe.
#pragma once

#include <span>
#include <string>

namespace airllm::client {

// Call first, with what main() was called with; the memory is the program's for its whole life.
void remember_argv(int argc, char** argv);

// Overwrites every argument that is one of `secrets`, or ends as "--option=SECRET". Empty ones have
// nothing to hide. ps(1) then shows "***" in their place.
void hide_in_argv(std::span<const std::string> secrets);

}  // namespace airllm::client
