// libFuzzer's target for all that reads a peer's bytes: the frame reader and both decoders. What
// was decoded must encode, decode and encode again to the same bytes.
#include <cstdint>
#include <cstdlib>

#include "base/check.h"
#include "protocol/framing.h"

namespace {

using namespace airllm::protocol;  // NOLINT

template <typename Message>
void check_round_trip(const airllm::Result<Message>& message,
                      airllm::Result<Message> (*decode)(std::string_view)) {
  if (!message) {
    AIRLLM_CHECK(message.error().code == airllm::ErrorCode::kProtocol);
    return;
  }
  const auto frame = encode(*message);
  if (!frame) return;  // numbers of other widths may make it longer than a frame
  const auto again = decode(std::string_view(*frame).substr(4));
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(*encode(*again) == *frame);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check_round_trip(decode_client_message(bytes), decode_client_message);
  check_round_trip(decode_server_message(bytes), decode_server_message);
  FrameReader reader(4096);
  for (size_t at = 0; at < size; at += 7) {
    reader.append(bytes.substr(at, 7));
    while (true) {
      const auto payload = reader.next();
      if (!payload) return 0;
      if (!*payload) break;
    }
  }
  return 0;
}
