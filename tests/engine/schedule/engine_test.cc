// The engine as the daemon uses it, on the bundled model.

#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "base/units.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

constexpr uint64_t kSmallRam = kMiB;
constexpr uint64_t kLargeRam = 256 * kMiB;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

std::vector<float> decode_floats(const std::string& base64) {
  static const std::string alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : base64) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<uint32_t>(alphabet.find(c));
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), out.size() * 4);
  return out;
}

// ‖log-softmax(got) - log-softmax(wanted)‖ / ‖log-softmax(wanted)‖
double relative_difference(const std::vector<TokenLogprob>& got, const std::vector<float>& logits) {
  double largest = -1e30;
  for (const float value : logits) largest = std::max(largest, static_cast<double>(value));
  double sum = 0;
  for (const float value : logits) sum += std::exp(static_cast<double>(value) - largest);
  const double shift = largest + std::log(sum);
  double difference = 0;
  double norm = 0;
  for (const TokenLogprob& entry : got) {
    const double wanted = static_cast<double>(logits[static_cast<size_t>(entry.id)]) - shift;
    difference += std::pow(entry.logprob - wanted, 2);
    norm += wanted * wanted;
  }
  return std::sqrt(difference / norm);
}

class DemoTest : public EngineTest {
 protected:
  void SetUp() override {
    open(kLargeRam);
    const auto job = split(demo_directory(), "demo");
    ASSERT_TRUE(job->done) << job->error->message;
  }

  static GenerateRequest ids_request(std::vector<int32_t> ids, uint64_t logprobs,
                                     uint64_t max_tokens) {
    GenerateRequest request;
    request.model = "demo";
    request.prompt_ids = std::move(ids);
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    request.logprobs = logprobs;
    request.prompt_logprobs = logprobs;
    request.ignore_eos = true;
    return request;
  }

  static bool same(const std::vector<std::vector<TokenLogprob>>& a,
                   const std::vector<std::vector<TokenLogprob>>& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i].size() != b[i].size()) return false;
      for (size_t j = 0; j < a[i].size(); ++j) {
        if (a[i][j].id != b[i][j].id || a[i][j].logprob != b[i][j].logprob) return false;
      }
    }
    return true;
  }

  // The answer with each budget, and beside other jobs of the model, is that of `alone`.
  void expect_the_same_among_others(const GenerateRequest& request, const RecordedJob& alone,
                                    std::initializer_list<uint64_t> budgets) {
    for (const uint64_t ram : budgets) {
      open(ram, 64 * kMiB, ram == kSmallRam ? 1 : 3);
      std::vector<std::shared_ptr<RecordedJob>> others;
      for (int i = 0; i < 3; ++i) {
        others.push_back(start(question("Tell me a long story.", request.model.name)));
      }
      const auto job = run(request);
      for (const auto& other : others) other->wait();
      ASSERT_TRUE(job->result) << job->error->message;
      EXPECT_EQ(job->ids, alone.ids);
      EXPECT_TRUE(same(job->prompt_logprobs, alone.prompt_logprobs)) << format_size(ram);
      EXPECT_TRUE(same(job->logprobs, alone.logprobs)) << format_size(ram);
    }
  }
};

TEST_F(DemoTest, KnowsTheCapitalOfFrance) {
  const auto job = run(question("What is the capital of France?"));
  ASSERT_TRUE(job->result);
  EXPECT_NE(job->text.find("Paris"), std::string::npos) << job->text;
  EXPECT_EQ(job->result->finish_reason, FinishReason::kStop);
  EXPECT_EQ(job->result->completion_tokens, job->ids.size());
}

