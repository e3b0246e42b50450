// What the commands that make a model have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json_fwd.h"
#include "base/result.h"
#include "client/args.h"
#include "protocol/messages.h"

namespace airllm::client {

// Its name, how its weights are stored, and who sees it.
struct NewModelOptions {
  std::optional<std::string> name;
  std::optional<uint64_t> bits;
  std::optional<std::string> format;
  std::optional<std::string> outliers;
  bool allow_nonfinite = false;
  bool share = false;

  bool is_compressed() const { return bits || format; }
  void add_to(ArgParser& parser, const char* name_help);
  // kUsage where they contradict each other.
  Status check() const;
  // All but the name, where none is given.
  void fill(protocol::SplitParams& params) const;
};

// The lines that say what was made; `result` is that of the method "split".
std::string new_model_summary(const Json& result);

}  // namespace airllm::client
