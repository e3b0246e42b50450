#include "engine/schedule/text_job.h"

#include <algorithm>
#include <condition_variable>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/overloaded.h"
#include "base/utf8.h"
#include "engine/schedule/job_limits.h"
#include "engine/tokenizer/template_input.h"

namespace airllm::schedule {
namespace {

using Clock = std::chrono::steady_clock;

// What one event holds. A receiver takes them by turns with the events of other jobs.
constexpr size_t kIdsPerEvent = size_t{1} << 16;
constexpr size_t kTextBytesPerEvent = size_t{256} << 10;
// A token whose text is longer is of no use to anybody, and could break the frame.
constexpr size_t kMaxPieceBytes = size_t{1} << 20;
constexpr auto kRoomInterval = std::chrono::milliseconds(5);

// Hands results on no faster than the receiver takes them.
class Output {
 public:
  Output(engine::JobEvents& events, const TextJobs& jobs, std::stop_token stop)
      : events_(events), jobs_(jobs), stop_(std::move(stop)) {}

  Status check_stop() const {
    if (!stop_.stop_requested()) return {};
    return Unexpected(ErrorCode::kCancelled, "cancelled");
  }

  Status tokens(std::span<const int32_t> ids, std::span<const std::string> pieces) {
    AIRLLM_TRY_VOID(wait_for_room());
    events_.on_tokens(ids, pieces);
    return {};
  }

  // Collects until it is worth an event.
  Status text(std::string_view text) {
    while (!text.empty()) {
      const size_t room = kTextBytesPerEvent - collected_.size();
      const std::string_view part = text.substr(0, whole_characters(text, room));
      if (part.empty()) {
        AIRLLM_TRY_VOID(flush());
        continue;
      }
      collected_ += part;
      text.remove_prefix(part.size());
    }
    return {};
  }
  Status flush() {
    if (collected_.empty()) return check_stop();
    AIRLLM_TRY_VOID(wait_for_room());
    events_.on_text(collected_);
    collected_.clear();
    return {};
  }

 private:
  // The most bytes of `text`, at most `most`, that end with a character.
  static size_t whole_characters(std::string_view text, size_t most) {
    if (text.size() <= most) return text.size();
    return most - incomplete_utf8_suffix(text.substr(0, most));
  }

  Status wait_for_room() {
    AIRLLM_TRY_VOID(check_stop());
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    const Clock::time_point since = Clock::now();
    while (events_.room_bytes() == 0) {
      const std::chrono::milliseconds most = jobs_.pause_timeout.load();
      if (Clock::now() - since > most) return Unexpected(slow_receiver_error(most));
      wake.wait_for(lock, stop_, kRoomInterval, [] { return false; });
      AIRLLM_TRY_VOID(check_stop());
    }
    return {};
  }

  engine::JobEvents& events_;
  const TextJobs& jobs_;
  const std::stop_token stop_;
  std::string collected_;
};

Result<std::vector<std::string>> pieces_of(const tokenizer::Tokenizer& tokenizer,
                                           std::span<const int32_t> ids) {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const int32_t id : ids) {
    pieces.push_back(tokenizer.token_text(id).value_or(""));
    if (pieces.back().size() > kMaxPieceBytes) {
      return Unexpected(ErrorCode::kData,
                        "the text of token " + std::to_string(id) + " has more than " +
                            std::to_string(kMaxPieceBytes) + " bytes",
                        "the model's tokenizer is damaged; ask for the ids alone");
    }
  }
  return pieces;
}

Status send_tokens(const tokenizer::Tokenizer& tokenizer, std::span<const int32_t> ids,
                   bool with_pieces, Output& out) {
  constexpr size_t kPiecesPerEvent = 1024;  // kMaxPieceBytes each would be too much for a frame
  const size_t most = with_pieces ? kPiecesPerEvent : kIdsPerEvent;
  for (size_t begin = 0; begin < ids.size(); begin += most) {
    const std::span<const int32_t> some = ids.subspan(begin, std::min(most, ids.size() - begin));
    std::vector<std::string> pieces;
    if (with_pieces) {
      AIRLLM_TRY(pieces, pieces_of(tokenizer, some));
    }
    AIRLLM_TRY_VOID(out.tokens(some, pieces));
  }
  return {};
}

Result<Json> run(const LoadedModel& model, const engine::TokenizeRequest& request, TextJobs& jobs,
                 Output& out) {
  AIRLLM_TRY(const tokenizer::Tokenizer* const tokenizer, model.need_tokenizer());
  const tokenizer::TextPart part{request.text, !request.special};
  std::unique_lock lock(jobs.computing);
  AIRLLM_TRY_VOID(out.check_stop());
  AIRLLM_TRY(const std::vector<int32_t> ids,
             tokenizer->encode({&part, 1}, {.add_special = request.add_special}));
  lock.unlock();
  if (!request.counts_only) {
    AIRLLM_TRY_VOID(send_tokens(*tokenizer, ids, request.with_pieces, out));
  }
  return Json{{"model", model.name()}, {"count", ids.size()}};
}

Result<Json> run(const LoadedModel& model, const engine::DetokenizeRequest& request, TextJobs&,
                 Output& out) {
  AIRLLM_TRY(const tokenizer::Tokenizer* const tokenizer, model.need_tokenizer());
  AIRLLM_TRY_VOID(model.check_ids(request.ids));
  const auto stream = tokenizer->stream(request.skip_special);
  for (const int32_t id : request.ids) AIRLLM_TRY_VOID(out.text(stream->push(id)));
  AIRLLM_TRY_VOID(out.text(stream->finish()));
  AIRLLM_TRY_VOID(out.flush());
  return Json{{"model", model.name()}};
}

Result<Json> run(const LoadedModel& model, const engine::TemplateRequest& request, TextJobs& jobs,
                 Output& out) {
  AIRLLM_TRY(const tokenizer::ChatTemplate* const chat_template, model.need_chat_template());
  std::unique_lock lock(jobs.computing);
  AIRLLM_TRY_VOID(out.check_stop());
  AIRLLM_TRY(Json given, parse_json(request.input_json, "the conversation"));
  AIRLLM_TRY(const tokenizer::TemplateInput input,
             tokenizer::read_template_input(std::move(given), request.add_generation_prompt));
  AIRLLM_TRY(const std::vector<tokenizer::TextPart> parts, chat_template->render(input));
  lock.unlock();
  for (const tokenizer::TextPart& part : parts) AIRLLM_TRY_VOID(out.text(part.text));
  AIRLLM_TRY_VOID(out.flush());
  return Json{{"model", model.name()}};
}

}  // namespace

Result<Json> run_text_job(const LoadedModel& model, const engine::TextRequest& request,
                          TextJobs& jobs, engine::JobEvents& events, std::stop_token stop) {
  Output out(events, jobs, std::move(stop));
  return std::visit([&](const auto& work) { return run(model, work, jobs, out); }, request.work);
}

uint64_t input_bytes(const engine::TextRequest& request) {
  return std::visit(
      Overloaded{
          [](const engine::TokenizeRequest& work) -> uint64_t { return work.text.size(); },
          [](const engine::DetokenizeRequest& work) -> uint64_t {
            return work.ids.size() * sizeof(int32_t);
          },
          [](const engine::TemplateRequest& work) -> uint64_t { return work.input_json.size(); }},
      request.work);
}

}  // namespace airllm::schedule