TEST_F(DemoTest, LogitsAgreeWithTransformers) {
  const auto fixture = parse_json(
      read_file(std::string(AIRLLM_SOURCE_DIR) + "/tests/engine/fixtures/demo_logits.json"),
      "demo_logits.json");
  ASSERT_TRUE(fixture);
  const auto vocabulary = (*fixture)["vocab_size"].get<uint64_t>();
  for (const uint64_t ram : {kSmallRam, kLargeRam}) {
    open(ram);
    for (const auto& [name, prompt] : (*fixture)["prompts"].items()) {
      const auto job = run(ids_request(prompt["ids"].get<std::vector<int32_t>>(), vocabulary, 12));
      ASSERT_TRUE(job->result) << job->error->message;
      EXPECT_EQ(job->ids, prompt["greedy"].get<std::vector<int32_t>>()) << name;
      for (const auto& [position, base64] : prompt["logits_f32le_base64"].items()) {
        const auto index = static_cast<size_t>(std::stoul(position));
        EXPECT_LT(relative_difference(job->prompt_logprobs[index],
                                      decode_floats(base64.get<std::string>())),
                  1e-4)
            << name << " at " << position;
      }
    }
  }
}

TEST_F(DemoTest, TheSameToTheBitWithAnyBudgetAndAmongOthers) {
  std::vector<int32_t> ids(150);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 37 + 11) % 3000);
  const GenerateRequest request = ids_request(ids, 3072, 6);
  const auto alone = run(request);
  ASSERT_TRUE(alone->result);
  ASSERT_EQ(alone->prompt_logprobs.size(), ids.size());
  // 512 KiB leaves a few rows per sweep: the prompt goes through in many chunks.
  expect_the_same_among_others(request, *alone, {512 * kKiB, kSmallRam, kLargeRam});
}

// The Kullback-Leibler divergence of `got` from `wanted`, in nats; both hold all tokens.
double divergence(const std::vector<TokenLogprob>& wanted, const std::vector<TokenLogprob>& got) {
  std::map<int32_t, double> logprobs;
  for (const TokenLogprob& entry : got) logprobs[entry.id] = entry.logprob;
  double sum = 0;
  for (const TokenLogprob& entry : wanted) {
    sum += std::exp(entry.logprob) * (entry.logprob - logprobs.at(entry.id));
  }
  return sum;
}

TEST_F(DemoTest, CompressedWeightsAnswerAlike) {
  std::vector<int32_t> ids(80);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 37 + 11) % 3000);
  GenerateRequest request = ids_request(ids, 3072, 4);
  const auto plain = run(request);
  struct Format {
    const char* model;
    const char* text;
    const char* name;        // of the layers' format
    double most_divergence;  // four times what was measured
    double most_bits;        // of a weight
  };
  for (const Format& format :
       {Format{"q8", "q8", "q8", 1e-3, 8.6}, Format{"q4", "q4", "q4", 0.08, 4.8},
        Format{"some", "q4,outliers=0.25", "q4", 0.06, 8.8}}) {
    ASSERT_TRUE(split(demo_directory(), format.model, format.text)->done);
    request.model = format.model;
    open(kLargeRam);
    const auto alone = run(request);
    ASSERT_TRUE(alone->result) << alone->error->message;
    double sum = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      sum += divergence(plain->prompt_logprobs[i], alone->prompt_logprobs[i]);
    }
    std::printf("%s: KL divergence %.3g nats a token\n", format.text,
                sum / static_cast<double>(ids.size()));
    EXPECT_LT(sum / static_cast<double>(ids.size()), format.most_divergence);
    const Json shown = *engine->show(format.model);
    for (const Json& kept : shown["formats"]) {
      if (kept["name"] != format.name) continue;
      EXPECT_LT(kept["bytes"].get<double>() * 8,
                kept["parameters"].get<double>() * format.most_bits);
    }
    // However the work is cut.
    expect_the_same_among_others(request, *alone, {640 * kKiB, kSmallRam});
    const auto answer = run(question("What is the capital of France?", format.model));
    EXPECT_NE(answer->text.find("Paris"), std::string::npos) << answer->text;
  }
}

TEST_F(DemoTest, TheSecondAskReadsNothingWhenAllFits) {
  const auto first = run(question("What is the capital of Spain?"));
  EXPECT_GT(first->result->read_bytes, 0U);
  const auto second = run(question("What is the capital of Spain?"));
  EXPECT_EQ(second->result->read_bytes, 0U);
  EXPECT_GT(second->result->cache_bytes, 0U);
  EXPECT_EQ(second->text, first->text);
}

