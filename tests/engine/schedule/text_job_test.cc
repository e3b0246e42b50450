// tokenize, detokenize and template as jobs of the engine, on the bundled model.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "base/units.h"
#include "base/utf8.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

// Keeps what comes in pieces, and takes no more than it is told to.
class TextReceiver : public RecordedJob {
 public:
  void on_tokens(std::span<const int32_t> some, std::span<const std::string> texts) override {
    ++events;
    ids.insert(ids.end(), some.begin(), some.end());
    pieces.insert(pieces.end(), texts.begin(), texts.end());
  }
  void on_text(std::string_view some) override {
    ++events;
    EXPECT_EQ(find_invalid_utf8(some), kValidUtf8);
    text += some;
  }
  uint64_t room_bytes() const override { return room; }

  std::vector<std::string> pieces;
  std::atomic<uint64_t> room{kUnlimitedRoom};
  std::atomic<int> events = 0;
};

class TextJobTest : public EngineTest {
 protected:
  void SetUp() override { open_with({}); }

  void open_with(EngineOptions options) {
    options.ram_bytes = 16 * kMiB;
    options.kv_bytes = 16 * kMiB;
    options.threads = 1;
    open(std::move(options));
    if (split_) return;
    ASSERT_TRUE(split(demo_directory(), "demo")->done);
    split_ = true;
  }

  std::shared_ptr<TextReceiver> start_text(TextWork work, JobId* id_out = nullptr,
                                           uint64_t room = JobEvents::kUnlimitedRoom) {
    auto job = std::make_shared<TextReceiver>();
    job->room = room;
    const auto id = engine->run_text({"demo", 7, std::move(work)}, job);
    EXPECT_TRUE(id) << id.error().message;
    if (id_out != nullptr) *id_out = *id;
    return job;
  }
  std::shared_ptr<TextReceiver> run_text(TextWork work) {
    auto job = start_text(std::move(work));
    job->wait();
    return job;
  }
  std::vector<int32_t> ids_of(const std::string& text) {
    return run_text(TokenizeRequest{text, false, false, false, false})->ids;
  }

 private:
  bool split_ = false;
};

TEST_F(TextJobTest, TokenizeTellsIdsPiecesAndTheirNumber) {
  const auto job = run_text(TokenizeRequest{"What is <|end|>?", true, true, false, true});
  ASSERT_TRUE(job->done);
  EXPECT_EQ((*job->done)["model"], "demo");
  EXPECT_EQ((*job->done)["count"], job->ids.size());
  ASSERT_EQ(job->pieces.size(), job->ids.size());
  EXPECT_EQ(job->pieces.front(), "<|begin|>");
  const std::string all =
      std::accumulate(job->pieces.begin() + 1, job->pieces.end(), std::string());
  EXPECT_EQ(all, "What\u0120is\u0120<|end|>?");
}

TEST_F(TextJobTest, WhatIsNotAskedForIsNotSent) {
  const auto counted = run_text(TokenizeRequest{"Hello", false, false, true, true});
  ASSERT_TRUE(counted->done);
  EXPECT_EQ(counted->events, 0);
  EXPECT_EQ((*counted->done)["count"], ids_of("Hello").size());
  EXPECT_TRUE(run_text(TokenizeRequest{"Hello", false, false, false, false})->pieces.empty());
}

TEST_F(TextJobTest, AUsersTextHoldsNoControlToken) {
  const auto end = run_text(TokenizeRequest{"<|end|>", true, false, false, false})->ids;
  ASSERT_EQ(end.size(), 1U);
  const std::vector<int32_t> plain = ids_of("a<|end|>b");
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end[0]), 0);
}

