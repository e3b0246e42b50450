#include "base/model_name.h"

#include <gtest/gtest.h>

namespace airllm {
namespace {

TEST(ModelName, IsThePathsLastPart) {
  EXPECT_EQ(model_name_from_path("/models/tiny-llama"), "tiny-llama");
  EXPECT_EQ(model_name_from_path("tiny-llama/"), "tiny-llama");
  EXPECT_EQ(model_name_from_path("./a/../tiny-llama/."), "tiny-llama");
}

TEST(ModelName, OfAHubSnapshotIsTheRepositorys) {
  EXPECT_EQ(model_name_from_path("/hub/models--org--tiny/snapshots/4f2a"), "org/tiny");
  EXPECT_EQ(model_name_from_path("/hub/models--org--tiny--v2/snapshots/4f2a/"), "org/tiny--v2");
  EXPECT_EQ(model_name_from_path("/hub/models--tiny/snapshots/4f2a"), "tiny");
  EXPECT_EQ(model_name_from_path("/hub/models--org--tiny/refs/4f2a"), "4f2a");
}

TEST(ModelName, OfNothingIsEmpty) {
  for (const char* path : {"", "/", ".", "..", "a/../..", "./"}) {
    EXPECT_EQ(model_name_from_path(path), "") << path;
  }
}

}  // namespace
}  // namespace airllm
