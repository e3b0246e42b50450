// How the answer of `airllm ask` is printed: as text while it comes, as one JSON object at the end,
// or as one JSON object per event.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "client/in_place.h"
#include "client/profile_summary.h"
#include "client/progress.h"
#include "client/session.h"
#include "client/spool.h"
#include "client/trace_file.h"
#include "protocol/messages.h"

namespace airllm::client {

// Where the events of a profile go.
struct ProfileOutput {
  TraceFile file;
  ProfileSummary summary;
};

class Answer : public EventHandler {
 public:
  // Borrows it. Without one, events of a profile do not belong to the request.
  void set_profile(ProfileOutput* profile) { profile_ = profile; }

  Status on_accepted(const protocol::Accepted& accepted) override;
  Status on_progress(const protocol::Progress& progress) override;
  Status on_profile(const protocol::Profile& profile) override;
  Status on_open_files(Connection& connection, uint64_t id,
                       const protocol::OpenFiles& wanted) override {
    return pass_files_in_place(connection, id, wanted);
  }
  bool has_begun() const override { return begun_; }
  // Call when the request ended, however it ended, before anything else is printed.
  virtual void finish() { line_.clear(); }
  // "" when the request failed.
  const std::string& finish_reason() const { return generated_.finish_reason; }
  const protocol::Generated& generated() const { return generated_; }
  // Whether stdout ends inside a line: an answer goes to a pipe or a file as it is.
  virtual bool leaves_line_open() const { return false; }

 protected:
  protocol::Accepted accepted_;
  protocol::Generated generated_;
  ProgressLine line_;
  bool begun_ = false;
  ProfileOutput* profile_ = nullptr;
};

// Only the text on stdout, each piece written at once; on a terminal a newline at the end.
class TextAnswer : public Answer {
 public:
  Status on_progress(const protocol::Progress& progress) override;
  Status on_prompt_logprobs(const protocol::PromptLogprobs&) override { return {}; }
  Status on_token(const protocol::Token& token) override;
  Status on_generated(const protocol::Generated& generated) override;
  void finish() override;
  bool leaves_line_open() const override { return last_ != '\n'; }

 private:
  char last_ = '\n';  // what was printed last
  bool printed_ = false;
};

// One object at the end. Log-probabilities are kept as text, on disk when there are many.
class JsonAnswer : public Answer {
 public:
  // `params` says which fields there are and which options were used.
  JsonAnswer(const protocol::GenerateParams& params, bool stream);

  Status on_accepted(const protocol::Accepted& accepted) override;
  Status on_progress(const protocol::Progress& progress) override;
  Status on_prompt_logprobs(const protocol::PromptLogprobs& logprobs) override;
  Status on_token(const protocol::Token& token) override;
  Status on_generated(const protocol::Generated& generated) override;

 private:
  Json options() const;
  Status print_event(const std::string& line);
  Status print_logprobs(const char* key, bool wanted, Spool& spool);

  bool stream_;
  bool wants_logprobs_;
  bool wants_prompt_logprobs_;
  std::vector<std::string> stop_;
  bool ignore_eos_;
  std::string text_;
  std::vector<int32_t> token_ids_;
  Spool logprobs_;
  Spool prompt_logprobs_;
  uint64_t prompt_positions_ = 0;
};

// "[[id,logprob],...]" with every digit that a double has; what is not finite is null.
std::string logprobs_json(const std::vector<protocol::TokenLogprob>& logprobs);

// The line of --verbose: first token, tokens per second, bytes from disk and from RAM.
std::string verbose_summary(const protocol::Generated& generated);

}  // namespace airllm::client
