#include "protocol/framing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <msgpack.hpp>
#include <sstream>

#include "tests/protocol/samples.h"

namespace airllm::protocol {
namespace {

std::string payload_of(const std::string& frame) { return frame.substr(4); }

std::string framed(const std::string& payload) {
  std::string frame;
  for (int i = 0; i < 4; ++i) frame += static_cast<char>(payload.size() >> (8 * i) & 0xff);
  return frame + payload;
}

// A payload written by msgpack-c, as another implementation would.
template <typename Write>
std::string packed(Write write) {
  std::stringstream out;
  msgpack::packer<std::stringstream> packer(out);
  write(packer);
  return out.str();
}

Error client_error(std::string_view payload) {
  auto message = decode_client_message(payload);
  if (message) return {ErrorCode::kInternal, "it was taken", ""};
  return message.error();
}

// ---- round trips -------------------------------------------------------------------------------

// Equal bytes again mean that no field was lost or changed on the way.
TEST(Messages, EveryClientMessageComesBack) {
  for (const ClientMessage& message : sample_client_messages()) {
    const std::string frame = encode(message).value();
    const auto decoded = decode_client_message(payload_of(frame));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encode(*decoded).value(), frame);
  }
}

TEST(Messages, EveryServerMessageComesBack) {
  for (const ServerMessage& message : sample_server_messages()) {
    const std::string frame = encode(message).value();
    const auto decoded = decode_server_message(payload_of(frame));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(encode(*decoded).value(), frame);
  }
}

TEST(Messages, FieldsKeepTheirValues) {
  const auto decoded = decode_client_message(payload_of(*encode(sample_client_messages()[1])));
  const auto& request = std::get<Request>(decoded.value());
  const auto& params = std::get<GenerateParams>(request.params);
  EXPECT_EQ(request.id, 1u);
  EXPECT_EQ(params.model, "demo");
  ASSERT_EQ(params.messages.size(), 2u);
  EXPECT_EQ(params.messages[1].content, "Größe? 東京 🗼");
  EXPECT_EQ(params.sampling.temperature, 0.5);
  EXPECT_EQ(params.sampling.seed, 18446744073709551615U);
  EXPECT_EQ(params.stop, (std::vector<std::string>{"\n\n", "END"}));
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_EQ(params.prompt_logprobs, 32000u);
  EXPECT_FALSE(params.raw_text.has_value());
  EXPECT_FALSE(params.prompt_ids.has_value());
}

TEST(Messages, PromptIdsKeepTheirSignAndAnEmptyListIsAList) {
  const auto ids = decode_client_message(payload_of(*encode(sample_client_messages()[3])));
  EXPECT_EQ(std::get<GenerateParams>(std::get<Request>(ids.value()).params).prompt_ids,
            (std::vector<int32_t>{1, 127, 128, 65536, 2147483647, -1, -2147483648}));
  GenerateParams empty;
  empty.prompt_ids.emplace();
  const auto decoded = decode_client_message(payload_of(*encode(Request{1, empty})));
  const auto& params = std::get<GenerateParams>(std::get<Request>(decoded.value()).params);
  ASSERT_TRUE(params.prompt_ids.has_value());
  EXPECT_TRUE(params.prompt_ids->empty());
}

TEST(Messages, DefaultToldAndDefaultUnsetDiffer) {
  const auto read = decode_client_message(payload_of(*encode(Request{1, DefaultParams{}})));
  const auto unset = decode_client_message(payload_of(*encode(Request{1, DefaultParams{""}})));
  EXPECT_FALSE(std::get<DefaultParams>(std::get<Request>(read.value()).params).model.has_value());
  EXPECT_EQ(std::get<DefaultParams>(std::get<Request>(unset.value()).params).model, "");
}

TEST(Messages, RealNumbersBeyondIntegersComeBack) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double number : {0x1p63, 0x1p64, -0x1p63, -0x1p64, 1e300, kInfinity, -kInfinity}) {
    GenerateParams params;
    params.sampling.temperature = number;
    const auto decoded = decode_client_message(payload_of(*encode(Request{1, params})));
    const auto& back = std::get<GenerateParams>(std::get<Request>(decoded.value()).params);
    EXPECT_EQ(back.sampling.temperature, number);
  }
}

TEST(Messages, AMillionPromptIdsFit) {
  GenerateParams params;
  params.prompt_ids = std::vector<int32_t>(1000000, 128255);
  const auto frame = encode(Request{1, params});
  ASSERT_TRUE(frame.has_value());
  const auto decoded = decode_client_message(payload_of(*frame));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<GenerateParams>(std::get<Request>(*decoded).params).prompt_ids,
            params.prompt_ids);
}

