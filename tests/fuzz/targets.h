// What strangers' bytes reach, one target for each kind of input: the protocol's frames and
// messages, the settings file, and the files of a model. libFuzzer runs a target on inputs that it
// makes up (fuzz_main.cc); corpus_test.cc runs all of them on the inputs that are kept.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace airllm::fuzz {

struct Target {
  std::string name;
  // Reads `input` as the programs would, and aborts when a promise is broken. Whether the input was
  // accepted.
  std::function<bool(std::string_view input)> run;
  // Inputs to begin with, written by our own encoders; all are accepted.
  std::vector<std::string> seeds;
};

// GoogleTest would list the bytes of the struct.
inline void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

// frame_target: arbitrary cuts of a stream. message_targets: one for each message of the protocol,
// and two for payloads of any kind. file_targets and sentencepiece_targets: what is read from disk.
// fetch_targets: the same of the downloader, and what a hub answers it.
Target frame_target();
std::vector<Target> message_targets();
std::vector<Target> file_targets();
std::vector<Target> sentencepiece_targets();
std::vector<Target> fetch_targets();

// All of these.
const std::vector<Target>& targets();

}  // namespace airllm::fuzz
