#include "protocol/message_parts.h"

#include "base/utf8.h"
#include "protocol/msgpack_writer.h"

namespace airllm::protocol {
namespace {

constexpr uint64_t kMaxFeatures = 256;

}  // namespace

Result<Opened> open_payload(std::string_view payload) {
  AIRLLM_TRY_VOID(check_payload(payload));
  AIRLLM_TRY(MapView map, MapView::parse(payload, "message"));
  Opened opened{std::move(map), {}};
  AIRLLM_TRY_VOID(opened.map.get("type", opened.type));
  return opened;
}

Result<MapView> read_map(const MapView& parent, std::string_view key) {
  constexpr std::string_view kEmptyMap = "\x80";
  return MapView::parse(parent.find(key).value_or(kEmptyMap), parent.path(key));
}

Unexpected unknown_word(const char* what, const std::string& word) {
  return Unexpected(
      ErrorCode::kProtocol,
      std::string("unknown ") + what + " '" + escape_for_display(word.substr(0, 64), true) + "'",
      "client and daemon should be of the same version");
}

Result<Hello> read_hello(const MapView& map) {
  Hello hello;
  hello.version = 0;  // a peer that tells none is of no version that we know
  AIRLLM_TRY_VOID(map.get("version", hello.version));
  AIRLLM_TRY_VOID(map.get("program", hello.program));
  AIRLLM_TRY_VOID(map.get_list("features", kMaxFeatures, hello.features));
  AIRLLM_TRY_VOID(map.get("pid", hello.pid));
  return hello;
}

Result<Cancel> read_cancel(const MapView& map) {
  Cancel cancel;
  AIRLLM_TRY_VOID(map.get("id", cancel.id));
  return cancel;
}

void write(Writer& out, const Hello& hello) {
  out.map(5);
  out.field("type", "hello");
  out.field("version", hello.version);
  out.field("program", hello.program);
  out.field("features", hello.features);
  out.field("pid", hello.pid);
}

void write(Writer& out, const Cancel& cancel) {
  out.map(2);
  out.field("type", "cancel");
  out.field("id", cancel.id);
}

Result<Error> read_error(const MapView& map) {
  Error error;
  std::string code;
  AIRLLM_TRY_VOID(map.get("code", code));
  AIRLLM_TRY_VOID(map.get("message", error.message));
  AIRLLM_TRY_VOID(map.get("remedy", error.remedy));
  error.code = error_code_from_name(code);
  return error;
}

void write_error(Writer& out, const Error& error) {
  out.field("code", error_name(error.code));
  out.field("message", error.message);
  out.field("remedy", error.remedy);
}

}  // namespace airllm::protocol
