// The user's default model: one line in $XDG_CONFIG_HOME/airllm/default (or ~/.config/airllm/...).
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "client/args.h"

namespace airllm::client {

// A model's name and where it comes from: "-m", "AIRLLM_MODEL" or the path of the setting's file.
struct ChosenModel {
  std::string name;
  std::string source;
};

// `option` (-m), else AIRLLM_MODEL, else the user's setting. Nothing when none is set: the daemon
// then chooses. A setting that cannot be read is an error; a missing one is not.
Result<std::optional<ChosenModel>> choose_model(const std::optional<std::string>& option);
// `error`, with which a request for `chosen` ended: that of an unknown model also says where its
// name comes from, if not from the command line.
Error with_source_of_name(Error error, const std::optional<ChosenModel>& chosen);

// What a subcommand is called with that takes one model, as a word or with -m.
struct ModelCall {
  Globals globals;
  std::optional<ChosenModel> chosen;  // nothing: the daemon chooses
  std::string model() const { return chosen ? chosen->name : std::string(); }
};
// Parses the arguments of `airllm NAME`; nothing when help was asked for and printed.
Result<std::optional<ModelCall>> parse_model_call(const Invocation& call, const std::string& name,
                                                  const std::string& summary);

// kUsage without a home folder.
Result<std::string> model_setting_path();
// Written whole or not at all.
Status write_model_setting(const std::string& model);
Status remove_model_setting();

// kUsage for an empty name and one with control characters; kData for one that is not UTF-8.
Status check_model_name(const std::string& name);

}  // namespace airllm::client
