#include "client/text_call.h"

#include "base/json.h"
#include "client/argv.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/progress.h"
#include "client/prompt.h"
#include "client/spool.h"

namespace airllm::client {
namespace {

class TextPrinter : public EventHandler {
 public:
  bool has_begun() const override { return begun_; }
  Status on_text(const protocol::Text& text) override {
    begun_ = true;
    if (text.text.empty()) return {};
    last_ = text.text.back();
    return print_out(shown_on_stdout(text.text));
  }
  Status on_done(const protocol::Done&) override {
    return last_ != '\n' && stdout_is_terminal() ? print_out("\n") : Status();
  }

 private:
  bool begun_ = false;
  char last_ = '\n';
};

class TextJsonPrinter : public EventHandler {
 public:
  bool has_begun() const override { return begun_; }
  Status on_accepted(const protocol::Accepted& accepted) override {
    model_ = accepted.model;
    return {};
  }
  Status on_text(const protocol::Text& text) override {
    begun_ = true;
    const std::string quoted = json_for_stdout(text.text);
    return spool_.append(quoted.substr(1, quoted.size() - 2));
  }
  Status on_done(const protocol::Done&) override {
    AIRLLM_TRY_VOID(print_out("{\"model\":" + json_for_stdout(model_) + ",\"text\":\""));
    AIRLLM_TRY_VOID(spool_.print(false));
    return print_out("\"}\n");
  }

 private:
  bool begun_ = false;
  std::string model_;
  Spool spool_;
};

}  // namespace

void add_text_options(ArgParser& parser, TextCall& call, const std::string& word, size_t max_words,
                      const std::string& help) {
  parser.words(word, call.words, 0, max_words, help);
  parser.text("-m,--model", call.model, "MODEL", "The model whose tokenizer or template it is");
  parser.add_globals(call.globals);
}

Status read_text_call(TextCall& call, const std::string& command) {
  hide_in_argv(call.words);  // so that ps(1) does not show them
  AIRLLM_TRY(call.chosen, choose_model(call.model));
  AIRLLM_TRY(std::optional<std::string> input, words_or_stdin(call.words));
  if (!input) {
    return Unexpected(
        ErrorCode::kUsage, "there is no input",
        "give it as an argument or on standard input; see 'airllm " + command + " --help'");
  }
  AIRLLM_TRY_VOID(check_utf8(*input, call.words.empty() ? "standard input" : "the argument"));
  call.input = std::move(*input);
  return {};
}

Status run_text_call(const TextCall& call, const protocol::Params& params, EventHandler& handler) {
  AIRLLM_TRY(Connection connection, Connection::open(call.globals));
  const Status status = run_request(connection, params, handler);
  if (status) return {};
  return Unexpected(with_source_of_name(status.error(), call.chosen));
}

Status print_text_answer(const TextCall& call, const protocol::Params& params) {
  if (call.globals.json) {
    TextJsonPrinter printer;
    return run_text_call(call, params, printer);
  }
  TextPrinter printer;
  return run_text_call(call, params, printer);
}

}  // namespace airllm::client
