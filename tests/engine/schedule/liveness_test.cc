// The engine thread shows that it goes on, and goes on when a read does not come back.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/units.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

class LivenessTest : public EngineTest {
 protected:
  // Before what its thread counts in.
  ~LivenessTest() override { engine.reset(); }

  void SetUp() override {
    open(kMiB);
    ASSERT_TRUE(split(demo_directory(), "demo")->done);
    ASSERT_TRUE(split(demo_directory(), "other")->done);
    engine.reset();
  }

  void open_with(std::optional<DebugHang> hang, std::chrono::milliseconds read_timeout) {
    EngineOptions options;
    options.store_dir = folder.path();
    options.ram_bytes = kMiB;
    options.kv_bytes = 64 * kMiB;
    options.threads = 2;
    options.read_timeout = read_timeout;
    options.on_alive = [this] {
      ++alive_;
      const auto now = std::chrono::steady_clock::now();
      longest_ = std::max(longest_, now - last_);
      last_ = now;
    };
    options.alive_interval = std::chrono::milliseconds(5);
    options.debug_hang = hang;
    auto opened = Engine::open(options);
    ASSERT_TRUE(opened) << opened.error().message;
    engine = std::move(*opened);
  }

  // Waits for `count` more calls.
  void wait_for_alive(uint64_t count) const {
    const uint64_t wanted = alive_ + count;
    for (int i = 0; i < 20000 && alive_ < wanted; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GE(alive_, wanted);
  }

  std::atomic<uint64_t> alive_{0};
  // The engine thread's own while it runs.
  std::chrono::steady_clock::duration longest_{0};
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

TEST_F(LivenessTest, TheEngineThreadIsAliveWhenIdleAndPerTile) {
  open_with(std::nullopt, std::chrono::seconds(60));
  wait_for_alive(10);
  const uint64_t before = alive_;
  ASSERT_TRUE(run(question("Hello"))->result);
  EXPECT_GT(alive_, before + 50);
  wait_for_alive(10);
}

TEST_F(LivenessTest, AReadThatHangsFailsItsJobAndNoOther) {
  open_with(DebugHang{DebugHang::Where::kRead, 5}, std::chrono::milliseconds(300));
  const auto failed = start(question("Hello"));
  const auto other = start(question("What is the capital of France?", "other"));
  failed->wait();
  ASSERT_TRUE(failed->error);
  EXPECT_EQ(failed->error->code, ErrorCode::kIo);
  EXPECT_NE(failed->error->message.find("did not come back"), std::string::npos);
  other->wait();
  ASSERT_TRUE(other->result);
  const auto again = run(question("What is the capital of France?"));
  ASSERT_TRUE(again->result);
  EXPECT_EQ(again->text, other->text);
  wait_for_alive(10);
  engine.reset();  // does not wait for the read
  EXPECT_LT(longest_, std::chrono::seconds(5));
}

TEST_F(LivenessTest, TheReadTimeoutCanChange) {
  open_with(DebugHang{DebugHang::Where::kRead, 0}, std::chrono::seconds(3600));
  EngineOptions options;
  options.read_timeout = std::chrono::milliseconds(100);
  engine->apply(options);
  ASSERT_TRUE(run(question("Hello"))->error);
}

}  // namespace
}  // namespace airllm::engine
