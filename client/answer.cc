#include "client/answer.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/json.h"
#include "base/units.h"
#include "client/output.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  const std::string_view text(digits.data(), static_cast<size_t>(end - digits.data()));
  out += text;
  // A reader that tells integers from fractions should see a fraction.
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

// The text of an object without its last brace.
std::string open_object(const Json& object) {
  std::string text = json_for_stdout(object);
  text.pop_back();
  return text;
}

}  // namespace

std::string logprobs_json(const std::vector<protocol::TokenLogprob>& logprobs) {
  std::string text = "[";
  for (const protocol::TokenLogprob& entry : logprobs) {
    if (text.size() > 1) text += ',';
    text += '[' + std::to_string(entry.id) + ',';
    append_double(text, entry.logprob);
    text += ']';
  }
  return text + ']';
}

std::string verbose_summary(const protocol::Generated& generated) {
  const double after_first_ms = generated.total_ms - generated.first_token_ms;
  const uint64_t tokens = generated.completion_tokens;
  double rate = 0;
  if (tokens > 1 && after_first_ms > 0) {
    rate = static_cast<double>(tokens - 1) * 1000 / after_first_ms;
  }
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(),
                "prompt %llu tokens; first token after %.1f ms; %llu tokens, %.2f tokens/s; "
                "%llu sweeps; %llu bytes read (%s), %llu bytes from RAM (%s)\n",
                static_cast<unsigned long long>(generated.prompt_tokens), generated.first_token_ms,
                static_cast<unsigned long long>(tokens), rate,
                static_cast<unsigned long long>(generated.sweeps),
                static_cast<unsigned long long>(generated.read_bytes),
                format_size(generated.read_bytes).c_str(),
                static_cast<unsigned long long>(generated.cache_bytes),
                format_size(generated.cache_bytes).c_str());
  return text.data();
}

Status Answer::on_accepted(const protocol::Accepted& accepted) {
  accepted_ = accepted;
  if (profile_ == nullptr) return {};
  profile_->summary = {};
  return profile_->file.begin(accepted);
}

Status Answer::on_profile(const protocol::Profile& profile) {
  if (profile_ == nullptr) return unexpected_event();
  profile_->summary.add(profile);
  for (const protocol::ProfileEvent& event : profile.events) {
    AIRLLM_TRY_VOID(profile_->file.add(event));
  }
  return {};
}

Status Answer::on_progress(const protocol::Progress& progress) {
  line_.update(progress);
  return {};
}

// ---- text --------------------------------------------------------------------------------------

Status TextAnswer::on_progress(const protocol::Progress& progress) {
  // Between the words of an answer a progress line would only disturb.
  return printed_ ? Status() : Answer::on_progress(progress);
}

Status TextAnswer::on_token(const protocol::Token& token) {
  begun_ = true;
  if (token.text.empty()) return {};
  line_.clear();
  printed_ = true;
  last_ = token.text.back();
  return print_out(shown_on_stdout(token.text), caught_signal() != 0);
}

Status TextAnswer::on_generated(const protocol::Generated& generated) {
  generated_ = generated;
  return {};
}

void TextAnswer::finish() {
  line_.clear();
  if (last_ == '\n' || !stdout_is_terminal()) return;
  (void)print_out("\n", true);
  last_ = '\n';
}

// ---- JSON --------------------------------------------------------------------------------------

JsonAnswer::JsonAnswer(const protocol::GenerateParams& params, bool stream)
    : stream_(stream),
      wants_logprobs_(params.logprobs > 0),
      wants_prompt_logprobs_(params.prompt_logprobs > 0),
      stop_(params.stop),
      ignore_eos_(params.ignore_eos) {}

Json JsonAnswer::options() const {
  const protocol::SamplingOptions& used = accepted_.options;
  return Json{{"temperature", or_null(used.temperature)},
              {"top_k", or_null(used.top_k)},
              {"top_p", or_null(used.top_p)},
              {"min_p", or_null(used.min_p)},
              {"repetition_penalty", or_null(used.repetition_penalty)},
              {"seed", accepted_.seed},
              {"max_tokens", or_null(accepted_.max_tokens)},
              {"stop", stop_},
              {"ignore_eos", ignore_eos_}};
}