TEST(Messages, LogprobsOfAWholeVocabularyFit) {
  Token token;
  for (int32_t id = 0; id < 262144; ++id) token.logprobs.push_back({id, -1e-3 * id});
  token.logprobs.push_back({5, -std::numeric_limits<double>::infinity()});
  const auto frame = encode(Event{1, token});
  ASSERT_TRUE(frame.has_value());
  EXPECT_LT(frame->size(), 262145u * 15 + 100);
  const auto decoded = decode_server_message(payload_of(*frame));
  ASSERT_TRUE(decoded.has_value());
  const auto& back = std::get<Token>(std::get<Event>(*decoded).body);
  ASSERT_EQ(back.logprobs.size(), token.logprobs.size());
  EXPECT_EQ(back.logprobs[1000].id, 1000);
  EXPECT_EQ(back.logprobs[1000].logprob, -1e-3 * 1000);
  EXPECT_TRUE(std::isinf(back.logprobs.back().logprob));
}

TEST(Messages, MsgpackReadsWhatWeWrite) {
  const std::string payload = payload_of(*encode(sample_server_messages()[3]));
  const auto handle = msgpack::unpack(payload.data(), payload.size());
  std::stringstream text;
  text << handle.get();
  EXPECT_NE(text.str().find("\"event\":\"token\""), std::string::npos);
  EXPECT_NE(text.str().find("\"logprobs\":[[7,-0.25],[-1,-17.5]]"), std::string::npos);
}

// ---- growth ------------------------------------------------------------------------------------

TEST(Messages, UnknownKeysAreIgnoredAndMissingOnesDefault) {
  const std::string payload = packed([](auto& out) {
    out.pack_map(5);
    out.pack("future").pack(std::vector<std::map<std::string, int>>{{{"x", 1}}});
    out.pack("params").pack(std::map<std::string, int>{{"logprobs", 3}, {"unheard", 9}});
    out.pack("method").pack("generate");
    out.pack("type").pack("request");
    out.pack("id").pack(77);
  });
  const auto decoded = decode_client_message(payload);
  ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
  const auto& request = std::get<Request>(*decoded);
  EXPECT_EQ(request.id, 77u);
  const auto& params = std::get<GenerateParams>(request.params);
  EXPECT_EQ(params.logprobs, 3u);
  EXPECT_EQ(params.model, "");
  EXPECT_FALSE(params.max_tokens.has_value());
}

TEST(Messages, NilIsAsAbsent) {
  const std::string payload = packed([](auto& out) {
    out.pack_map(4);
    out.pack("type").pack("request");
    out.pack("id").pack(1);
    out.pack("method").pack("show");
    out.pack("params").pack_nil();
  });
  EXPECT_TRUE(decode_client_message(payload).has_value());
}

TEST(Messages, AnUnknownMethodKeepsItsId) {
  const std::string payload = packed([](auto& out) {
    out.pack_map(3);
    out.pack("type").pack("request");
    out.pack("id").pack(5);
    out.pack("method").pack("dance");
  });
  const auto decoded = decode_client_message(payload);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<Request>(*decoded).id, 5u);
  EXPECT_EQ(std::get<UnknownMethod>(std::get<Request>(*decoded).params).method, "dance");
}

TEST(Messages, AHelloWithoutAVersionHasNone) {
  const auto decoded = decode_client_message(packed([](auto& out) {
    out.pack(std::map<std::string, std::string>{{"type", "hello"}});
  }));
  EXPECT_EQ(std::get<Hello>(decoded.value()).version, 0u);
}

// ---- strangers' bytes --------------------------------------------------------------------------

TEST(Messages, EveryTruncationIsRefused) {
  for (const ClientMessage& message : sample_client_messages()) {
    const std::string payload = payload_of(*encode(message));
    const size_t step = payload.size() > 2000 ? 97 : 1;
    for (size_t size = 0; size < payload.size(); size += step) {
      EXPECT_EQ(client_error(payload.substr(0, size)).code, ErrorCode::kProtocol) << size;
    }
  }
  for (const ServerMessage& message : sample_server_messages()) {
    const std::string payload = payload_of(*encode(message));
    for (size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(decode_server_message(payload.substr(0, size)).has_value()) << size;
    }
  }
}

