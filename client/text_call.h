// What tokenize, detokenize and template share: how they are called, and a text as the answer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "client/args.h"
#include "client/model_setting.h"
#include "client/session.h"
#include "protocol/messages.h"

namespace airllm::client {

struct TextCall {
  Globals globals;
  std::optional<std::string> model;   // -m
  std::optional<ChosenModel> chosen;  // nothing: the daemon chooses
  std::vector<std::string> words;
  std::string input;  // the words, else stdin

  std::string model_name() const { return chosen ? chosen->name : std::string(); }
};

// Adds -m, the words and the global options.
void add_text_options(ArgParser& parser, TextCall& call, const std::string& word, size_t max_words,
                      const std::string& help);
// Chooses the model and reads the input; `command` is for the message when there is none.
Status read_text_call(TextCall& call, const std::string& command);

// Runs `params` on the daemon that `call` names.
Status run_text_call(const TextCall& call, const protocol::Params& params, EventHandler& handler);
// The same, and prints the text that comes: on a pipe exactly that, on a terminal as one may show
// it, with a newline at its end; with --json {"model","text"}.
Status print_text_answer(const TextCall& call, const protocol::Params& params);

}  // namespace airllm::client
