#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "client/command.h"
#include "client/confirm.h"
#include "client/connection.h"
#include "client/in_place.h"
#include "client/new_model.h"
#include "client/original.h"
#include "client/output.h"
#include "client/pass_files.h"
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
    return pass_files(connection, id, wanted,
                      [this](const std::string& name) { return source_.open_file(name); });
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

struct SplitOptions {
  Globals globals;
  std::vector<std::string> words;  // the folder
  NewModelOptions made;
  bool in_place = false;
  bool delete_original = false;
  bool yes = false;
};

Result<bool> parse_options(const Invocation& call, SplitOptions& options) {
  options.globals = call.globals;
  ArgParser parser("airllm split",
                   "Make a model of the store from a folder with config.json and safetensors "
                   "files. Given again, goes on where it stopped.");
  parser.usage("airllm split [OPTIONS] DIR");
  parser.words("DIR", options.words, 1, 1, "The folder");
  options.made.add_to(parser, "The model's name; without it the folder's");
  parser.flag("--in-place", options.in_place,
              "Read the weights where they lie and copy none of them; the files must stay");
  parser.flag("--delete-original", options.delete_original,
              "Remove the folder's weights when the store has them and has read them back");
  parser.flag("-y,--yes", options.yes, "Remove them without asking");
  parser.add_globals(options.globals);
  return parser.parse(call);
}

Status check_options(const SplitOptions& options) {
  AIRLLM_TRY_VOID(options.made.check());
  if (options.in_place && options.made.is_compressed()) {
    return Unexpected(ErrorCode::kUsage,
                      "--in-place uses the weights as they are: they cannot be compressed",
                      "leave --in-place out, or --bits and --format");
  }
  if (options.in_place && options.delete_original) {
    return Unexpected(ErrorCode::kUsage,
                      "--in-place and --delete-original exclude each other: one keeps the weights "
                      "where they are, the other removes them",
                      "give one of the two");
  }
  if (options.delete_original && !options.yes && !can_ask()) {
    return Unexpected(ErrorCode::kUsage,
                      "--delete-original asks before it begins, and there is no terminal to ask on",
                      "add --yes");
  }
  return {};
}

// One split, from the user's words to its result.
class SplitCall {
 public:
  SplitCall(const SplitOptions& options, const SourceDir& source, Connection& connection)
      : options_(options), source_(source), connection_(connection), handler_(source) {}

  Result<Json> run() {
    AIRLLM_TRY_VOID(fill_params());
    if (options_.delete_original) return replace_original();
    if (options_.in_place) AIRLLM_TRY_VOID(announce_in_place());
    return split();
  }

 private:
  Status fill_params() {
    const std::string& folder = options_.words.front();
    // Only for messages and the manifest, where bytes that are not UTF-8 cannot go.
    const bool is_text = find_invalid_utf8(folder) == kValidUtf8;
    options_.made.fill(params_);
    if (params_.name.empty()) params_.name = source_.default_name();
    params_.source_label = is_text ? folder : escape_for_display(folder);
    if (options_.in_place) params_.in_place = source_.real_path();
    AIRLLM_TRY(params_.chat_templates, source_.chat_templates());
    return {};
  }

  Result<Json> request(const protocol::SplitParams& params) {
    Status status = run_request(connection_, params, handler_);
    if (status) return parse_result(handler_.result());
    Error error = std::move(status).error();
    if (error.code == ErrorCode::kUsage && !options_.made.name) {
      error.remedy = "Name the model yourself with --name NAME. " + error.remedy;
    }
    if (error.code == ErrorCode::kCancelled && error.remedy.empty()) {
      error.remedy = "the same command goes on where it stopped";
    }
    return Unexpected(std::move(error));
  }

  Result<Json> split() { return request(params_); }

  // What the split will take.
  Result<Json> plan() {
    protocol::SplitParams params = params_;
    params.only_plan = true;
    return request(params);
  }

