#include "base/json.h"
#include "base/utf8.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/progress.h"
#include "client/session.h"
#include "client/source_dir.h"
#include "client/table.h"

namespace airllm::client {
namespace {

class SplitHandler : public EventHandler {
 public:
  explicit SplitHandler(const SourceDir& source) : source_(source) {}

  Status on_progress(const protocol::Progress& progress) override {
    line_.update(progress);
    return {};
  }

  Status on_open_files(Connection& connection, uint64_t id,
                       const protocol::OpenFiles& wanted) override {
    if (wanted.names.size() > protocol::kMaxDescriptors) {
      return Unexpected(ErrorCode::kProtocol,
                        "the daemon asked for " + std::to_string(wanted.names.size()) +
                            " files at once; at most " + std::to_string(protocol::kMaxDescriptors) +
                            " are allowed");
    }
    protocol::Files files;
    files.id = id;
    files.names = wanted.names;
    std::vector<UniqueFd> owned;
    std::vector<int> descriptors;
    for (const std::string& name : wanted.names) {
      SourceDir::Opened opened = source_.open_file(name);
      if (opened.fd.valid()) descriptors.push_back(opened.fd.get());
      files.status.push_back(std::move(opened.status));
      owned.push_back(std::move(opened.fd));
    }
    return connection.send(std::move(files), descriptors);
  }

  Status on_done(const protocol::Done& done) override {
    line_.clear();
    result_ = done.result_json;
    return {};
  }

  const std::string& result() const { return result_; }

 private:
  const SourceDir& source_;
  ProgressLine line_;
  std::string result_;
};

std::string summary(const Json& result) {
  const bool unchanged = result.is_object() && result.value("unchanged", Json()) == Json(true);
  const std::string name = cell(result, "name");
  const std::string text = name + ": " + cell(result, "shards") + " shards, " +
                           cell(result, "bytes") + (unchanged ? ", already there\n" : "\n");
  if (!result.is_object() || result.value("shared", Json(true)) == Json(true)) return text;
  return text + "Only you see it; for all users: airllm share " + name + "\n";
}

}  // namespace

Result<int> run_split(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> words;
  std::optional<std::string> name;
  bool share = false;
  ArgParser parser("airllm split",
                   "Make a model of the store from a folder with config.json and safetensors "
                   "files. Given again, goes on where it stopped.");
  parser.usage("airllm split [OPTIONS] DIR");
  parser.words("DIR", words, 1, 1, "The folder");
  parser.text("--name", name, "NAME", "The model's name; without it the folder's");
  parser.flag("--share", share, "Let all users see it; without it only you do");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  const std::string& folder = words.front();
  if (name) AIRLLM_TRY_VOID(check_model_name(*name));
  AIRLLM_TRY(const SourceDir source, SourceDir::open(folder));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  SplitHandler handler(source);
  // Only for messages and the manifest, where bytes that are not UTF-8 cannot go.
  const bool is_text = find_invalid_utf8(folder) == kValidUtf8;
  protocol::SplitParams params{name.value_or(source.default_name()),
                               is_text ? folder : escape_for_display(folder), share};
  AIRLLM_TRY(params.chat_templates, source.chat_templates());
  Status status = run_request(connection, params, handler);
  if (!status) {
    Error error = std::move(status).error();
    if (error.code == ErrorCode::kUsage && !name) {
      error.remedy = "Name the model yourself with --name NAME. " + error.remedy;
    }
    if (error.code == ErrorCode::kCancelled && error.remedy.empty()) {
      error.remedy = "the same command goes on where it stopped";
    }
    return Unexpected(std::move(error));
  }
  AIRLLM_TRY(const Json result, parse_result(handler.result()));
  AIRLLM_TRY_VOID(globals.json ? print_result_json(handler.result()) : print_out(summary(result)));
  return 0;
}

}  // namespace airllm::client
