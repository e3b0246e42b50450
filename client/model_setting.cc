#include "client/model_setting.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/unique_fd.h"
#include "base/utf8.h"
#include "client/prompt.h"
#include "client/socket_path.h"
#include "client/user_file.h"

namespace airllm::client {
namespace {

constexpr size_t kMaxNameBytes = 1024;
constexpr const char* kOption = "-m";

// The name in the user's file; nothing when there is no file or it is empty.
Result<std::optional<ChosenModel>> read_setting() {
  using Found = std::optional<ChosenModel>;
  const Result<std::string> path = model_setting_path();
  if (!path) return Found();
  const UniqueFd file(open(path->c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return Found();
    return Unexpected(
        errno_error("cannot read your default model from " + *path, errno, "name a model with -m"));
  }
  std::array<char, kMaxNameBytes> buffer;
  const ssize_t got = read(file.get(), buffer.data(), buffer.size());
  if (got < 0) {
    return Unexpected(
        errno_error("cannot read your default model from " + *path, errno, "name a model with -m"));
  }
  std::string name(buffer.data(), static_cast<size_t>(got));
  name.resize(std::min(name.size(), name.find('\n')));
  if (name.empty()) return Found();
  if (const Status status = check_model_name(name); !status) {
    return Unexpected(ErrorCode::kConfig, *path + " holds no model's name",
                      "set it again: airllm default MODEL");
  }
  return Found(ChosenModel{name, *path});
}

}  // namespace

Status check_model_name(const std::string& name) {
  AIRLLM_TRY_VOID(check_text(name, "the model's name"));
  if (!name.empty() && name.size() < kMaxNameBytes && escape_for_display(name, true) == name) {
    return {};
  }
  return Unexpected(ErrorCode::kUsage,
                    name.empty()
                        ? "the model's name is empty"
                        : "this is no model's name: '" + escape_for_display(name, true) + "'",
                    "see 'airllm list' for those that are there");
}

Result<std::string> model_setting_path() {
  if (const auto config = environment("XDG_CONFIG_HOME"); config && config->front() == '/') {
    return *config + "/airllm/default";
  }
  if (const auto home = environment("HOME")) return *home + "/.config/airllm/default";
  return Unexpected(ErrorCode::kUsage, "there is no place for your settings: HOME is not set",
                    "set HOME or XDG_CONFIG_HOME, or use AIRLLM_MODEL or -m");
}

Result<std::optional<ChosenModel>> choose_model(const std::optional<std::string>& option) {
  using Chosen = std::optional<ChosenModel>;
  if (option) {
    AIRLLM_TRY_VOID(check_model_name(*option));
    return Chosen(ChosenModel{*option, kOption});
  }
  if (const auto name = environment("AIRLLM_MODEL")) {
    AIRLLM_TRY_VOID(check_model_name(*name));
    return Chosen(ChosenModel{*name, "AIRLLM_MODEL"});
  }
  return read_setting();
}

Error with_source_of_name(Error error, const std::optional<ChosenModel>& chosen) {
  if (error.code != ErrorCode::kNoInput || !chosen || chosen->source == kOption) return error;
  if (!error.remedy.empty()) error.remedy += " ";
  error.remedy += "The name '" + chosen->name + "' comes from " + chosen->source + ".";
  return error;
}

Result<std::optional<ModelCall>> parse_model_call(const Invocation& call, const std::string& name,
                                                  const std::string& summary) {
  ModelCall made;
  made.globals = call.globals;
  std::vector<std::string> names;
  std::optional<std::string> option;
  ArgParser parser("airllm " + name, summary);
  parser.usage("airllm " + name + " [OPTIONS] [MODEL]");
  parser.words("MODEL", names, 0, 1, "The model; without it the one that 'ask' would take");
  parser.text("-m,--model", option, "MODEL", "The same");
  parser.add_globals(made.globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return std::optional<ModelCall>();
  if (!names.empty()) option = names.front();
  AIRLLM_TRY(made.chosen, choose_model(option));
  return std::optional(std::move(made));
}

Status write_model_setting(const std::string& model) {
  AIRLLM_TRY(const std::string path, model_setting_path());
  return write_user_file(path, model + "\n");
}

Status remove_model_setting() {
  AIRLLM_TRY(const std::string path, model_setting_path());
  if (unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return {};
  return Unexpected(errno_error("cannot remove " + path, errno));
}

}  // namespace airllm::client
