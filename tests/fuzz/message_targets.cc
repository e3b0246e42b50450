#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/check.h"
#include "protocol/framing.h"
#include "tests/fuzz/message_target.h"
#include "tests/protocol/samples.h"

namespace airllm::fuzz {
namespace {

using namespace protocol;  // NOLINT(google-build-using-namespace): of the code under test

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

template <typename T>
Target request(const std::string& method) {
  return request_target<ClientMessage, Request, T>(method, method, sample_client_messages());
}

template <typename T>
Target event(const std::string& kind) {
  return event_target<ServerMessage, Event, T>(kind, kind, sample_server_messages());
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