  Status announce_in_place() {
    AIRLLM_TRY(const Json plan, this->plan());
    print_err("Needs " + cell(plan, "needs_bytes") + " in the store. " +
              cell(plan, "source_bytes") +
              " of weights stay where they are and are read once now.\n");
    return remember_in_place(source_.real_path());
  }

  Result<Json> replace_original() {
    AIRLLM_TRY(Original original, Original::find(source_.folder()));
    AIRLLM_TRY_VOID(check_not_read_in_place());
    // What is not whole was begun by a command like this one, which was interrupted.
    std::string needs = "Goes on removing weights of a model that is made";
    if (original.is_complete()) {
      AIRLLM_TRY(const Json plan, this->plan());
      needs = "Needs " + cell(plan, "needs_bytes") + " in the store";
    } else {
      AIRLLM_TRY_VOID(check_made(original).status);
    }
    print_err(needs + ". Then removes " + std::to_string(original.count()) + " files of " +
              shown_on_stderr(source_.real_path()) + ", which frees " +
              format_size(original.freed_bytes()) + ".\n");
    if (!options_.yes && !confirm("Go on?")) {
      return Unexpected(ErrorCode::kCancelled, "nothing was made or removed");
    }
    Json result{{"name", params_.name}};
    if (original.is_complete()) {
      AIRLLM_TRY(result, split());
    }
    AIRLLM_TRY_VOID(remove(original, result));
    return result;
  }

  // The files as they are after the split, which may have taken hours.
  Status remove(const Original& before, Json& result) {
    protocol::VerifyParams verify;
    verify.model = params_.name;
    AIRLLM_TRY_VOID(simple_request(connection_, verify));
    Made made = check_made(before);
    AIRLLM_TRY_VOID(std::move(made.status));
    const uint64_t freed = before.freed_bytes();
    AIRLLM_TRY_VOID(before.remove());
    if (result.size() == 1) result = std::move(made.shown);
    result["deleted_files"] = before.count();
    result["freed_bytes"] = freed;
    return {};
  }

  struct Made {
    Status status;
    Json shown;
  };
  // Whether the store's model was made of what is there.
  Made check_made(const Original& original) {
    protocol::ShowParams show;
    show.model = params_.name;
    const Result<std::string> text = simple_request(connection_, show);
    const bool has_none = !text && text.error().code == ErrorCode::kNoInput;
    if (has_none && !original.is_complete()) return {original.check_made_into(Json()), {}};
    if (!text) return {Unexpected(text.error()), {}};
    Result<Json> shown = parse_result(*text);
    if (!shown) return {Unexpected(shown.error()), {}};
    return {original.check_made_into(*shown), std::move(shown).value()};
  }

  Status check_not_read_in_place() {
    AIRLLM_TRY(const std::string text, simple_request(connection_, protocol::ListParams{}));
    AIRLLM_TRY(const Json models, parse_result(text));
    for (const Json& model : models) {
      if (!model.is_object() || model.value("in_place", Json()) != Json(source_.real_path())) {
        continue;
      }
      return Unexpected(ErrorCode::kUsage,
                        "the model " + cell(model, "name") + " reads these weights in place",
                        "remove that model first: airllm rm " + cell(model, "name"));
    }
    return {};
  }

  const SplitOptions& options_;
  const SourceDir& source_;
  Connection& connection_;
  SplitHandler handler_;
  protocol::SplitParams params_;
};

}  // namespace

Result<int> run_split(const Invocation& call) {
  SplitOptions options;
  AIRLLM_TRY(const bool go, parse_options(call, options));
  if (!go) return 0;
  AIRLLM_TRY_VOID(check_options(options));
  AIRLLM_TRY(const SourceDir source, SourceDir::open(options.words.front()));
  AIRLLM_TRY(Connection connection, Connection::open(options.globals));
  AIRLLM_TRY(const Json result, SplitCall(options, source, connection).run());
  AIRLLM_TRY_VOID(options.globals.json ? print_out(json_for_stdout(result) + "\n")
                                       : print_out(new_model_summary(result)));
  return 0;
}

}  // namespace airllm::client