TEST_F(DemoTest, JobsShareSweeps) {
  open(kSmallRam);
  GenerateRequest request = question("What is the capital of Italy?");
  request.ignore_eos = true;
  request.max_tokens = 60;
  const auto alone = run(request);
  // The second joins while the first runs; both end within the sweeps of one, and a few more.
  const auto first = start(request);
  first->wait_for_tokens(1);
  const auto second = run(request);
  first->wait();
  EXPECT_EQ(first->ids, alone->ids);
  EXPECT_EQ(second->ids, alone->ids);
  EXPECT_LE(first->result->read_bytes, alone->result->read_bytes * 11 / 10);
  EXPECT_LE(second->result->read_bytes, alone->result->read_bytes * 11 / 10);
}

TEST_F(DemoTest, ACancelledJobEndsAndTheOthersGoOn) {
  open(kSmallRam);
  GenerateRequest request = question("Say something.");
  request.ignore_eos = true;
  request.max_tokens = 900;
  JobId id = 0;
  const auto job = start(request, &id);
  const auto other = start(question("What is the capital of France?"));
  job->wait_for_tokens(3);
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
  other->wait();
  EXPECT_EQ(job->result->finish_reason, FinishReason::kCancelled);
  EXPECT_LT(job->ids.size(), 900U);
  EXPECT_NE(other->text.find("Paris"), std::string::npos);
  EXPECT_FALSE(engine->cancel(id));
  EXPECT_TRUE(engine->jobs().empty());
}

TEST_F(DemoTest, WhenKvRunsOutTheYoungestComputesItsOwnAgain) {
  GenerateRequest request = question("Count for me please.");
  request.ignore_eos = true;
  request.max_tokens = 100;
  const auto alone = run(request);
  // 12 layers x 2 x 2 heads x 32 positions x 32 floats = 192 KiB a block; five blocks.
  open(kLargeRam, 5 * 192 * kKiB);
  std::vector<std::shared_ptr<RecordedJob>> jobs;
  for (int i = 0; i < 4; ++i) jobs.push_back(start(request));
  for (const auto& job : jobs) {
    job->wait();
    ASSERT_TRUE(job->result) << job->error->message;
    EXPECT_EQ(job->ids, alone->ids);
    EXPECT_EQ(job->result->finish_reason, FinishReason::kLength);
  }
}

TEST_F(DemoTest, WeightsThatFitTheBudgetAreReadOnce) {
  const uint64_t weights = (*engine->show("demo"))["bytes"].get<uint64_t>();
  for (const uint64_t spare : {256 * kKiB, 1 * kMiB, 3 * kMiB}) {
    open(weights + spare);
    EXPECT_GT(run(question("Hello"))->result->read_bytes, 0U);
    EXPECT_EQ(run(question("What is the capital of France?"))->result->read_bytes, 0U) << spare;
  }
}

TEST_F(DemoTest, TwoJobsRideTheSameSweepsOfTheLeastBudget) {
  open(512 * kKiB);
  GenerateRequest request = ids_request({1, 5, 9}, 0, 40);
  const uint64_t alone = run(request)->result->sweeps;
  const auto first = start(request);
  const auto second = start(request);
  first->wait();
  second->wait();
  // Each may begin a few sweeps before or after the other.
  EXPECT_LE(first->result->sweeps, alone + 5);
  EXPECT_LE(second->result->sweeps, alone + 5);
  EXPECT_LT(second->result->first_token_ms, first->result->total_ms / 2);
}

// Blocks of the bundled model's keys and values: 12 layers x 2 x 2 heads x 32 positions x 32
// floats.
constexpr uint64_t kBlockBytes = 192 * kKiB;

EngineOptions kv_options(uint64_t blocks, uint64_t blocks_per_user) {
  EngineOptions options;
  options.ram_bytes = kLargeRam;
  options.kv_bytes = blocks * kBlockBytes;
  options.kv_per_user_bytes = blocks_per_user * kBlockBytes;
  options.threads = 2;
  return options;
}