TEST(Messages, EveryChangedByteIsDecodedOrRefused) {
  for (const ClientMessage& message : sample_client_messages()) {
    std::string payload = payload_of(*encode(message));
    if (payload.size() > 2000) continue;
    for (size_t at = 0; at < payload.size(); ++at) {
      const char before = payload[at];
      for (int value = 0; value < 256; ++value) {
        payload[at] = static_cast<char>(value);
        if (auto decoded = decode_client_message(payload); !decoded) {
          ASSERT_EQ(decoded.error().code, ErrorCode::kProtocol);
        }
      }
      payload[at] = before;
    }
  }
}

TEST(Messages, BytesAfterTheEndAreRefused) {
  const std::string payload = payload_of(*encode(ClientMessage(Cancel{1})));
  EXPECT_EQ(client_error(payload + "\xc0").code, ErrorCode::kProtocol);
}

TEST(Messages, HugeCountsAreRefusedBeforeMemoryIsTaken) {
  for (const char* bytes : {"\xdf\xff\xff\xff\xff", "\xdd\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff",
                            "\xc6\xff\xff\xff\xff", "\xc9\xff\xff\xff\xff", "\xde\xff\xff",
                            "\xdc\xff\xff", "\x8f", "\x9f", "\xbf"}) {
    EXPECT_EQ(client_error(bytes).code, ErrorCode::kProtocol);
    // The same as the value of a key.
    EXPECT_EQ(client_error(std::string("\x81\xa1x") + bytes).code, ErrorCode::kProtocol);
  }
}

// Each array announces as many elements as bytes follow: together they cannot all be there.
TEST(Messages, CountsThatAreImpossibleTogetherAreRefused) {
  std::string payload = "\x81\xa1x";
  for (int i = 0; i < 14; ++i) payload += std::string("\xdc\x03\x00", 3);
  payload += std::string(800, '\x01');
  const Error error = client_error(payload);
  EXPECT_EQ(error.code, ErrorCode::kProtocol);
  EXPECT_NE(error.message.find("more elements than"), std::string::npos);
}

std::string nested(int arrays) {
  return "\x82\xa4type\xa6"
         "cancel\xa1x" +
         std::string(static_cast<size_t>(arrays), '\x91') + "\xc0";
}

TEST(Messages, NestingIsLimited) {
  EXPECT_TRUE(decode_client_message(nested(15)).has_value());
  EXPECT_NE(client_error(nested(16)).message.find("nested deeper"), std::string::npos);
  EXPECT_EQ(client_error(nested(1000000)).code, ErrorCode::kProtocol);
}

TEST(Messages, WhatIsNoMapOrNoMsgpackIsRefused) {
  for (const std::string& bytes : {std::string(), std::string("\xc1"), std::string("\x90"),
                                   std::string("\xc0"), std::string("{}"), std::string("\x01"),
                                   std::string("\xa5hello"), std::string("GET / HTTP/1.1")}) {
    EXPECT_EQ(client_error(bytes).code, ErrorCode::kProtocol) << bytes;
  }
}

TEST(Messages, KeysThatComeTwiceAreRefused) {
  const std::string payload =
      "\x83\xa4type\xa6"
      "cancel\xa2id\x01\xa2id\x02";
  EXPECT_NE(client_error(payload).message.find("message.id comes twice"), std::string::npos);
}

TEST(Messages, KeysAreStrings) {
  EXPECT_NE(client_error("\x81\x01\x02").message.find("not a string"), std::string::npos);
}

TEST(Messages, TooManyKeysAreRefused) {
  std::map<std::string, int> map;
  for (int i = 0; i < 65; ++i) map["k" + std::to_string(i)] = i;
  EXPECT_NE(client_error(packed([&](auto& out) { out.pack(map); })).message.find("too many keys"),
            std::string::npos);
}

template <typename T>
Error generate_with(const char* key, const T& value) {
  return client_error(packed([&](auto& out) {
    out.pack_map(4);
    out.pack("type").pack("request");
    out.pack("id").pack(1);
    out.pack("method").pack("generate");
    out.pack("params");
    out.pack_map(1);
    out.pack(key).pack(value);
  }));
}