TEST_F(TextJobTest, LongTextsComeInPiecesAndBackAsTheyWere) {
  std::string text;
  while (text.size() < 600'000) text += "One thing, 東京 🗼 and another.\n";
  const auto job = run_text(TokenizeRequest{text, false, false, false, false});
  EXPECT_GT(job->events, 1);
  const auto back = run_text(DetokenizeRequest{job->ids, false});
  EXPECT_GT(back->events, 1);
  EXPECT_EQ(back->text, text);
}

TEST_F(TextJobTest, AnIdBeyondTheVocabularyIsRefused) {
  const auto job = run_text(DetokenizeRequest{{1, 3072}, false});
  ASSERT_TRUE(job->error);
  EXPECT_EQ(job->error->code, ErrorCode::kUsage);
  EXPECT_NE(job->error->message.find("3072"), std::string::npos);
  EXPECT_EQ(job->events, 0);
  EXPECT_TRUE(run_text(DetokenizeRequest{{-1}, false})->error);
  EXPECT_TRUE(run_text(DetokenizeRequest{{}, false})->done);
}

TEST_F(TextJobTest, TemplateTakesAListOrAnObject) {
  const std::string list = R"([{"role":"user","content":"Hi"}])";
  const auto with = run_text(TemplateRequest{list, true});
  EXPECT_EQ(with->text, "<|begin|><|user|>Hi<|end|><|assistant|>");
  EXPECT_EQ(run_text(TemplateRequest{list, false})->text, "<|begin|><|user|>Hi<|end|>");
  EXPECT_EQ(run_text(TemplateRequest{R"({"messages":)" + list + "}", true})->text, with->text);
  EXPECT_EQ(
      run_text(TemplateRequest{R"({"add_generation_prompt":false,"messages":)" + list + "}", true})
          ->text,
      "<|begin|><|user|>Hi<|end|>");
  for (const char* const wrong : {"7", "[]", "[1]", "{}", "{", R"({"messages":null})",
                                  R"({"messages":[{}],"add_generation_prompt":1})",
                                  R"({"messages":[{}],"continue_final_message":1})",
                                  R"([{"role":"user","content":"a","content":"b"}])"}) {
    const auto refused = run_text(TemplateRequest{wrong, true});
    ASSERT_TRUE(refused->error) << wrong;
    EXPECT_FALSE(refused->error->message.empty());
    EXPECT_EQ(refused->events, 0);
  }
}

TEST_F(TextJobTest, OneThatWaitsForItsReceiverKeepsNobodyWaiting) {
  EngineOptions options;
  options.pause_timeout = std::chrono::hours(1);
  options.max_splits = 1;
  open_with(std::move(options));
  JobId id = 0;
  const auto slow = start_text(TokenizeRequest{"a b c", false, false, false, false}, &id, 0);
  EXPECT_FALSE(ids_of("others go on").empty());
  // It is no split, and a model that it uses stays.
  EXPECT_TRUE(split(demo_directory(), "demo")->done);
  const Status removed = engine->remove("demo");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, ErrorCode::kTemporary);
  ASSERT_EQ(engine->jobs().size(), 1U);
  EXPECT_EQ(engine->jobs()[0].kind, "tokenize");
  EXPECT_EQ(engine->jobs()[0].user, 7U);
  EXPECT_FALSE(slow->is_over());
  EXPECT_TRUE(engine->cancel(id));
  slow->wait();
  ASSERT_TRUE(slow->error);
  EXPECT_EQ(slow->error->code, ErrorCode::kCancelled);
}

TEST_F(TextJobTest, OneThatWaitsTooLongFails) {
  EngineOptions options;
  options.pause_timeout = std::chrono::milliseconds(20);
  open_with(std::move(options));
  const auto slow = start_text(DetokenizeRequest{{1, 2}, false}, nullptr, 0);
  slow->wait();
  ASSERT_TRUE(slow->error);
  EXPECT_EQ(slow->error->code, ErrorCode::kTemporary);
  EXPECT_NE(slow->error->message.find("send-timeout"), std::string::npos);
}

TEST_F(TextJobTest, LimitsOfPromptsCount) {
  EngineOptions options;
  options.max_prompt_bytes = 8;
  open_with(std::move(options));
  const auto job = std::make_shared<TextReceiver>();
  EXPECT_EQ(engine->run_text({"demo", 7, DetokenizeRequest{{1, 2, 3}, false}}, job).error().code,
            ErrorCode::kUsage);
  EXPECT_EQ(engine->run_text({"demo", 7, TokenizeRequest{"123456789"}}, job).error().code,
            ErrorCode::kUsage);
  EXPECT_EQ(engine->run_text({"demo", 7, TemplateRequest{"[1,2,3,4]"}}, job).error().code,
            ErrorCode::kUsage);
  EXPECT_TRUE(run_text(TokenizeRequest{"12345678"})->done);
}

}  // namespace
}  // namespace airllm::engine