TEST_F(DemoTest, AUserWhoseShareIsFullEndsAloneAndLeavesTheRestToOthers) {
  GenerateRequest greedy = ids_request({1, 5, 9}, 0, 100000);
  greedy.user = 7;
  GenerateRequest modest = ids_request({1, 5, 9}, 0, 90);
  modest.user = 8;
  const auto expected = run(modest);
  open(kv_options(6, 3));
  const auto first = start(greedy);
  const auto second = start(modest);
  first->wait();
  second->wait();
  EXPECT_EQ(first->result->finish_reason, FinishReason::kContext);
  EXPECT_EQ(first->ids.size(), 96U - 3 + 1);
  EXPECT_EQ(second->result->finish_reason, FinishReason::kLength);
  EXPECT_EQ(second->ids, expected->ids);
}

TEST_F(DemoTest, AUsersOwnJobsMakeRoomForEachOtherWithinTheShare) {
  GenerateRequest request = question("Count for me please.");
  request.ignore_eos = true;
  request.max_tokens = 60;
  request.user = 7;
  const auto alone = run(request);
  open(kv_options(40, 4));
  std::vector<std::shared_ptr<RecordedJob>> jobs;
  for (int i = 0; i < 4; ++i) jobs.push_back(start(request));
  // Another user does not wait for those who fill their own share.
  request.user = 8;
  request.max_tokens = 5;
  const auto other = start(request);
  other->wait();
  EXPECT_EQ(other->ids.size(), 5U);
  EXPECT_FALSE(jobs.back()->is_over());
  for (const auto& job : jobs) {
    job->wait();
    ASSERT_TRUE(job->result) << job->error->message;
    EXPECT_EQ(job->ids, alone->ids);
  }
}

// Whoever holds less may take from whoever holds more, so that no two wait for each other.
TEST_F(DemoTest, JobsOfManyUsersEndThoughMemoryHoldsFewOfThem) {
  GenerateRequest request = question("Count for me please.");
  request.ignore_eos = true;
  request.max_tokens = 60;
  const auto alone = run(request);
  open(kv_options(5, 4));
  std::vector<std::shared_ptr<RecordedJob>> jobs;
  for (uid_t user : {1, 2, 3, 1, 2, 3}) {
    request.user = user;
    jobs.push_back(start(request));
  }
  for (const auto& job : jobs) {
    job->wait();
    ASSERT_TRUE(job->result) << job->error->message;
    EXPECT_EQ(job->ids, alone->ids);
  }
}

TEST_F(DemoTest, APromptBeyondTheShareNamesTheSetting) {
  open(kv_options(6, 2));
  const auto refused = run(ids_request(std::vector<int32_t>(100, 7), 0, 5));
  ASSERT_TRUE(refused->error);
  EXPECT_NE(refused->error->remedy.find("--kv-per-user"), std::string::npos);
}

TEST_F(DemoTest, PromptLogprobsBeyondTheLimitAreRefusedBeforeTheyStart) {
  EngineOptions options = kv_options(40, 40);
  options.max_logprobs = 30;
  open(options);
  GenerateRequest request = ids_request({1, 5, 9}, 0, 2);
  request.prompt_logprobs = 10;
  EXPECT_TRUE(run(request)->result);
  request.prompt_logprobs = 11;
  const auto refused = run(request);
  ASSERT_TRUE(refused->error);
  EXPECT_EQ(refused->error->code, ErrorCode::kUsage);
  EXPECT_NE(refused->error->message.find("3 prompt tokens, 11 each"), std::string::npos);
  EXPECT_FALSE(refused->accepted);
}

// A receiver that takes as much as it is told to.
class SlowReceiver : public RecordedJob {
 public:
  uint64_t room_bytes() const override { return room; }
  std::atomic<uint64_t> room{0};
};

TEST_F(DemoTest, AJobPausesForItsReceiverWhileOthersGoOn) {
  EngineOptions options = kv_options(40, 40);
  options.pause_timeout = std::chrono::hours(1);
  open(options);
  GenerateRequest request = ids_request({1, 5, 9, 11, 13}, 3, 4);
  request.prompt_logprobs = 3;
  const auto expected = run(request);
  auto slow = std::make_shared<SlowReceiver>();
  ASSERT_TRUE(engine->generate(request, slow));
  EXPECT_EQ(run(request)->ids, expected->ids);
  EXPECT_FALSE(slow->is_over());
  EXPECT_TRUE(slow->prompt_logprobs.empty());
  slow->room = 1;  // a row at a time
  slow->wait();
  EXPECT_EQ(slow->ids, expected->ids);
  EXPECT_EQ(slow->prompt_logprobs.size(), 5U);
  EXPECT_EQ(slow->prompt_logprobs[4].size(), 3U);
}

