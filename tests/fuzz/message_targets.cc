#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/check.h"
#include "protocol/framing.h"
#include "protocol/msgpack_view.h"
#include "tests/fuzz/targets.h"
#include "tests/protocol/samples.h"

namespace airllm::fuzz {
namespace {

using namespace protocol;  // NOLINT(google-build-using-namespace): of the code under test

constexpr size_t kLengthBytes = 4;
// Longer seeds only slow the fuzzer down.
constexpr size_t kMostSeedBytes = 8192;

// ---- frames ------------------------------------------------------------------------------------

struct Frames {
  std::vector<std::string> payloads;
  bool broken = false;
  size_t pending_bytes = 0;

  bool operator==(const Frames&) const = default;
};

// Reads `stream` in pieces of `sizes`, over and over; all at once when there are none.
Frames read_frames(std::string_view stream, std::string_view sizes) {
  FrameReader reader(4096);
  Frames frames;
  for (size_t piece = 0; !stream.empty(); ++piece) {
    const size_t wanted =
        sizes.empty() ? stream.size() : static_cast<uint8_t>(sizes[piece % sizes.size()]) + 1U;
    reader.append(stream.substr(0, wanted));
    stream.remove_prefix(std::min(wanted, stream.size()));
    while (true) {
      auto payload = reader.next();
      if (!payload) {
        frames.broken = true;
        return frames;
      }
      if (!*payload) break;
      frames.payloads.push_back(std::move(**payload));
    }
  }
  frames.pending_bytes = reader.pending_bytes();
  return frames;
}

// The input: a count, as many sizes of pieces, the stream. However it is cut, the same frames come.
bool run_frames(std::string_view input) {
  if (input.empty()) return false;
  const size_t count = std::min<size_t>(static_cast<uint8_t>(input[0]) % 16, input.size() - 1);
  const std::string_view sizes = input.substr(1, count);
  const std::string_view stream = input.substr(1 + count);
  const Frames frames = read_frames(stream, sizes);
  AIRLLM_CHECK(frames == read_frames(stream, {}));
  size_t bytes = frames.pending_bytes;
  for (const std::string& payload : frames.payloads) bytes += kLengthBytes + payload.size();
  AIRLLM_CHECK(frames.broken || bytes == stream.size());
  return !frames.payloads.empty();
}

// ---- messages ----------------------------------------------------------------------------------

std::string payload_of(const ClientMessage& message) {
  return encode(message).value().substr(kLengthBytes);
}
std::string payload_of(const ServerMessage& message) {
  return encode(message).value().substr(kLengthBytes);
}

Result<ClientMessage> decode_as(std::string_view payload, const ClientMessage*) {
  return decode_client_message(payload);
}
Result<ServerMessage> decode_as(std::string_view payload, const ServerMessage*) {
  return decode_server_message(payload);
}

// Decodes; what is accepted must encode, decode and encode again to the same bytes.
template <typename Message>
std::optional<Message> decode_and_check(std::string_view payload) {
  constexpr const Message* kKind = nullptr;
  Result<Message> message = decode_as(payload, kKind);
  if (!message) {
    AIRLLM_CHECK(message.error().code == ErrorCode::kProtocol);
    return std::nullopt;
  }
  const Result<std::string> frame = encode(*message);
  if (!frame) return std::move(*message);  // one whose numbers take more room than they came in
  const Result<Message> again = decode_as(std::string_view(*frame).substr(kLengthBytes), kKind);
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(encode(*again).value() == *frame);
  return std::move(*message);
}

std::string fixstr(std::string_view text) {
  AIRLLM_CHECK(text.size() < 32);
  return static_cast<char>(0xa0U | text.size()) + std::string(text);
}

void add_seed(Target& target, std::string seed) {
  if (seed.size() <= kMostSeedBytes) target.seeds.push_back(std::move(seed));
}

template <typename Message>
Target any_message(const char* name, const std::vector<Message>& samples) {
  Target target{name,
                [](std::string_view input) { return decode_and_check<Message>(input).has_value(); },
                {}};
  for (const Message& sample : samples) add_seed(target, payload_of(sample));
  return target;
}

// A message whose fields lie beside its type. The input: the count of fields, then these.
template <typename Message, typename T>
Target flat_message(const std::string& name, const std::string& type,
                    const std::vector<Message>& samples) {
  const auto run = [type](std::string_view input) {
    if (input.empty()) return false;
    constexpr char kMap16 = '\xde';
    const std::string head{kMap16, '\0',
                           static_cast<char>(1 + static_cast<uint8_t>(input[0]) % 64)};
    const auto message = decode_and_check<Message>(head + fixstr("type") + fixstr(type) +
                                                   std::string(input.substr(1)));
    AIRLLM_CHECK(!message || std::holds_alternative<T>(*message));
    return message.has_value();
  };
  Target target{name, run, {}};
  const std::string type_field = fixstr("type") + fixstr(type);
  for (const Message& sample : samples) {
    if (!std::holds_alternative<T>(sample)) continue;
    const std::string payload = payload_of(sample);
    const Head head = read_head(payload).value();
    const size_t at = payload.find(type_field);
    AIRLLM_CHECK(at == head.head_bytes);
    add_seed(target, static_cast<char>(head.count - 1) + payload.substr(at + type_field.size()));
  }
  return target;
}

// The value of `key` in `payload`, which the input takes the place of.
std::string value_of(const std::string& payload, const char* key) {
  const MapView map = MapView::parse(payload, "message").value();
  return std::string(map.find(key).value_or(std::string_view("\x80", 1)));
}

// The input: a request's params.
template <typename T>
Target request(const std::string& method) {
  const std::string head = '\x84' + fixstr("type") + fixstr("request") + fixstr("id") + '\x07' +
                           fixstr("method") + fixstr(method) + fixstr("params");
  const auto run = [head](std::string_view input) {
    const auto message = decode_and_check<ClientMessage>(head + std::string(input));
    if (!message) return false;
    AIRLLM_CHECK(std::holds_alternative<T>(std::get<Request>(*message).params));
    return true;
  };
  Target target{method, run, {}};
  for (const ClientMessage& sample : sample_client_messages()) {
    const auto* found = std::get_if<Request>(&sample);
    if (found == nullptr || !std::holds_alternative<T>(found->params)) continue;
    add_seed(target, value_of(payload_of(sample), "params"));
  }
  return target;
}

// The input: an event's body.
template <typename T>
Target event(const std::string& kind) {
  const std::string head = '\x84' + fixstr("type") + fixstr("event") + fixstr("id") + '\x07' +
                           fixstr("event") + fixstr(kind) + fixstr("body");
  const auto run = [head](std::string_view input) {
    const auto message = decode_and_check<ServerMessage>(head + std::string(input));
    if (!message) return false;
    AIRLLM_CHECK(std::holds_alternative<T>(std::get<Event>(*message).body));
    return true;
  };
  Target target{kind, run, {}};
  for (const ServerMessage& sample : sample_server_messages()) {
    const auto* found = std::get_if<Event>(&sample);
    if (found == nullptr || !std::holds_alternative<T>(found->body)) continue;
    add_seed(target, value_of(payload_of(sample), "body"));
  }
  return target;
}

}  // namespace

Target frame_target() {
  Target target{"frames", run_frames, {}};
  std::string stream;
  for (const ClientMessage& sample : sample_client_messages()) {
    if (const auto frame = encode(sample); frame->size() < 1024) stream += *frame;
  }
  target.seeds = {std::string("\0", 1) + stream, std::string("\2\1\7") + stream,
                  std::string("\1\xff") + stream.substr(0, stream.size() - 3)};
  return target;
}

std::vector<Target> message_targets() {
  const std::vector<ClientMessage> client = sample_client_messages();
  const std::vector<ServerMessage> server = sample_server_messages();
  return {
      any_message("client_message", client),
      any_message("server_message", server),
      flat_message<ClientMessage, Hello>("client_hello", "hello", client),
      flat_message<ServerMessage, Hello>("server_hello", "hello", server),
      flat_message<ClientMessage, Cancel>("cancel", "cancel", client),
      flat_message<ClientMessage, Files>("files", "files", client),
      request<GenerateParams>("generate"),
      request<TokenizeParams>("tokenize"),
      request<DetokenizeParams>("detokenize"),
      request<TemplateParams>("template"),
      request<SplitParams>("split"),
      request<ListParams>("list"),
      request<ShowParams>("show"),
      request<PsParams>("ps"),
      request<RemoveParams>("rm"),
      request<ShareParams>("share"),
      request<StopParams>("stop"),
      request<VerifyParams>("verify"),
      request<JobParams>("cancel_job"),
      request<StatusParams>("status"),
      request<DefaultParams>("default"),
      request<DoctorParams>("doctor"),
      request<MeasureDiskParams>("measure_disk"),
      request<BenchStreamParams>("bench_stream"),
      request<BenchKernelsParams>("bench_kernels"),
      event<Accepted>("accepted"),
      event<Progress>("progress"),
      event<Token>("token"),
      event<PromptLogprobs>("prompt_logprobs"),
      event<Profile>("profile"),
      event<Tokens>("tokens"),
      event<Text>("text"),
      event<OpenFiles>("open_files"),
      event<Generated>("generated"),
      event<Done>("done"),
      event<Failed>("error"),
  };
}

}  // namespace airllm::fuzz
