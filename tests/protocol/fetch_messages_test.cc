#include "protocol/fetch_messages.h"

#include <gtest/gtest.h>

#include "tests/protocol/samples.h"

namespace airllm::protocol {
namespace {

std::string payload_of(const std::string& frame) { return frame.substr(4); }

// Equal bytes again mean that no field was lost or changed on the way.
TEST(FetchMessages, EveryOneToTheDownloaderComesBack) {
  for (const ToFetch& message : sample_messages_to_fetch()) {
    const std::string frame = encode_to_fetch(message).value();
    const auto decoded = decode_to_fetch(payload_of(frame));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encode_to_fetch(*decoded).value(), frame);
  }
}

TEST(FetchMessages, EveryOneFromTheDownloaderComesBack) {
  for (const FromFetch& message : sample_messages_from_fetch()) {
    const std::string frame = encode_from_fetch(message).value();
    const auto decoded = decode_from_fetch(payload_of(frame));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encode_from_fetch(*decoded).value(), frame);
  }
}

TEST(FetchMessages, FieldsKeepTheirValues) {
  const std::string frame = encode_to_fetch(sample_messages_to_fetch()[6]).value();
  const auto decoded = decode_to_fetch(payload_of(frame));
  const auto& params = std::get<FileParams>(std::get<FetchRequest>(decoded.value()).params);
  EXPECT_EQ(params.from.token, "hf_token");
  EXPECT_TRUE(params.from.own_token);
  EXPECT_EQ(params.name, "größe/model.safetensors");
  EXPECT_EQ(params.window, 1U << 26);
  EXPECT_EQ(params.limit, 1U << 30);
}

TEST(FetchMessages, DataAreAnyBytes) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  const FetchEvent event{1, FetchData{7, {bytes}}};
  const auto decoded = decode_from_fetch(payload_of(encode_from_fetch(event).value()));
  EXPECT_EQ(std::get<FetchData>(std::get<FetchEvent>(decoded.value()).body).data.bytes, bytes);
}

TEST(FetchMessages, TheLargestOnesFitAFrame) {
  const FetchEvent data{1, FetchData{0, {std::string(kMaxFetchDataBytes, 'x')}}};
  EXPECT_TRUE(encode_from_fetch(data).has_value());
  const std::string longest(1024, 'x');
  ListedFiles files{std::vector<ListedFile>(
      kMaxListedFiles, {longest, UINT64_MAX, std::string(40, 'a'), std::string(64, 'b')})};
  const auto frame = encode_from_fetch(FetchEvent{1, files});
  ASSERT_TRUE(frame.has_value());
  EXPECT_TRUE(decode_from_fetch(payload_of(*frame)).has_value());
  files.files.push_back(files.files.front());
  EXPECT_FALSE(decode_from_fetch(payload_of(*encode_from_fetch(FetchEvent{1, files}))).has_value());
}

TEST(FetchMessages, EveryTruncationIsRefused) {
  for (const ToFetch& message : sample_messages_to_fetch()) {
    const std::string payload = payload_of(*encode_to_fetch(message));
    for (size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(decode_to_fetch(payload.substr(0, size)).has_value()) << size;
    }
  }
  for (const FromFetch& message : sample_messages_from_fetch()) {
    const std::string payload = payload_of(*encode_from_fetch(message));
    for (size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(decode_from_fetch(payload.substr(0, size)).has_value()) << size;
    }
  }
}

TEST(FetchMessages, UnknownWordsAreRefusedButMethods) {
  const FetchRequest request{5, UnknownMethod{"dance"}};
  const auto decoded = decode_to_fetch(payload_of(encode_to_fetch(request).value()));
  EXPECT_EQ(std::get<UnknownMethod>(std::get<FetchRequest>(decoded.value()).params).method,
            "dance");
  const std::string type = "\x81\xa4type\xa5";
  EXPECT_FALSE(decode_to_fetch(type + "dance").has_value());
  EXPECT_FALSE(decode_from_fetch(type + "dance").has_value());
}

}  // namespace
}  // namespace airllm::protocol
