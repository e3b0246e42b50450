#include <limits>
#include <memory>
#include <optional>

#include "base/duration.h"
#include "client/answer.h"
#include "client/argv.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/prompt.h"
#include "client/session.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

struct AskOptions {
  Globals globals;
  std::vector<std::string> words;
  std::optional<std::string> model;
  std::optional<ChosenModel> chosen;  // nothing: the daemon chooses
  std::optional<std::string> system;
  std::optional<std::string> prompt_ids;
  bool raw = false;
  bool no_stdin = false;
  bool stream_json = false;
  bool verbose = false;
  std::optional<std::string> profile;
  std::optional<uint64_t> logprobs;
  std::optional<uint64_t> prompt_logprobs;
  std::optional<std::string> keep_alive;
  protocol::GenerateParams params;
};

constexpr const char* kUsage =
    "Usage: airllm ask [OPTIONS] PROMPT...\n"
    "  or give the prompt on standard input; 'airllm ask --help' describes the options";

void add_prompt_options(ArgParser& parser, AskOptions& options) {
  parser.words("PROMPT", options.words, 0, std::numeric_limits<size_t>::max(),
               "The question; its words are joined by a space. Text on standard input is put "
               "before it");
  parser.text("-m,--model", options.model, "MODEL", "The model to ask");
  parser.text("--system", options.system, "TEXT", "The system message");
  parser.flag("--raw", options.raw, "The prompt as it is, without the chat template");
  parser.flag("--special", options.params.special,
              "Take texts such as <s> in the prompt for the tokens of that name, as --raw does");
  parser.text("--prompt-ids", options.prompt_ids, "ID,...", "The prompt as token ids");
  parser.flag("--no-stdin", options.no_stdin, "Do not read standard input");
  parser.text("--keep-alive", options.keep_alive, "DURATION",
              "How long the model keeps its memory after the answer, such as 30m, 0 or forever");
}

void add_sampling_options(ArgParser& parser, AskOptions& options) {
  protocol::SamplingOptions& sampling = options.params.sampling;
  constexpr double kAny = std::numeric_limits<double>::max();
  parser.number("--temperature,--temp", sampling.temperature, {0, kAny, false},
                "Randomness; 0 takes the likeliest token");
  parser.integer("--top-k", sampling.top_k, -1,
                 "Choose among the N likeliest tokens; 0 or -1 is all");
  parser.number("--top-p", sampling.top_p, {0, 1, true},
                "Choose among the likeliest tokens that make up this share; 1 is all");
  parser.number("--min-p", sampling.min_p, {0, 1, false},
                "Leave out tokens below this share of the likeliest one's; 0 is none");
  parser.number("--repetition-penalty,--repeat-penalty", sampling.repetition_penalty,
                {0, kAny, true}, "Make tokens that were there less likely; 1 is off");
  parser.integer_or_none("-s,--seed", sampling.seed, "The seed; without it, or -1, a random one");
  parser.integer_or_none("-n,--max-tokens", options.params.max_tokens,
                         "End after N tokens; without it, or -1, there is no limit");
  parser.texts("--stop", options.params.stop, "TEXT", "End before this text; may be given again");
  parser.flag("--ignore-eos", options.params.ignore_eos, "Go on after an end token");
}

void add_output_options(ArgParser& parser, AskOptions& options) {
  parser.integer("--logprobs", options.logprobs, uint64_t{0},
                 "With JSON: the N likeliest tokens at each generated one");
  parser.integer("--prompt-logprobs", options.prompt_logprobs, uint64_t{0},
                 "With JSON: the N likeliest tokens after each token of the prompt");
  parser.flag("--stream-json", options.stream_json, "Print each event as a line of JSON");
  parser.flag("-v,--verbose", options.verbose, "Print times and bytes read on standard error");
  parser.text("--profile", options.profile, "FILE",
              "Write where the time goes to FILE, a trace for Perfetto, and a summary on standard "
              "error");
  parser.add_globals(options.globals);
}

Unexpected usage(std::string message, std::string remedy = {}) {
  return Unexpected(ErrorCode::kUsage, std::move(message),
                    remedy.empty() ? "see 'airllm ask --help'" : std::move(remedy));
}

bool is_json(const AskOptions& options) { return options.globals.json || options.stream_json; }

Status check_options(const AskOptions& options) {
  if (options.globals.json && options.stream_json) {
    return usage("--json and --stream-json exclude each other");
  }
  const bool wants_logprobs =
      options.logprobs.value_or(0) > 0 || options.prompt_logprobs.value_or(0) > 0;
  if (wants_logprobs && !is_json(options)) {
    return usage("--logprobs and --prompt-logprobs are part of the JSON only",
                 "add --json or --stream-json");
  }
  if (options.prompt_ids) {
    if (!options.words.empty()) return usage("--prompt-ids is the whole prompt; no PROMPT fits it");
    if (options.system) return usage("--prompt-ids and --system exclude each other");
    if (options.params.special) {
      return usage("--prompt-ids and --special exclude each other: ids are tokens already");
    }
  }
  if (options.raw && options.system) {
    return usage("--raw and --system exclude each other: a system message needs the template");
  }
  for (const std::string& word : options.words) AIRLLM_TRY_VOID(check_text(word, "the prompt"));
  for (const std::string& stop : options.params.stop) {
    AIRLLM_TRY_VOID(check_text(stop, "--stop"));
    if (stop.empty()) return usage("--stop: the text is empty");
  }
  if (options.params.stop.size() > protocol::kMaxStopStrings) {
    return usage("--stop is given more than " + std::to_string(protocol::kMaxStopStrings) +
                 " times");
  }
  return options.system ? check_text(*options.system, "--system") : Status();
}

