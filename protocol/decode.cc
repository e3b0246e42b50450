// Payloads to structs. Every byte is a stranger's: check_payload() first, then fields by name.
#include "protocol/framing.h"
#include "protocol/message_parts.h"
#include "protocol/msgpack_view.h"

namespace airllm::protocol {
namespace {

// The payload's size bounds these.
constexpr uint64_t kAnyCount = kMaxFrameBytes;

Status read_value(std::string_view bytes, const std::string& where, ChatMessage& out) {
  AIRLLM_TRY(const MapView map, MapView::parse(bytes, where));
  AIRLLM_TRY_VOID(map.get("role", out.role));
  return map.get("content", out.content);
}

Status read_value(std::string_view bytes, const std::string& where, TokenLogprob& out) {
  AIRLLM_TRY(ArrayCursor pair, ArrayCursor::open(bytes, where, 2));
  if (pair.remaining() != 2) {
    return Unexpected(ErrorCode::kProtocol, where + ": expected pairs of id and logprob");
  }
  AIRLLM_TRY(const std::string_view id, pair.next());
  AIRLLM_TRY(const std::string_view logprob, pair.next());
  AIRLLM_TRY_VOID(protocol::read_value(id, where, out.id));
  return protocol::read_value(logprob, where, out.logprob);
}

Status read_value(std::string_view bytes, const std::string& where, ProfileEvent& out) {
  AIRLLM_TRY(const MapView map, MapView::parse(bytes, where));
  AIRLLM_TRY_VOID(map.get("kind", out.kind));
  AIRLLM_TRY_VOID(map.get("thread", out.thread));
  AIRLLM_TRY_VOID(map.get("begin_ns", out.begin_ns));
  AIRLLM_TRY_VOID(map.get("duration_ns", out.duration_ns));
  AIRLLM_TRY_VOID(map.get("name", out.name));
  AIRLLM_TRY_VOID(map.get("offset", out.offset));
  AIRLLM_TRY_VOID(map.get("read_bytes", out.read_bytes));
  AIRLLM_TRY_VOID(map.get("cache_bytes", out.cache_bytes));
  AIRLLM_TRY_VOID(map.get("rows", out.rows));
  return map.get("other_rows", out.other_rows);
}

// MapView::get_list for the element types of this file.
template <typename T>
Status get_structs(const MapView& map, std::string_view key, uint64_t max_count,
                   std::vector<T>& out) {
  const std::optional<std::string_view> bytes = map.find(key);
  if (!bytes) return {};
  const std::string where = map.path(key);
  AIRLLM_TRY(ArrayCursor cursor, ArrayCursor::open(*bytes, where, max_count));
  out.clear();
  while (cursor.remaining() > 0) {
    AIRLLM_TRY(const std::string_view element, cursor.next());
    AIRLLM_TRY_VOID(read_value(element, where, out.emplace_back()));
  }
  return {};
}

Status read_sampling(const MapView& parent, std::string_view key, SamplingOptions& out) {
  const std::optional<std::string_view> bytes = parent.find(key);
  if (!bytes) return {};
  AIRLLM_TRY(const MapView map, MapView::parse(*bytes, parent.path(key)));
  AIRLLM_TRY_VOID(map.get("temperature", out.temperature));
  AIRLLM_TRY_VOID(map.get("top_k", out.top_k));
  AIRLLM_TRY_VOID(map.get("top_p", out.top_p));
  AIRLLM_TRY_VOID(map.get("min_p", out.min_p));
  AIRLLM_TRY_VOID(map.get("repetition_penalty", out.repetition_penalty));
  return map.get("seed", out.seed);
}

Result<std::optional<std::vector<int32_t>>> read_prompt_ids(const MapView& map) {
  std::optional<std::vector<int32_t>> ids;
  if (!map.find("prompt_ids")) return ids;
  ids.emplace();
  AIRLLM_TRY_VOID(map.get_list("prompt_ids", kAnyCount, *ids));
  return ids;
}

Result<GenerateParams> read_generate(const MapView& map) {
  GenerateParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(get_structs(map, "messages", kMaxChatMessages, params.messages));
  AIRLLM_TRY_VOID(map.get("raw_text", params.raw_text));
  AIRLLM_TRY(params.prompt_ids, read_prompt_ids(map));
  AIRLLM_TRY_VOID(read_sampling(map, "sampling", params.sampling));
  AIRLLM_TRY_VOID(map.get("max_tokens", params.max_tokens));
  AIRLLM_TRY_VOID(map.get_list("stop", kMaxStopStrings, params.stop));
  AIRLLM_TRY_VOID(map.get("special", params.special));
  AIRLLM_TRY_VOID(map.get("ignore_eos", params.ignore_eos));
  AIRLLM_TRY_VOID(map.get("logprobs", params.logprobs));
  AIRLLM_TRY_VOID(map.get("prompt_logprobs", params.prompt_logprobs));
  AIRLLM_TRY_VOID(map.get("keep_alive_ms", params.keep_alive_ms));
  AIRLLM_TRY_VOID(map.get("profile", params.profile));
  AIRLLM_TRY_VOID(map.get("opens_files", params.opens_files));
  return params;
}

template <typename T>
Result<Params> read_model_params(const MapView& map) {
  T params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  return Params(std::move(params));
}

Result<Params> read_verify(const MapView& map) {
  VerifyParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(map.get("opens_files", params.opens_files));
  return Params(std::move(params));
}

Result<Params> read_bench_stream(const MapView& map) {
  BenchStreamParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(map.get("sweeps", params.sweeps));
  AIRLLM_TRY_VOID(map.get("opens_files", params.opens_files));
  return Params(std::move(params));
}

Result<Params> read_bench_kernels(const MapView& map) {
  BenchKernelsParams params;
  AIRLLM_TRY_VOID(map.get("rounds", params.rounds));
  return Params(params);
}

Result<Params> read_tokenize(const MapView& map) {
  TokenizeParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(map.get("text", params.text));
  AIRLLM_TRY_VOID(map.get("special", params.special));
  AIRLLM_TRY_VOID(map.get("no_add_special", params.no_add_special));
  AIRLLM_TRY_VOID(map.get("count_only", params.count_only));
  AIRLLM_TRY_VOID(map.get("pieces", params.pieces));
  return Params(std::move(params));
}

Result<Params> read_detokenize(const MapView& map) {
  DetokenizeParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(map.get_list("ids", kAnyCount, params.ids));
  AIRLLM_TRY_VOID(map.get("skip_special", params.skip_special));
  return Params(std::move(params));
}

Result<Params> read_template(const MapView& map) {
  TemplateParams params;
  AIRLLM_TRY_VOID(map.get("model", params.model));
  AIRLLM_TRY_VOID(map.get("input_json", params.input_json));
  AIRLLM_TRY_VOID(map.get("no_generation_prompt", params.no_generation_prompt));
  return Params(std::move(params));
}

Result<Params> read_split(const MapView& map) {
  SplitParams params;
  AIRLLM_TRY_VOID(map.get("name", params.name));
  AIRLLM_TRY_VOID(map.get("source_label", params.source_label));
  AIRLLM_TRY_VOID(map.get("share", params.share));
  AIRLLM_TRY_VOID(map.get_list("chat_templates", kMaxChatTemplates, params.chat_templates));
  AIRLLM_TRY_VOID(map.get("in_place", params.in_place));
  AIRLLM_TRY_VOID(map.get("only_plan", params.only_plan));
  AIRLLM_TRY_VOID(map.get("format", params.format));
  AIRLLM_TRY_VOID(map.get("allow_nonfinite", params.allow_nonfinite));
  AIRLLM_TRY_VOID(map.get("from_model", params.from_model));
  return Params(std::move(params));
}

Result<Params> read_params(const std::string& method, const MapView& map) {
  if (method == "generate") {
    AIRLLM_TRY(GenerateParams params, read_generate(map));
    return Params(std::move(params));
  }
  if (method == "tokenize") return read_tokenize(map);
  if (method == "detokenize") return read_detokenize(map);
  if (method == "template") return read_template(map);
  if (method == "split") return read_split(map);
  if (method == "list") return Params(ListParams{});
  if (method == "show") return read_model_params<ShowParams>(map);
  if (method == "ps") return Params(PsParams{});
  if (method == "rm") return read_model_params<RemoveParams>(map);
  if (method == "share") return read_model_params<ShareParams>(map);
  if (method == "stop") return read_model_params<StopParams>(map);
  if (method == "verify") return read_verify(map);
  if (method == "status") return Params(StatusParams{});
  if (method == "doctor") return Params(DoctorParams{});
  if (method == "measure_disk") return Params(MeasureDiskParams{});
  if (method == "bench_stream") return read_bench_stream(map);
  if (method == "bench_kernels") return read_bench_kernels(map);
  if (method == "default") return read_model_params<DefaultParams>(map);
  if (method == "cancel_job") {
    JobParams params;
    AIRLLM_TRY_VOID(map.get("job", params.job));
    return Params(params);
  }
  return Params(UnknownMethod{method});
}

Result<Request> read_request(const MapView& map) {
  Request request;
  std::string method;
  AIRLLM_TRY_VOID(map.get("id", request.id));
  AIRLLM_TRY_VOID(map.get("method", method));
  AIRLLM_TRY(const MapView params, read_map(map, "params"));
  AIRLLM_TRY(request.params, read_params(method, params));
  return request;
}

Result<Files> read_files(const MapView& map) {
  Files files;
  AIRLLM_TRY_VOID(map.get("id", files.id));
  AIRLLM_TRY_VOID(map.get_list("names", kMaxDescriptors, files.names));
  AIRLLM_TRY_VOID(map.get_list("status", kMaxDescriptors, files.status));
  if (files.names.size() != files.status.size()) {
    return Unexpected(ErrorCode::kProtocol, "files: names and status differ in number");
  }
  return files;
}

Result<EventBody> read_accepted(const MapView& map) {
  Accepted body;
  AIRLLM_TRY_VOID(map.get("job", body.job));
  AIRLLM_TRY_VOID(map.get("model", body.model));
  AIRLLM_TRY_VOID(map.get("prompt_tokens", body.prompt_tokens));
  AIRLLM_TRY_VOID(map.get("seed", body.seed));
  AIRLLM_TRY_VOID(read_sampling(map, "options", body.options));
  AIRLLM_TRY_VOID(map.get("max_tokens", body.max_tokens));
  return EventBody(std::move(body));
}

Result<EventBody> read_progress(const MapView& map) {
  Progress body;
  AIRLLM_TRY_VOID(map.get("stage", body.stage));
  AIRLLM_TRY_VOID(map.get("done", body.done));
  AIRLLM_TRY_VOID(map.get("total", body.total));
  AIRLLM_TRY_VOID(map.get("unit", body.unit));
  return EventBody(std::move(body));
}

Result<EventBody> read_token(const MapView& map) {
  Token body;
  AIRLLM_TRY_VOID(map.get("token_id", body.token_id));
  AIRLLM_TRY_VOID(map.get("text", body.text));
  AIRLLM_TRY_VOID(get_structs(map, "logprobs", kAnyCount, body.logprobs));
  return EventBody(std::move(body));
}

Result<EventBody> read_prompt_logprobs(const MapView& map) {
  PromptLogprobs body;
  AIRLLM_TRY_VOID(map.get("position", body.position));
  AIRLLM_TRY_VOID(get_structs(map, "logprobs", kAnyCount, body.logprobs));
  return EventBody(std::move(body));
}

Result<EventBody> read_profile(const MapView& map) {
  Profile body;
  AIRLLM_TRY_VOID(get_structs(map, "events", kMaxProfileEvents, body.events));
  AIRLLM_TRY_VOID(map.get("lost", body.lost));
  return EventBody(std::move(body));
}

Result<EventBody> read_tokens(const MapView& map) {
  Tokens body;
  AIRLLM_TRY_VOID(map.get_list("ids", kAnyCount, body.ids));
  AIRLLM_TRY_VOID(map.get_list("pieces", kAnyCount, body.pieces));
  if (!body.pieces.empty() && body.pieces.size() != body.ids.size()) {
    return Unexpected(ErrorCode::kProtocol, "tokens: ids and pieces differ in number");
  }
  return EventBody(std::move(body));
}

Result<EventBody> read_text(const MapView& map) {
  Text body;
  AIRLLM_TRY_VOID(map.get("text", body.text));
  return EventBody(std::move(body));
}

Result<EventBody> read_open_files(const MapView& map) {
  OpenFiles body;
  AIRLLM_TRY_VOID(map.get_list("names", kMaxDescriptors, body.names));
  AIRLLM_TRY_VOID(map.get("directory", body.directory));
  return EventBody(std::move(body));
}

Result<EventBody> read_generated(const MapView& map) {
  Generated body;
  AIRLLM_TRY_VOID(map.get("finish_reason", body.finish_reason));
  AIRLLM_TRY_VOID(map.get("prompt_tokens", body.prompt_tokens));
  AIRLLM_TRY_VOID(map.get("completion_tokens", body.completion_tokens));
  AIRLLM_TRY_VOID(map.get("queued_ms", body.queued_ms));
  AIRLLM_TRY_VOID(map.get("first_token_ms", body.first_token_ms));
  AIRLLM_TRY_VOID(map.get("total_ms", body.total_ms));
  AIRLLM_TRY_VOID(map.get("sweeps", body.sweeps));
  AIRLLM_TRY_VOID(map.get("read_bytes", body.read_bytes));
  AIRLLM_TRY_VOID(map.get("cache_bytes", body.cache_bytes));
  return EventBody(std::move(body));
}

Result<EventBody> read_done(const MapView& map) {
  Done body;
  AIRLLM_TRY_VOID(map.get("result_json", body.result_json));
  return EventBody(std::move(body));
}

Result<EventBody> read_event_body(const std::string& kind, const MapView& map) {
  if (kind == "accepted") return read_accepted(map);
  if (kind == "progress") return read_progress(map);
  if (kind == "token") return read_token(map);
  if (kind == "prompt_logprobs") return read_prompt_logprobs(map);
  if (kind == "profile") return read_profile(map);
  if (kind == "tokens") return read_tokens(map);
  if (kind == "text") return read_text(map);
  if (kind == "open_files") return read_open_files(map);
  if (kind == "generated") return read_generated(map);
  if (kind == "done") return read_done(map);
  if (kind == "error") {
    AIRLLM_TRY(Error error, read_error(map));
    return EventBody(Failed{std::move(error)});
  }
  return unknown_word("event", kind);
}

Result<Event> read_event(const MapView& map) {
  Event event;
  std::string kind;
  AIRLLM_TRY_VOID(map.get("id", event.id));
  AIRLLM_TRY_VOID(map.get("event", kind));
  AIRLLM_TRY(const MapView body, read_map(map, "body"));
  AIRLLM_TRY(event.body, read_event_body(kind, body));
  return event;
}

}  // namespace

Result<ClientMessage> decode_client_message(std::string_view payload) {
  AIRLLM_TRY(const Opened opened, open_payload(payload));
  if (opened.type == "hello") {
    AIRLLM_TRY(Hello hello, read_hello(opened.map));
    return ClientMessage(std::move(hello));
  }
  if (opened.type == "request") {
    AIRLLM_TRY(Request request, read_request(opened.map));
    return ClientMessage(std::move(request));
  }
  if (opened.type == "files") {
    AIRLLM_TRY(Files files, read_files(opened.map));
    return ClientMessage(std::move(files));
  }
  if (opened.type == "cancel") {
    AIRLLM_TRY(const Cancel cancel, read_cancel(opened.map));
    return ClientMessage(cancel);
  }
  return unknown_word("message type", opened.type);
}

Result<ServerMessage> decode_server_message(std::string_view payload) {
  AIRLLM_TRY(const Opened opened, open_payload(payload));
  if (opened.type == "hello") {
    AIRLLM_TRY(Hello hello, read_hello(opened.map));
    return ServerMessage(std::move(hello));
  }
  if (opened.type == "event") {
    AIRLLM_TRY(Event event, read_event(opened.map));
    return ServerMessage(std::move(event));
  }
  return unknown_word("message type", opened.type);
}

}  // namespace airllm::protocol