TEST_F(DemoTest, ACancelledJobEndsThoughItHasNoPartInTheSweepUnderWay) {
  EngineOptions options = kv_options(40, 40);
  options.pause_timeout = std::chrono::hours(1);
  open(options);
  const auto company = start(ids_request({1, 5, 9}, 0, 900));
  std::vector<std::shared_ptr<SlowReceiver>> paused;
  std::vector<JobId> ids;
  for (int i = 0; i < 8; ++i) {
    paused.push_back(std::make_shared<SlowReceiver>());
    const auto id = engine->generate(ids_request({1, 5, 9}, 3, 4), paused.back());
    ASSERT_TRUE(id);
    ids.push_back(*id);
  }
  company->wait_for_tokens(20);
  for (const JobId id : ids) ASSERT_TRUE(engine->cancel(id));
  for (const auto& job : paused) {
    job->wait();
    ASSERT_TRUE(job->result);
    EXPECT_EQ(job->result->finish_reason, FinishReason::kCancelled);
  }
  company->wait();
}

class ProfiledJob : public RecordedJob {
 public:
  void on_profile(std::span<const ProfileEvent> events, uint64_t lost) override {
    profile.insert(profile.end(), events.begin(), events.end());
    EXPECT_EQ(lost, 0U);
  }
  // Reads whose place is told, and those whose place is not.
  std::pair<size_t, size_t> reads() const {
    std::pair<size_t, size_t> count{0, 0};
    for (const ProfileEvent& event : profile) {
      if (event.kind != ProfileEvent::Kind::kRead) continue;
      ++(event.name.empty() ? count.second : count.first);
      if (event.name.empty()) {
        EXPECT_EQ(event.offset_bytes, 0U);
      }
    }
    return count;
  }
  std::vector<ProfileEvent> profile;
};

TEST_F(DemoTest, AProfileDoesNotTellWhichTokensOtherUsersHave) {
  open(kSmallRam);
  GenerateRequest request = ids_request({1, 300, 9, 700, 13}, 0, 4);
  request.user = 1;
  request.profile = true;
  auto alone = std::make_shared<ProfiledJob>();
  ASSERT_TRUE(engine->generate(request, alone));
  alone->wait();
  EXPECT_GT(alone->reads().first, 0U);
  EXPECT_EQ(alone->reads().second, 0U);

  GenerateRequest other = ids_request({1, 5, 6}, 0, 400);
  other.user = 2;
  JobId other_id = 0;
  const auto company = start(other, &other_id);
  company->wait_for_tokens(1);
  auto among = std::make_shared<ProfiledJob>();
  ASSERT_TRUE(engine->generate(request, among));
  among->wait();
  ASSERT_TRUE(engine->cancel(other_id));
  company->wait();
  EXPECT_EQ(among->ids, alone->ids);
  EXPECT_GT(among->reads().first, 0U);
  EXPECT_GT(among->reads().second, 0U);
}

TEST_F(DemoTest, AProfiledJobPausesForItsReceiver) {
  EngineOptions options = kv_options(40, 40);
  options.pause_timeout = std::chrono::hours(1);
  open(options);
  class SlowProfiledJob : public ProfiledJob {
   public:
    uint64_t room_bytes() const override { return room; }
    std::atomic<uint64_t> room{0};
  };
  GenerateRequest request = ids_request({1, 5, 9}, 0, 2);
  request.profile = true;
  auto slow = std::make_shared<SlowProfiledJob>();
  ASSERT_TRUE(engine->generate(request, slow));
  request.profile = false;
  run(request);
  EXPECT_FALSE(slow->is_over());
  EXPECT_TRUE(slow->profile.empty());
  slow->room = kMiB;
  slow->wait();
  EXPECT_FALSE(slow->profile.empty());
}

