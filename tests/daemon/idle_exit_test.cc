#include "daemon/idle_exit.h"

#include <gtest/gtest.h>

#include "base/duration.h"

namespace airllm::daemon {
namespace {

using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)
using Need = IdleExit::Need;

class IdleExitTest : public ::testing::Test {
 protected:
  IdleExit make(std::chrono::milliseconds keep_alive) {
    return {io_, keep_alive, [this] { return need_; }, [this] { ++ends_; }};
  }
  void run(std::chrono::milliseconds time) {
    io_.restart();
    io_.run_for(time);
  }

  asio::io_context io_;
  Need need_ = Need::kPerhaps;
  int ends_ = 0;
};

TEST_F(IdleExitTest, EndsWhenNothingWasAskedForSoLong) {
  IdleExit exit = make(200ms);
  exit.used();
  run(50ms);
  EXPECT_EQ(ends_, 0);
  run(60s);  // returns as soon as nothing is left to do
  EXPECT_EQ(ends_, 1);
}

TEST_F(IdleExitTest, WaitsForItsFirstClientForAMinute) {
  const IdleExit exit = make(0ms);
  run(300ms);
  EXPECT_EQ(ends_, 0);
}

TEST_F(IdleExitTest, StaysWhileItIsNeeded) {
  need_ = Need::kNow;
  IdleExit exit = make(10ms);
  exit.used();
  run(300ms);
  EXPECT_EQ(ends_, 0);
  need_ = Need::kPerhaps;  // a model has gone, of which nobody tells
  run(60s);
  EXPECT_EQ(ends_, 1);
}

TEST_F(IdleExitTest, EndsAtOnceWhenItsMemoryWasGivenBack) {
  IdleExit exit = make(kForever);
  exit.used();
  run(100ms);
  EXPECT_EQ(ends_, 0);
  need_ = Need::kNone;
  exit.used();
  run(60s);
  EXPECT_EQ(ends_, 1);
}

TEST_F(IdleExitTest, TheTimeCanChange) {
  IdleExit exit = make(kForever);
  exit.used();
  run(50ms);
  exit.set_keep_alive(20ms);
  run(60s);
  EXPECT_EQ(ends_, 1);
}

}  // namespace
}  // namespace airllm::daemon
