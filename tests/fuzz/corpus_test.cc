// Every target on its seeds and on every input that is kept in tests/fuzz/corpus, in the ordinary
// build: what a fuzzer once found stays found.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <variant>

#include "tests/fuzz/message_target.h"
#include "tests/protocol/samples.h"

namespace airllm::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path& corpus() {
  static const fs::path path = fs::path(AIRLLM_SOURCE_DIR) / "tests/fuzz/corpus";
  return path;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Corpus : public ::testing::TestWithParam<Target> {};

TEST_P(Corpus, SeedsAreAccepted) {
  ASSERT_FALSE(GetParam().seeds.empty());
  for (const std::string& seed : GetParam().seeds) {
    EXPECT_TRUE(GetParam().run(seed)) << ::testing::PrintToString(seed);
  }
}

// A target aborts where an input breaks a promise.
TEST_P(Corpus, InputsBreakNothing) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(corpus() / GetParam().name)) {
    SCOPED_TRACE(entry.path().string());
    const bool accepted = GetParam().run(contents(entry.path()));
    // A seed that is refused has lost its worth: the format has changed.
    if (entry.path().filename().string().starts_with("seed-")) {
      EXPECT_TRUE(accepted);
    }
    ++count;
  }
  EXPECT_GT(count, 0U);
}

INSTANTIATE_TEST_SUITE_P(Targets, Corpus, ::testing::ValuesIn(targets()),
                         [](const auto& test) { return test.param.name; });

TEST(CorpusFolder, HoldsNothingElse) {
  for (const auto& entry : fs::directory_iterator(corpus())) {
    const std::string name = entry.path().filename().string();
    const auto is_name = [&](const Target& target) { return target.name == name; };
    EXPECT_TRUE(std::any_of(targets().begin(), targets().end(), is_name)) << name;
  }
}

// The text at `key` of every sample that has one: the kinds of requests, or of events.
template <typename Message>
std::set<std::string> kinds(const std::vector<Message>& samples, const char* key,
                            const std::string& front = "") {
  std::set<std::string> out;
  for (const Message& sample : samples) {
    const std::string payload = payload_of(sample);
    const auto map = protocol::MapView::parse(payload, "message");
    // Without a short string's head.
    if (const auto value = map->find(key)) out.insert(front + std::string(value->substr(1)));
  }
  return out;
}

TEST(Targets, EveryRequestAndEveryEventHasOne) {
  std::set<std::string> wanted = kinds(protocol::sample_client_messages(), "method");
  // The samples are one of each kind; the last is what a later version may send.
  EXPECT_EQ(wanted.size(), std::variant_size_v<protocol::Params> - 1);
  wanted.merge(kinds(protocol::sample_server_messages(), "event"));
  wanted.merge(kinds(protocol::sample_messages_to_fetch(), "method", "fetch_"));
  wanted.merge(kinds(protocol::sample_messages_from_fetch(), "event", "fetch_"));
  for (const std::string& kind : wanted) {
    const auto has_name = [&](const Target& target) { return target.name == kind; };
    EXPECT_TRUE(std::any_of(targets().begin(), targets().end(), has_name)) << kind;
  }
}

}  // namespace
}  // namespace airllm::fuzz