TEST_F(DemoTest, AJobThatPausesForTooLongFails) {
  EngineOptions options = kv_options(40, 40);
  options.pause_timeout = std::chrono::milliseconds(20);
  open(options);
  auto slow = std::make_shared<SlowReceiver>();
  ASSERT_TRUE(engine->generate(ids_request({1, 5, 9}, 3, 4), slow));
  slow->wait();
  ASSERT_TRUE(slow->error);
  EXPECT_EQ(slow->error->code, ErrorCode::kTemporary);
  EXPECT_NE(slow->error->message.find("send-timeout"), std::string::npos);
  EXPECT_TRUE(run(ids_request({1, 5, 9}, 0, 2))->result);
}

TEST_F(DemoTest, AFullContextAndAFullKvEndWithTheirReason) {
  GenerateRequest request = ids_request({1, 5, 9}, 0, 100000);
  const auto job = run(request);
  EXPECT_EQ(job->result->finish_reason, FinishReason::kContext);
  EXPECT_EQ(job->ids.size() + 3, 1024U);

  open(kLargeRam, 2 * 192 * kKiB);
  const auto small = run(request);
  EXPECT_EQ(small->result->finish_reason, FinishReason::kContext);
  EXPECT_EQ(small->ids.size(), 64U - 3 + 1);

  request.prompt_ids = std::vector<int32_t>(200, 7);
  const auto refused = run(request);
  ASSERT_TRUE(refused->error);
  EXPECT_NE(refused->error->remedy.find("--kv"), std::string::npos);
}

TEST_F(DemoTest, BadPromptsAreRefusedWithAReason) {
  const auto expect_error = [&](const GenerateRequest& request, ErrorCode code,
                                const std::string& part) {
    const auto job = run(request);
    ASSERT_TRUE(job->error) << part;
    EXPECT_EQ(job->error->code, code) << job->error->message;
    EXPECT_NE(job->error->message.find(part), std::string::npos) << job->error->message;
  };
  expect_error(ids_request({}, 0, 1), ErrorCode::kUsage, "no tokens");
  expect_error(ids_request({1, 3072}, 0, 1), ErrorCode::kUsage, "3072");
  expect_error(ids_request({-1}, 0, 1), ErrorCode::kUsage, "-1");
  expect_error(ids_request(std::vector<int32_t>(1025, 3), 0, 1), ErrorCode::kData, "1025");
  expect_error(question("hi", "dmeo"), ErrorCode::kNoInput, "dmeo");
  EXPECT_TRUE(engine->jobs().empty());
}

TEST_F(DemoTest, AModelMayHaveATokenizerOfSentencePiece) {
  const testing::TemporaryFolder source;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(demo_directory() + "/" + name, source.path() + "/" + name);
  }
  const std::string pieces =
      read_file(AIRLLM_SOURCE_DIR "/tests/engine/tokenizer/fixtures/sentencepiece/bpe_bytes.model");
  std::ofstream(source.path() + "/tokenizer.model", std::ios::binary) << pieces;
  ASSERT_TRUE(split(source.path(), "pieces")->done);
  GenerateRequest request;
  request.model = "pieces";
  request.raw_text = "hello";
  request.max_tokens = 1;
  const auto job = run(request);
  ASSERT_TRUE(job->result) << job->error->message;
  EXPECT_EQ(job->result->prompt_tokens, 2U);  // <s> and the word

  std::ofstream(source.path() + "/tokenizer.model", std::ios::binary) << pieces.substr(0, 4000);
  ASSERT_TRUE(split(source.path(), "broken")->done);
  request.model = "broken";
  const auto refused = run(request);
  ASSERT_TRUE(refused->error);
  EXPECT_EQ(refused->error->code, ErrorCode::kData);
  EXPECT_TRUE(refused->error->message.starts_with("broken/tokenizer.model: at byte "))
      << refused->error->message;
  // As the error says, ids are still taken.
  request.raw_text.reset();
  request.prompt_ids = {1, 5};
  EXPECT_TRUE(run(request)->result);
}

TEST_F(DemoTest, StopStringsEndTheText) {
  GenerateRequest request = question("What is the capital of France?");
  const auto whole = run(request);
  request.stop = {"Paris"};
  const auto job = run(request);
  EXPECT_EQ(job->result->finish_reason, FinishReason::kStopString);
  EXPECT_EQ(job->text, whole->text.substr(0, whole->text.find("Paris")));
}