Status JsonAnswer::print_event(const std::string& line) {
  begun_ = true;
  line_.clear();
  return print_out(line + "\n", caught_signal() != 0);
}

Status JsonAnswer::on_accepted(const protocol::Accepted& accepted) {
  AIRLLM_TRY_VOID(Answer::on_accepted(accepted));
  if (!stream_) return {};
  return print_event(json_for_stdout(Json{{"type", "accepted"},
                                          {"job", accepted.job},
                                          {"model", accepted.model},
                                          {"prompt_tokens", accepted.prompt_tokens},
                                          {"seed", accepted.seed},
                                          {"options", options()}}));
}

Status JsonAnswer::on_progress(const protocol::Progress& progress) {
  if (!stream_) return Answer::on_progress(progress);
  return print_event(json_for_stdout(Json{{"type", "progress"},
                                          {"stage", progress.stage},
                                          {"done", progress.done},
                                          {"total", progress.total},
                                          {"unit", progress.unit}}));
}

Status JsonAnswer::on_prompt_logprobs(const protocol::PromptLogprobs& event) {
  if (!wants_prompt_logprobs_ || event.position != prompt_positions_) return unexpected_event();
  begun_ = true;
  const std::string entry = logprobs_json(event.logprobs);
  if (stream_) {
    AIRLLM_TRY_VOID(
        print_event(open_object(Json{{"type", "prompt_logprobs"}, {"position", event.position}}) +
                    ",\"logprobs\":" + entry + "}"));
  }
  ++prompt_positions_;
  return prompt_logprobs_.append((prompt_positions_ > 1 ? "," : "") + entry);
}

Status JsonAnswer::on_token(const protocol::Token& token) {
  begun_ = true;
  text_ += token.text;
  const std::string entry = logprobs_json(token.logprobs);
  if (stream_) {
    std::string line =
        open_object(Json{{"type", "token"}, {"id", or_null(token.token_id)}, {"text", token.text}});
    if (wants_logprobs_) line += ",\"logprobs\":" + entry;
    AIRLLM_TRY_VOID(print_event(line + "}"));
  }
  if (!token.token_id) return {};
  token_ids_.push_back(*token.token_id);
  if (!wants_logprobs_) return {};
  return logprobs_.append((token_ids_.size() > 1 ? "," : "") + entry);
}

Status JsonAnswer::print_logprobs(const char* key, bool wanted, Spool& spool) {
  if (!wanted) return {};
  AIRLLM_TRY_VOID(print_out(std::string(",\"") + key + "\":[", true));
  AIRLLM_TRY_VOID(spool.print(true));
  return print_out("]", true);
}

Status JsonAnswer::on_generated(const protocol::Generated& generated) {
  generated_ = generated;
  line_.clear();
  Json answer = Json::object();
  if (stream_) answer["type"] = "done";
  answer["model"] = accepted_.model;
  answer["text"] = text_;
  answer["token_ids"] = token_ids_;
  answer["finish_reason"] = generated.finish_reason;
  answer["usage"] = {{"prompt_tokens", generated.prompt_tokens},
                     {"completion_tokens", generated.completion_tokens}};
  answer["seed"] = accepted_.seed;
  answer["options"] = options();
  answer["timings_ms"] = {{"queued", generated.queued_ms},
                          {"first_token", generated.first_token_ms},
                          {"total", generated.total_ms}};
  answer["io"] = {{"sweeps", generated.sweeps},
                  {"read_bytes", generated.read_bytes},
                  {"cache_bytes", generated.cache_bytes}};
  AIRLLM_TRY_VOID(print_out(open_object(answer), true));
  AIRLLM_TRY_VOID(print_logprobs("logprobs", wants_logprobs_, logprobs_));
  AIRLLM_TRY_VOID(print_logprobs("prompt_logprobs", wants_prompt_logprobs_, prompt_logprobs_));
  return print_out("}\n", true);
}

}  // namespace airllm::client