TEST(Messages, WrongTypesAreRefusedAndNamed) {
  using Strings = std::vector<std::string>;
  EXPECT_NE(generate_with("model", 7).message.find("message.params.model: expected a string"),
            std::string::npos);
  for (const Error& error :
       {generate_with("model", Strings{}), generate_with("messages", "hello"),
        generate_with("messages", Strings{"hello"}), generate_with("raw_text", true),
        generate_with("prompt_ids", Strings{"1"}), generate_with("prompt_ids", 1),
        generate_with("prompt_ids", std::vector<int64_t>{int64_t{1} << 31}),
        generate_with("prompt_ids", std::vector<double>{1.5}), generate_with("sampling", 1),
        generate_with("max_tokens", -1), generate_with("max_tokens", 1.5),
        generate_with("stop", "x"), generate_with("ignore_eos", 1), generate_with("logprobs", "5"),
        generate_with("logprobs", true), generate_with("raw_text", std::string("\xff\xfe"))}) {
    EXPECT_EQ(error.code, ErrorCode::kProtocol) << error.message;
    EXPECT_NE(error.message.find("message.params."), std::string::npos) << error.message;
  }
}

TEST(Messages, ListsAreBounded) {
  EXPECT_EQ(generate_with("stop", std::vector<std::string>(1025, "x")).code, ErrorCode::kProtocol);
  const std::vector<std::string> names(65, "x");
  const auto frame = encode(ClientMessage(Files{1, names, names}));
  EXPECT_EQ(client_error(payload_of(*frame)).code, ErrorCode::kProtocol);
}

TEST(Messages, FilesHaveAStatusEach) {
  const auto frame = encode(ClientMessage(Files{1, {"a", "b"}, {"ok"}}));
  EXPECT_EQ(client_error(payload_of(*frame)).code, ErrorCode::kProtocol);
}

TEST(Messages, AClientsTextMustBeUtf8AndADaemonsIsMadeSo) {
  GenerateParams params;
  params.raw_text = "caf\xe9";
  const auto refused = encode(ClientMessage(Request{1, params}));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kData);
  const auto frame = encode(Event{1, Failed{{ErrorCode::kIo, "/tmp/\xff: lost", ""}}});
  ASSERT_TRUE(frame.has_value());
  const auto decoded = decode_server_message(payload_of(*frame));
  EXPECT_EQ(std::get<Failed>(std::get<Event>(decoded.value()).body).error.message,
            "/tmp/\\xff: lost");
}

TEST(Messages, AMessageLongerThanAFrameIsRefused) {
  GenerateParams params;
  params.raw_text = std::string(kMaxFrameBytes, 'x');
  const auto frame = encode(ClientMessage(Request{1, params}));
  ASSERT_FALSE(frame.has_value());
  EXPECT_EQ(frame.error().code, ErrorCode::kUsage);
  EXPECT_NE(frame.error().message.find(std::to_string(kMaxFrameBytes)), std::string::npos);
}

// ---- FrameReader -------------------------------------------------------------------------------

TEST(FrameReader, CutsAStreamAtAnyPoint) {
  std::string stream;
  for (int i = 1; i <= 5; ++i) stream += framed(std::string(static_cast<size_t>(i * 3), 'a'));
  for (size_t chunk = 1; chunk <= stream.size(); ++chunk) {
    FrameReader reader;
    std::vector<size_t> sizes;
    for (size_t at = 0; at < stream.size(); at += chunk) {
      reader.append(std::string_view(stream).substr(at, chunk));
      while (auto payload = reader.next().value()) sizes.push_back(payload->size());
    }
    EXPECT_EQ(sizes, (std::vector<size_t>{3, 6, 9, 12, 15}));
    EXPECT_EQ(reader.pending_bytes(), 0u);
  }
}

TEST(FrameReader, LengthZeroIsRefused) {
  FrameReader reader;
  reader.append(std::string(4, '\0'));
  EXPECT_EQ(reader.next().error().code, ErrorCode::kProtocol);
  EXPECT_EQ(reader.next().error().code, ErrorCode::kProtocol);
}

TEST(FrameReader, ALengthAboveTheLimitIsRefusedAtOnce) {
  FrameReader reader(100);
  reader.append(framed(std::string(100, 'a')));
  EXPECT_TRUE(reader.next().value().has_value());
  reader.append(framed(std::string(101, 'a')).substr(0, 4));
  EXPECT_EQ(reader.next().error().code, ErrorCode::kProtocol);
}

TEST(FrameReader, HalfAFrameWaits) {
  FrameReader reader;
  reader.append(std::string("\x05\0\0", 3));
  EXPECT_FALSE(reader.next().value().has_value());
  reader.append(std::string("\0abcd", 5));
  EXPECT_FALSE(reader.next().value().has_value());
  EXPECT_EQ(reader.pending_bytes(), 8u);
  reader.append("e");
  EXPECT_EQ(reader.next().value(), "abcde");
}

}  // namespace
}  // namespace airllm::protocol
