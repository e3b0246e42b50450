// Structs to frames.
#include <array>

#include "protocol/framing.h"
#include "protocol/message_parts.h"
#include "protocol/msgpack_writer.h"

namespace airllm::protocol {
namespace {

// The elements of lists.
void write(Writer& out, const ChatMessage& message) {
  out.map(2);
  out.field("role", message.role);
  out.field("content", message.content);
}

void write(Writer& out, const TokenLogprob& pair) {
  out.array(2);
  out.value(pair.id);
  out.value(pair.logprob);
}

// What is 0 or empty is left out: there are many of these.
void write(Writer& out, const ProfileEvent& event) {
  const auto fields = std::array{std::pair{"thread", event.thread},
                                 std::pair{"offset", event.offset},
                                 std::pair{"read_bytes", event.read_bytes},
                                 std::pair{"cache_bytes", event.cache_bytes},
                                 std::pair{"rows", event.rows},
                                 std::pair{"other_rows", event.other_rows}};
  size_t pairs = 3 + (event.name.empty() ? 0 : 1);
  for (const auto& [name, number] : fields) pairs += number == 0 ? 0 : 1;
  out.map(pairs);
  out.field("kind", event.kind);
  out.field("begin_ns", event.begin_ns);
  out.field("duration_ns", event.duration_ns);
  if (!event.name.empty()) out.field("name", event.name);
  for (const auto& [name, number] : fields) {
    if (number != 0) out.field(name, number);
  }
}

template <typename T>
void list_field(Writer& out, std::string_view name, const std::vector<T>& list) {
  out.key(name);
  out.array(list.size());
  for (const T& element : list) write(out, element);
}

void write(Writer& out, const SamplingOptions& options) {
  out.map(count(options.temperature) + count(options.top_k) + count(options.top_p) +
          count(options.min_p) + count(options.repetition_penalty) + count(options.seed));
  optional_field(out, "temperature", options.temperature);
  optional_field(out, "top_k", options.top_k);
  optional_field(out, "top_p", options.top_p);
  optional_field(out, "min_p", options.min_p);
  optional_field(out, "repetition_penalty", options.repetition_penalty);
  optional_field(out, "seed", options.seed);
}

void write_params(Writer& out, const GenerateParams& params) {
  out.map(10 + count(params.raw_text) + count(params.prompt_ids) + count(params.max_tokens) +
          count(params.keep_alive_ms));
  out.field("model", params.model);
  list_field(out, "messages", params.messages);
  optional_field(out, "raw_text", params.raw_text);
  optional_field(out, "prompt_ids", params.prompt_ids);
  out.key("sampling");
  write(out, params.sampling);
  optional_field(out, "max_tokens", params.max_tokens);
  out.field("stop", params.stop);
  out.field("special", params.special);
  out.field("ignore_eos", params.ignore_eos);
  out.field("logprobs", params.logprobs);
  out.field("prompt_logprobs", params.prompt_logprobs);
  optional_field(out, "keep_alive_ms", params.keep_alive_ms);
  out.field("profile", params.profile);
  out.field("opens_files", params.opens_files);
}

void write_params(Writer& out, const TokenizeParams& params) {
  out.map(6);
  out.field("model", params.model);
  out.field("text", params.text);
  out.field("special", params.special);
  out.field("no_add_special", params.no_add_special);
  out.field("count_only", params.count_only);
  out.field("pieces", params.pieces);
}

void write_params(Writer& out, const DetokenizeParams& params) {
  out.map(3);
  out.field("model", params.model);
  out.field("ids", params.ids);
  out.field("skip_special", params.skip_special);
}

void write_params(Writer& out, const TemplateParams& params) {
  out.map(3);
  out.field("model", params.model);
  out.field("input_json", params.input_json);
  out.field("no_generation_prompt", params.no_generation_prompt);
}

void write_params(Writer& out, const SplitParams& params) {
  out.map(7 + count(params.in_place) + count(params.from_model));
  out.field("name", params.name);
  out.field("source_label", params.source_label);
  out.field("share", params.share);
  out.field("chat_templates", params.chat_templates);
  optional_field(out, "in_place", params.in_place);
  out.field("only_plan", params.only_plan);
  out.field("format", params.format);
  out.field("allow_nonfinite", params.allow_nonfinite);
  optional_field(out, "from_model", params.from_model);
}

void write_params(Writer& out, const ModelParams& params) {
  out.map(1);
  out.field("model", params.model);
}

void write_params(Writer& out, const VerifyParams& params) {
  out.map(2);
  out.field("model", params.model);
  out.field("opens_files", params.opens_files);
}

void write_params(Writer& out, const BenchStreamParams& params) {
  out.map(3);
  out.field("model", params.model);
  out.field("sweeps", params.sweeps);
  out.field("opens_files", params.opens_files);
}

void write_params(Writer& out, const BenchKernelsParams& params) {
  out.map(1);
  out.field("rounds", params.rounds);
}

void write_params(Writer& out, const JobParams& params) {
  out.map(1);
  out.field("job", params.job);
}

void write_params(Writer& out, const DefaultParams& params) {
  out.map(count(params.model));
  optional_field(out, "model", params.model);
}

void write_params(Writer& out, const ListParams&) { out.map(0); }
void write_params(Writer& out, const PsParams&) { out.map(0); }
void write_params(Writer& out, const StatusParams&) { out.map(0); }
void write_params(Writer& out, const DoctorParams&) { out.map(0); }
void write_params(Writer& out, const MeasureDiskParams&) { out.map(0); }
void write_params(Writer& out, const UnknownMethod&) { out.map(0); }

struct MethodName {
  std::string_view operator()(const GenerateParams&) const { return "generate"; }
  std::string_view operator()(const TokenizeParams&) const { return "tokenize"; }
  std::string_view operator()(const DetokenizeParams&) const { return "detokenize"; }
  std::string_view operator()(const TemplateParams&) const { return "template"; }
  std::string_view operator()(const SplitParams&) const { return "split"; }
  std::string_view operator()(const ListParams&) const { return "list"; }
  std::string_view operator()(const ShowParams&) const { return "show"; }
  std::string_view operator()(const PsParams&) const { return "ps"; }
  std::string_view operator()(const RemoveParams&) const { return "rm"; }
  std::string_view operator()(const ShareParams&) const { return "share"; }
  std::string_view operator()(const StopParams&) const { return "stop"; }
  std::string_view operator()(const VerifyParams&) const { return "verify"; }
  std::string_view operator()(const JobParams&) const { return "cancel_job"; }
  std::string_view operator()(const StatusParams&) const { return "status"; }
  std::string_view operator()(const DefaultParams&) const { return "default"; }
  std::string_view operator()(const DoctorParams&) const { return "doctor"; }
  std::string_view operator()(const MeasureDiskParams&) const { return "measure_disk"; }
  std::string_view operator()(const BenchStreamParams&) const { return "bench_stream"; }
  std::string_view operator()(const BenchKernelsParams&) const { return "bench_kernels"; }
  std::string_view operator()(const UnknownMethod& unknown) const { return unknown.method; }
};

void write(Writer& out, const Request& request) {
  out.map(4);
  out.field("type", "request");
  out.field("id", request.id);
  out.field("method", std::visit(MethodName{}, request.params));
  out.key("params");
  std::visit([&](const auto& params) { write_params(out, params); }, request.params);
}

void write(Writer& out, const Files& files) {
  out.map(4);
  out.field("type", "files");
  out.field("id", files.id);
  out.field("names", files.names);
  out.field("status", files.status);
}

void write_body(Writer& out, const Accepted& body) {
  out.map(5 + count(body.max_tokens));
  out.field("job", body.job);
  out.field("model", body.model);
  out.field("prompt_tokens", body.prompt_tokens);
  out.field("seed", body.seed);
  out.key("options");
  write(out, body.options);
  optional_field(out, "max_tokens", body.max_tokens);
}

void write_body(Writer& out, const Progress& body) {
  out.map(4);
  out.field("stage", body.stage);
  out.field("done", body.done);
  out.field("total", body.total);
  out.field("unit", body.unit);
}

// What a pair takes at most: the array's head, an id of 5 bytes, a number of 9.
constexpr size_t kPairBytes = 15;

void write_body(Writer& out, const Token& body) {
  out.reserve(body.logprobs.size() * kPairBytes + body.text.size());
  out.map(1 + count(body.token_id) + (body.logprobs.empty() ? 0 : 1));
  optional_field(out, "token_id", body.token_id);
  out.field("text", body.text);
  if (!body.logprobs.empty()) list_field(out, "logprobs", body.logprobs);
}

void write_body(Writer& out, const PromptLogprobs& body) {
  out.reserve(body.logprobs.size() * kPairBytes);
  out.map(2);
  out.field("position", body.position);
  list_field(out, "logprobs", body.logprobs);
}

void write_body(Writer& out, const Profile& body) {
  out.map(2);
  list_field(out, "events", body.events);
  out.field("lost", body.lost);
}

void write_body(Writer& out, const Tokens& body) {
  out.map(body.pieces.empty() ? 1 : 2);
  out.field("ids", body.ids);
  if (!body.pieces.empty()) out.field("pieces", body.pieces);
}

void write_body(Writer& out, const Text& body) {
  out.map(1);
  out.field("text", body.text);
}

void write_body(Writer& out, const OpenFiles& body) {
  out.map(2);
  out.field("names", body.names);
  out.field("directory", body.directory);
}

void write_body(Writer& out, const Generated& body) {
  out.map(9);
  out.field("finish_reason", body.finish_reason);
  out.field("prompt_tokens", body.prompt_tokens);
  out.field("completion_tokens", body.completion_tokens);
  out.field("queued_ms", body.queued_ms);
  out.field("first_token_ms", body.first_token_ms);
  out.field("total_ms", body.total_ms);
  out.field("sweeps", body.sweeps);
  out.field("read_bytes", body.read_bytes);
  out.field("cache_bytes", body.cache_bytes);
}

void write_body(Writer& out, const Done& body) {
  out.map(1);
  out.field("result_json", body.result_json);
}

void write_body(Writer& out, const Failed& body) {
  out.map(kErrorFields);
  write_error(out, body.error);
}

struct EventName {
  std::string_view operator()(const Accepted&) const { return "accepted"; }
  std::string_view operator()(const Progress&) const { return "progress"; }
  std::string_view operator()(const Token&) const { return "token"; }
  std::string_view operator()(const PromptLogprobs&) const { return "prompt_logprobs"; }
  std::string_view operator()(const Profile&) const { return "profile"; }
  std::string_view operator()(const Tokens&) const { return "tokens"; }
  std::string_view operator()(const Text&) const { return "text"; }
  std::string_view operator()(const OpenFiles&) const { return "open_files"; }
  std::string_view operator()(const Generated&) const { return "generated"; }
  std::string_view operator()(const Done&) const { return "done"; }
  std::string_view operator()(const Failed&) const { return "error"; }
};

void write(Writer& out, const Event& event) {
  out.map(4);
  out.field("type", "event");
  out.field("id", event.id);
  out.field("event", std::visit(EventName{}, event.body));
  out.key("body");
  std::visit([&](const auto& body) { write_body(out, body); }, event.body);
}

template <typename Message>
Result<std::string> encode_message(const Message& message, bool replace_bad_text) {
  Writer out(replace_bad_text);
  std::visit([&](const auto& content) { write(out, content); }, message);
  return out.finish();
}

}  // namespace

Result<std::string> encode(const ClientMessage& message) { return encode_message(message, false); }
Result<std::string> encode(const ServerMessage& message) { return encode_message(message, true); }

}  // namespace airllm::protocol