Status set_keep_alive(AskOptions& options) {
  if (!options.keep_alive) return {};
  auto duration = parse_duration(*options.keep_alive);
  if (!duration) {
    Error error = std::move(duration).error();
    error.message = "--keep-alive: " + error.message;
    return Unexpected(std::move(error));
  }
  options.params.keep_alive_ms = static_cast<uint64_t>(duration->count());
  return {};
}

// So that ps(1) does not show them while the command waits.
void hide_texts(const AskOptions& options) {
  std::vector<std::string> secrets = options.words;
  secrets.insert(secrets.end(), options.params.stop.begin(), options.params.stop.end());
  for (const auto& text : {options.system, options.prompt_ids}) {
    if (text) secrets.push_back(*text);
  }
  hide_in_argv(secrets);
}

// The prompt as text, from the arguments and stdin.
Result<std::string> gather_prompt(const AskOptions& options) {
  const bool reads = !options.no_stdin && !stdin_is_terminal();
  std::string document;
  if (reads) {
    AIRLLM_TRY(document, read_stdin("--no-stdin asks without reading it"));
    AIRLLM_TRY_VOID(check_text(document, "standard input"));
  }
  std::string prompt = join_prompt(document, join_words(options.words), options.raw);
  // An empty argument is a prompt when nothing is added to it: the model's begin token alone.
  const bool empty_is_meant = options.raw && !options.words.empty();
  if (prompt.empty() && !empty_is_meant) return usage("there is nothing to ask", kUsage);
  AIRLLM_TRY_VOID(with_remedy(check_length(prompt, "the prompt"), "ask about a part of it"));
  return prompt;
}

Status set_prompt(AskOptions& options) {
  protocol::GenerateParams& params = options.params;
  if (options.prompt_ids) {
    AIRLLM_TRY(params.prompt_ids, parse_token_ids(*options.prompt_ids, "--prompt-ids"));
    if (params.prompt_ids->empty()) return usage("--prompt-ids: there is no id");
    return {};
  }
  AIRLLM_TRY(std::string prompt, gather_prompt(options));
  if (options.raw) {
    params.raw_text = std::move(prompt);
    return {};
  }
  if (options.system) params.messages.push_back({"system", *options.system});
  params.messages.push_back({"user", std::move(prompt)});
  return {};
}

std::unique_ptr<Answer> make_answer(const AskOptions& options) {
  if (is_json(options)) {
    return std::make_unique<JsonAnswer>(options.params, options.stream_json);
  }
  return std::make_unique<TextAnswer>();
}

// What was asked for besides the answer, on stderr.
void print_summaries(const AskOptions& options, const Answer& answer,
                     const std::optional<ProfileOutput>& profile) {
  std::string text;
  if (options.verbose) text += verbose_summary(answer.generated());
  if (profile) text += profile->summary.text(answer.generated());
  if (text.empty()) return;
  const bool begins_a_line = !answer.leaves_line_open() || !stderr_shows_stdout();
  print_err((begins_a_line ? "" : "\n") + text);
}

// Before anything is asked, so that nobody waits for a trace that cannot be written.
Result<std::optional<ProfileOutput>> open_profile(const AskOptions& options) {
  if (!options.profile) return std::optional<ProfileOutput>();
  AIRLLM_TRY(TraceFile file, TraceFile::create(*options.profile));
  return std::optional<ProfileOutput>({std::move(file), {}});
}

// Runs the request that `options` describes.
Result<int> ask(AskOptions& options) {
  AIRLLM_TRY(std::optional<ProfileOutput> profile, open_profile(options));
  AIRLLM_TRY(Connection connection, Connection::open(options.globals));
  const std::unique_ptr<Answer> answer = make_answer(options);
  if (profile) answer->set_profile(&*profile);
  const Status status = run_request(connection, options.params, *answer);
  answer->finish();
  const Status traced = profile ? profile->file.finish() : Status();
  if (!status) return Unexpected(with_source_of_name(status.error(), options.chosen));
  AIRLLM_TRY_VOID(traced);
  print_summaries(options, *answer, profile);
  if (answer->finish_reason() != "cancelled") return 0;
  if (caught_signal() == 0 && !is_json(options)) {
    print_err("airllm: the job was cancelled\n");
  }
  return cancelled_exit_status();
}

}  // namespace

Result<int> run_ask(const Invocation& call) {
  AskOptions options;
  options.globals = call.globals;
  ArgParser parser("airllm ask", "Ask a model and print its answer as it comes.");
  parser.usage("airllm ask [OPTIONS] PROMPT...");
  add_prompt_options(parser, options);
  add_sampling_options(parser, options);
  add_output_options(parser, options);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  hide_texts(options);
  AIRLLM_TRY_VOID(check_options(options));
  AIRLLM_TRY_VOID(set_keep_alive(options));
  if (options.params.sampling.top_k == -1) options.params.sampling.top_k = 0;
  AIRLLM_TRY(options.chosen, choose_model(options.model));
  if (options.chosen) options.params.model = options.chosen->name;
  options.params.opens_files = true;
  options.params.logprobs = options.logprobs.value_or(0);
  options.params.prompt_logprobs = options.prompt_logprobs.value_or(0);
  options.params.profile = options.profile.has_value();
  AIRLLM_TRY_VOID(set_prompt(options));
  return ask(options);
}

}  // namespace airllm::client
