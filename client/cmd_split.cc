#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "client/command.h"
#include "client/confirm.h"
#include "client/connection.h"
#include "client/in_place.h"
#include "client/model_setting.h"
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

std::string summary(const Json& result) {
  const bool unchanged = result.is_object() && result.value("unchanged", Json()) == Json(true);
  const std::string name = cell(result, "name");
  // Of a removal that went on there is all that `show` tells.
  const bool is_list = result.is_object() && result.value("shards", Json()).is_array();
  const std::string shards =
      is_list ? std::to_string(result.at("shards").size()) : cell(result, "shards");
  const bool in_place = result.is_object() && result.value("in_place", Json()) == Json(true);
  std::string text = name + ": " + shards + (in_place ? " indexes, " : " shards, ") +
                     cell(result, "bytes") + (unchanged ? ", already there\n" : "\n");
  if (in_place) {
    text += cell(result, "elsewhere_bytes") + " of weights are read where they lie.\n";
    if (result.value("opens_originals", Json()) != Json(true)) {
      text +=
          "The service may not open them itself: your airllm passes them when you ask. Others, "
          "if you share it, can ask once you have, until the service starts again.\n";
    }
  }
  if (result.is_object() && result.contains("freed_bytes")) {
    text += "The original's weights are removed: " + cell(result, "deleted_files") + " files, " +
            cell(result, "freed_bytes") + " freed.\n";
  }
  if (!result.is_object() || result.value("shared", Json(true)) == Json(true)) return text;
  return text + "Only you see it; for all users: airllm share " + name + "\n";
}

struct SplitOptions {
  Globals globals;
  std::vector<std::string> words;  // the folder
  std::optional<std::string> name;
  std::optional<uint64_t> bits;
  std::optional<std::string> format;
  bool allow_nonfinite = false;
  bool share = false;
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
  parser.text("--name", options.name, "NAME", "The model's name; without it the folder's");
  parser.integer("--bits", options.bits, 4,
                 "Compress the weights to 8 or to 4 bits each; --format says more exactly how");
  parser.text("--format", options.format, "W[,E]",
              "Store the layers' weights as W and embedding and head as E (q8): q8, q4, nf4 or "
              "keep");
  parser.flag("--allow-nonfinite", options.allow_nonfinite,
              "Keep weights that are infinite or NaN, which are refused otherwise");
  parser.flag("--in-place", options.in_place,
              "Read the weights where they lie and copy none of them; the files must stay");
  parser.flag("--delete-original", options.delete_original,
              "Remove the folder's weights when the store has them and has read them back");
  parser.flag("-y,--yes", options.yes, "Remove them without asking");
  parser.flag("--share", options.share, "Let all users see it; without it only you do");
  parser.add_globals(options.globals);
  return parser.parse(call);
}

Status check_options(const SplitOptions& options) {
  if (options.name) AIRLLM_TRY_VOID(check_model_name(*options.name));
  if (options.bits && *options.bits != 8 && *options.bits != 4) {
    return Unexpected(ErrorCode::kUsage,
                      "--bits " + std::to_string(*options.bits) + ": weights have 8 or 4 bits",
                      "give --bits 8 or --bits 4");
  }
  if (options.bits && options.format) {
    return Unexpected(ErrorCode::kUsage, "--bits and --format exclude each other",
                      "give one of the two");
  }
  if (options.in_place && (options.bits || options.format)) {
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
    params_.name = options_.name.value_or(source_.default_name());
    params_.source_label = is_text ? folder : escape_for_display(folder);
    params_.share = options_.share;
    params_.allow_nonfinite = options_.allow_nonfinite;
    if (options_.bits) params_.format = *options_.bits == 8 ? "q8" : "q4";
    if (options_.format) params_.format = *options_.format;
    if (options_.in_place) params_.in_place = source_.real_path();
    AIRLLM_TRY(params_.chat_templates, source_.chat_templates());
    return {};
  }

  Result<Json> request(const protocol::SplitParams& params) {
    Status status = run_request(connection_, params, handler_);
    if (status) return parse_result(handler_.result());
    Error error = std::move(status).error();
    if (error.code == ErrorCode::kUsage && !options_.name) {
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
                                       : print_out(summary(result)));
  return 0;
}

}  // namespace airllm::client
