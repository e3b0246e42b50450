#include "engine/store/load_marks.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace airllm::store {
namespace {

class LoadMarksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "airllm-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A process that begins where the last one ended, in order or not.
  std::unique_ptr<LoadMarks> process() const { return LoadMarks::open(system_disk(), path()); }
  void crash_while_loading(const std::string& place) const { process()->begin(place); }
  std::string path() const { return folder_ + "/loading.json"; }

  std::string folder_;
};

TEST_F(LoadMarksTest, TwoCrashesWhileLoadingRefuseTheModelAlone) {
  crash_while_loading("models/a");
  EXPECT_TRUE(process()->check("models/a", "a"));
  crash_while_loading("models/a");
  for (int i = 0; i < 3; ++i) {
    const auto marks = process();
    const Status refused = marks->check("models/a", "a");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kData);
    EXPECT_NE(refused.error().message.find("'a'"), std::string::npos);
    EXPECT_NE(refused.error().remedy.find("airllm verify a"), std::string::npos);
    EXPECT_TRUE(marks->check("models/b", "b"));
  }
  process()->clear("models/a");
  EXPECT_TRUE(process()->check("models/a", "a"));
}

TEST_F(LoadMarksTest, ALoadThatSucceedsForgetsTheCrashBeforeIt) {
  crash_while_loading("models/a");
  {
    const auto marks = process();
    marks->begin("models/a");
    marks->clear("models/a");
  }
  crash_while_loading("models/a");
  EXPECT_TRUE(process()->check("models/a", "a"));
}

TEST_F(LoadMarksTest, LoadsThatEndWithoutACrashCountForNothing) {
  crash_while_loading("models/a");
  for (int i = 0; i < 3; ++i) {
    const auto marks = process();
    marks->begin("models/a");
    if (i == 1) {
      marks->close();
      marks->begin("models/a");  // too late to count
    } else {
      marks->end("models/a");
    }
  }
  EXPECT_TRUE(process()->check("models/a", "a"));
  crash_while_loading("models/a");
  EXPECT_FALSE(process()->check("models/a", "a"));
}

TEST_F(LoadMarksTest, AFileOfAnotherKindIsNoObstacle) {
  for (const std::string text :
       {"", "[]", "{\"models/a\": 2}", "{\"models/a\": {\"crashes\": -1}}"}) {
    std::ofstream(path()) << text;
    const auto marks = process();
    EXPECT_TRUE(marks->check("models/a", "a")) << text;
    marks->begin("models/a");
    marks->end("models/a");
  }
}

}  // namespace
}  // namespace airllm::store
