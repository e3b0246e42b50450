// Targets of the protocol's messages, whichever conversation they belong to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "protocol/fetch_messages.h"
#include "protocol/framing.h"
#include "protocol/msgpack_view.h"
#include "tests/fuzz/targets.h"

namespace airllm::fuzz {

inline constexpr size_t kLengthBytes = 4;
// Longer seeds only slow the fuzzer down.
inline constexpr size_t kMostSeedBytes = 8192;

// How a kind of message is encoded and decoded.
inline Result<std::string> encoded(const protocol::ClientMessage& message) {
  return protocol::encode(message);
}
inline Result<std::string> encoded(const protocol::ServerMessage& message) {
  return protocol::encode(message);
}
inline Result<std::string> encoded(const protocol::ToFetch& message) {
  return protocol::encode_to_fetch(message);
}
inline Result<std::string> encoded(const protocol::FromFetch& message) {
  return protocol::encode_from_fetch(message);
}
template <typename Message>
Result<Message> decoded(std::string_view payload) {
  if constexpr (std::is_same_v<Message, protocol::ClientMessage>) {
    return protocol::decode_client_message(payload);
  } else if constexpr (std::is_same_v<Message, protocol::ServerMessage>) {
    return protocol::decode_server_message(payload);
  } else if constexpr (std::is_same_v<Message, protocol::ToFetch>) {
    return protocol::decode_to_fetch(payload);
  } else {
    return protocol::decode_from_fetch(payload);
  }
}

template <typename Message>
std::string payload_of(const Message& message) {
  return encoded(message).value().substr(kLengthBytes);
}

// Decodes; what is accepted must encode, decode and encode again to the same bytes.
template <typename Message>
std::optional<Message> decode_and_check(std::string_view payload) {
  Result<Message> message = decoded<Message>(payload);
  if (!message) {
    AIRLLM_CHECK(message.error().code == ErrorCode::kProtocol);
    return std::nullopt;
  }
  const Result<std::string> frame = encoded(*message);
  if (!frame) return std::move(*message);  // one whose numbers take more room than they came in
  const Result<Message> again = decoded<Message>(std::string_view(*frame).substr(kLengthBytes));
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(encoded(*again).value() == *frame);
  return std::move(*message);
}

inline std::string fixstr(std::string_view text) {
  AIRLLM_CHECK(text.size() < 32);
  return static_cast<char>(0xa0U | text.size()) + std::string(text);
}

inline void add_seed(Target& target, std::string seed) {
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
    const protocol::Head head = protocol::read_head(payload).value();
    const size_t at = payload.find(type_field);
    AIRLLM_CHECK(at == head.head_bytes);
    add_seed(target, static_cast<char>(head.count - 1) + payload.substr(at + type_field.size()));
  }
  return target;
}

// The value of `key` in `payload`, which the input takes the place of.
inline std::string value_of(const std::string& payload, const char* key) {
  const protocol::MapView map = protocol::MapView::parse(payload, "message").value();
  return std::string(map.find(key).value_or(std::string_view("\x80", 1)));
}

// The input: the params T of a `Request`.
template <typename Message, typename Request, typename T>
Target request_target(const std::string& name, const std::string& method,
                      const std::vector<Message>& samples) {
  const std::string head = '\x84' + fixstr("type") + fixstr("request") + fixstr("id") + '\x07' +
                           fixstr("method") + fixstr(method) + fixstr("params");
  const auto run = [head](std::string_view input) {
    const auto message = decode_and_check<Message>(head + std::string(input));
    if (!message) return false;
    AIRLLM_CHECK(std::holds_alternative<T>(std::get<Request>(*message).params));
    return true;
  };
  Target target{name, run, {}};
  for (const Message& sample : samples) {
    const auto* found = std::get_if<Request>(&sample);
    if (found == nullptr || !std::holds_alternative<T>(found->params)) continue;
    add_seed(target, value_of(payload_of(sample), "params"));
  }
  return target;
}

// The input: the body T of an `Event`.
template <typename Message, typename Event, typename T>
Target event_target(const std::string& name, const std::string& kind,
                    const std::vector<Message>& samples) {
  const std::string head = '\x84' + fixstr("type") + fixstr("event") + fixstr("id") + '\x07' +
                           fixstr("event") + fixstr(kind) + fixstr("body");
  const auto run = [head](std::string_view input) {
    const auto message = decode_and_check<Message>(head + std::string(input));
    if (!message) return false;
    AIRLLM_CHECK(std::holds_alternative<T>(std::get<Event>(*message).body));
    return true;
  };
  Target target{name, run, {}};
  for (const Message& sample : samples) {
    const auto* found = std::get_if<Event>(&sample);
    if (found == nullptr || !std::holds_alternative<T>(found->body)) continue;
    add_seed(target, value_of(payload_of(sample), "body"));
  }
  return target;
}

}  // namespace airllm::fuzz
