#include "protocol/fetch_messages.h"

#include "protocol/message_parts.h"
#include "protocol/msgpack_writer.h"

namespace airllm::protocol {

// Found by MapView::get_list() through its argument, so in no namespace without a name.
static Status read_value(std::string_view bytes, const std::string& where, ListedFile& out) {
  AIRLLM_TRY(const MapView map, MapView::parse(bytes, where));
  AIRLLM_TRY_VOID(map.get("name", out.name));
  AIRLLM_TRY_VOID(map.get("size", out.size));
  AIRLLM_TRY_VOID(map.get("git_sha1", out.git_sha1));
  return map.get("sha256", out.sha256);
}

namespace {

// ---- structs to bytes --------------------------------------------------------------------------

void write(Writer& out, const FetchSettings& settings) {
  out.map(1 + count(settings.connections) + count(settings.limit_rate));
  out.field("type", "settings");
  optional_field(out, "connections", settings.connections);
  optional_field(out, "limit_rate", settings.limit_rate);
}

constexpr size_t kRepositoryFields = 5;

void write_repository(Writer& out, const Repository& from) {
  out.field("endpoint", from.endpoint);
  out.field("repository", from.repository);
  out.field("revision", from.revision);
  out.field("token", from.token);
  out.field("own_token", from.own_token);
}

void write_params(Writer& out, const RepositoryParams& params) {
  out.map(kRepositoryFields);
  write_repository(out, params.from);
}

void write_params(Writer& out, const ReadParams& params) {
  out.map(kRepositoryFields + 3 + count(params.size));
  write_repository(out, params.from);
  out.field("name", params.name);
  optional_field(out, "size", params.size);
  out.field("offset", params.offset);
  out.field("length", params.length);
}

void write_params(Writer& out, const FileParams& params) {
  out.map(kRepositoryFields + 5 + count(params.limit));
  write_repository(out, params.from);
  out.field("name", params.name);
  out.field("size", params.size);
  out.field("sha256", params.sha256);
  out.field("git_sha1", params.git_sha1);
  out.field("window", params.window);
  optional_field(out, "limit", params.limit);
}

void write_params(Writer& out, const UnknownMethod&) { out.map(0); }

struct MethodName {
  std::string_view operator()(const RepositoryParams&) const { return "repository"; }
  std::string_view operator()(const ReadParams&) const { return "read"; }
  std::string_view operator()(const FileParams&) const { return "file"; }
  std::string_view operator()(const UnknownMethod& unknown) const { return unknown.method; }
};

void write(Writer& out, const FetchRequest& request) {
  out.map(4);
  out.field("type", "request");
  out.field("id", request.id);
  out.field("method", std::visit(MethodName{}, request.params));
  out.key("params");
  std::visit([&](const auto& params) { write_params(out, params); }, request.params);
}

void write(Writer& out, const Grant& grant) {
  out.map(3);
  out.field("type", "grant");
  out.field("id", grant.id);
  out.field("limit", grant.limit);
}

void write_body(Writer& out, const ListedFiles& body) {
  out.map(1);
  out.key("files");
  out.array(body.files.size());
  for (const ListedFile& file : body.files) {
    out.map(4);
    out.field("name", file.name);
    out.field("size", file.size);
    out.field("git_sha1", file.git_sha1);
    out.field("sha256", file.sha256);
  }
}

void write_body(Writer& out, const FetchData& body) {
  out.reserve(body.data.bytes.size());
  out.map(2);
  out.field("offset", body.offset);
  out.field("data", body.data);
}

void write_body(Writer& out, const FetchProgress& body) {
  out.map(2);
  out.field("prefix", body.prefix);
  out.field("received", body.received);
}

void write_body(Writer& out, const FetchDone& body) {
  out.map(4);
  out.field("commit", body.commit);
  out.field("files", body.files);
  out.field("size", body.size);
  out.field("received", body.received);
}

void write_body(Writer& out, const FetchFailed& body) {
  out.map(kErrorFields + 2);
  write_error(out, body.error);
  out.field("reason", body.reason);
  out.field("resumable", body.resumable);
}

struct EventName {
  std::string_view operator()(const ListedFiles&) const { return "files"; }
  std::string_view operator()(const FetchData&) const { return "data"; }
  std::string_view operator()(const FetchProgress&) const { return "progress"; }
  std::string_view operator()(const FetchDone&) const { return "done"; }
  std::string_view operator()(const FetchFailed&) const { return "error"; }
};

void write(Writer& out, const FetchEvent& event) {
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

// ---- bytes to structs --------------------------------------------------------------------------

Result<FetchSettings> read_settings(const MapView& map) {
  FetchSettings settings;
  AIRLLM_TRY_VOID(map.get("connections", settings.connections));
  AIRLLM_TRY_VOID(map.get("limit_rate", settings.limit_rate));
  return settings;
}

Status read_repository(const MapView& map, Repository& out) {
  AIRLLM_TRY_VOID(map.get("endpoint", out.endpoint));
  AIRLLM_TRY_VOID(map.get("repository", out.repository));
  AIRLLM_TRY_VOID(map.get("revision", out.revision));
  AIRLLM_TRY_VOID(map.get("token", out.token));
  return map.get("own_token", out.own_token);
}

Result<FetchParams> read_params(const std::string& method, const MapView& map) {
  if (method == "repository") {
    RepositoryParams params;
    AIRLLM_TRY_VOID(read_repository(map, params.from));
    return FetchParams(std::move(params));
  }
  if (method == "read") {
    ReadParams params;
    AIRLLM_TRY_VOID(read_repository(map, params.from));
    AIRLLM_TRY_VOID(map.get("name", params.name));
    AIRLLM_TRY_VOID(map.get("size", params.size));
    AIRLLM_TRY_VOID(map.get("offset", params.offset));
    AIRLLM_TRY_VOID(map.get("length", params.length));
    return FetchParams(std::move(params));
  }
  if (method == "file") {
    FileParams params;
    AIRLLM_TRY_VOID(read_repository(map, params.from));
    AIRLLM_TRY_VOID(map.get("name", params.name));
    AIRLLM_TRY_VOID(map.get("size", params.size));
    AIRLLM_TRY_VOID(map.get("sha256", params.sha256));
    AIRLLM_TRY_VOID(map.get("git_sha1", params.git_sha1));
    AIRLLM_TRY_VOID(map.get("window", params.window));
    AIRLLM_TRY_VOID(map.get("limit", params.limit));
    return FetchParams(std::move(params));
  }
  return FetchParams(UnknownMethod{method});
}

Result<FetchRequest> read_request(const MapView& map) {
  FetchRequest request;
  std::string method;
  AIRLLM_TRY_VOID(map.get("id", request.id));
  AIRLLM_TRY_VOID(map.get("method", method));
  AIRLLM_TRY(const MapView params, read_map(map, "params"));
  AIRLLM_TRY(request.params, read_params(method, params));
  return request;
}

Result<Grant> read_grant(const MapView& map) {
  Grant grant;
  AIRLLM_TRY_VOID(map.get("id", grant.id));
  AIRLLM_TRY_VOID(map.get("limit", grant.limit));
  return grant;
}

Result<FetchEventBody> read_body(const std::string& kind, const MapView& map) {
  if (kind == "files") {
    ListedFiles body;
    AIRLLM_TRY_VOID(map.get_list("files", kMaxListedFiles, body.files));
    return FetchEventBody(std::move(body));
  }
  if (kind == "data") {
    FetchData body;
    AIRLLM_TRY_VOID(map.get("offset", body.offset));
    AIRLLM_TRY_VOID(map.get("data", body.data));
    return FetchEventBody(std::move(body));
  }
  if (kind == "progress") {
    FetchProgress body;
    AIRLLM_TRY_VOID(map.get("prefix", body.prefix));
    AIRLLM_TRY_VOID(map.get("received", body.received));
    return FetchEventBody(body);
  }
  if (kind == "done") {
    FetchDone body;
    AIRLLM_TRY_VOID(map.get("commit", body.commit));
    AIRLLM_TRY_VOID(map.get("files", body.files));
    AIRLLM_TRY_VOID(map.get("size", body.size));
    AIRLLM_TRY_VOID(map.get("received", body.received));
    return FetchEventBody(std::move(body));
  }
  if (kind == "error") {
    FetchFailed body;
    AIRLLM_TRY(body.error, read_error(map));
    AIRLLM_TRY_VOID(map.get("reason", body.reason));
    AIRLLM_TRY_VOID(map.get("resumable", body.resumable));
    return FetchEventBody(std::move(body));
  }
  return unknown_word("event", kind);
}

Result<FetchEvent> read_event(const MapView& map) {
  FetchEvent event;
  std::string kind;
  AIRLLM_TRY_VOID(map.get("id", event.id));
  AIRLLM_TRY_VOID(map.get("event", kind));
  AIRLLM_TRY(const MapView body, read_map(map, "body"));
  AIRLLM_TRY(event.body, read_body(kind, body));
  return event;
}

// What `read` makes of the map, as one of the messages `Message`.
template <typename Message, typename Read>
Result<Message> as(const MapView& map, Read read) {
  AIRLLM_TRY(auto content, read(map));
  return Message(std::move(content));
}

}  // namespace

Result<std::string> encode_to_fetch(const ToFetch& message) {
  return encode_message(message, false);
}

Result<std::string> encode_from_fetch(const FromFetch& message) {
  return encode_message(message, true);
}

Result<ToFetch> decode_to_fetch(std::string_view payload) {
  AIRLLM_TRY(const Opened opened, open_payload(payload));
  if (opened.type == "hello") return as<ToFetch>(opened.map, read_hello);
  if (opened.type == "settings") return as<ToFetch>(opened.map, read_settings);
  if (opened.type == "request") return as<ToFetch>(opened.map, read_request);
  if (opened.type == "grant") return as<ToFetch>(opened.map, read_grant);
  if (opened.type == "cancel") return as<ToFetch>(opened.map, read_cancel);
  return unknown_word("message type", opened.type);
}

Result<FromFetch> decode_from_fetch(std::string_view payload) {
  AIRLLM_TRY(const Opened opened, open_payload(payload));
  if (opened.type == "hello") return as<FromFetch>(opened.map, read_hello);
  if (opened.type == "event") return as<FromFetch>(opened.map, read_event);
  return unknown_word("message type", opened.type);
}

}  // namespace airllm::protocol