TEST_F(DemoTest, ASeedRepeatsAnAnswer) {
  GenerateRequest request = question("Tell me something.");
  request.sampling.temperature = 1.5;
  request.ignore_eos = true;
  const auto first = run(request);  // an unset seed is random
  request.sampling.seed = first->accepted->seed;
  open(kSmallRam);
  const auto second = run(request);
  EXPECT_EQ(first->ids, second->ids);
  request.sampling.seed = first->accepted->seed + 1;
  EXPECT_NE(run(request)->ids, first->ids);
}

TEST_F(DemoTest, TwoModelsShareTheBudgetAndTakeTurns) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  for (const uint64_t ram : {6 * kMiB, kLargeRam}) {
    open(ram);
    std::vector<std::shared_ptr<RecordedJob>> jobs;
    for (int i = 0; i < 6; ++i) {
      jobs.push_back(start(question("What is the capital of France?", i % 2 ? "demo" : "other")));
    }
    for (const auto& job : jobs) {
      job->wait();
      ASSERT_TRUE(job->result) << job->error->message;
      EXPECT_NE(job->text.find("Paris"), std::string::npos);
    }
    EXPECT_LE(engine->status({})["ram_used_bytes"].get<uint64_t>(), ram);
    if (ram == kLargeRam) {
      EXPECT_EQ(run(question("Hello", "demo"))->result->read_bytes, 0U);
      EXPECT_EQ(run(question("Hello", "other"))->result->read_bytes, 0U);
    }
  }
}

TEST_F(DemoTest, ARemovedModelIsGoneAndItsMemoryToo) {
  GenerateRequest request = question("Hello");
  request.ignore_eos = true;
  request.max_tokens = 500;
  JobId id = 0;
  const auto job = start(request, &id);
  job->wait_for_tokens(1);
  const Status in_use = engine->remove("demo");
  ASSERT_FALSE(in_use);
  EXPECT_EQ(in_use.error().code, ErrorCode::kTemporary);
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
  ASSERT_TRUE(engine->remove("demo"));
  EXPECT_TRUE(engine->list({})->empty());
  ASSERT_TRUE(run(request)->error);
  for (int i = 0; i < 200 && engine->status({})["ram_used_bytes"].get<uint64_t>() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(engine->status({})["ram_used_bytes"].get<uint64_t>(), 0U);
}

TEST_F(DemoTest, AdmissionHasALimitAndAnEnd) {
  engine.reset();
  EngineOptions options;
  options.store_dir = folder.path();
  options.ram_bytes = kSmallRam;
  options.kv_bytes = 16 * kMiB;
  options.max_jobs = 2;
  engine = std::move(*Engine::open(options));
  GenerateRequest request = question("Hello");
  request.ignore_eos = true;
  request.max_tokens = 900;
  const auto first = start(request);
  const auto second = start(request);
  const auto refused = engine->generate(request, std::make_shared<RecordedJob>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTemporary);
  engine->close_admission();
  const auto closed = engine->generate(request, std::make_shared<RecordedJob>());
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kUnavailable);
  engine.reset();  // cancels what runs
  first->wait();
  second->wait();
  EXPECT_EQ(first->result->finish_reason, FinishReason::kCancelled);
}

TEST_F(DemoTest, ADamagedShardFailsTheJobAndIsNamed) {
  engine.reset();
  const std::string path = folder.path() + "/models/demo/shards/004-layer-003.safetensors";
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  ASSERT_TRUE(file) << path;
  file.seekg(100000);
  const int byte = file.get();
  file.seekp(100000);
  file.put(static_cast<char>(byte ^ 1));
  file.close();
  open(kSmallRam);
  const auto job = run(question("Hello"));
  ASSERT_TRUE(job->error);
  EXPECT_EQ(job->error->code, ErrorCode::kData);
  EXPECT_NE(job->error->message.find("004-layer-003"), std::string::npos) << job->error->message;
  const auto verified = std::make_shared<RecordedJob>();
  ASSERT_TRUE(engine->verify("demo", 0, verified, nullptr));
  verified->wait();
  ASSERT_TRUE(verified->error);
  EXPECT_NE(verified->error->message.find("004-layer-003"), std::string::npos);
}

}  // namespace
}  // namespace airllm::engine
