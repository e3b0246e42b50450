// The choice of a backend.
#include "kernels/backend.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/kernels/random_data.h"

namespace airllm::kernels::testing {
namespace {

// Sets AIRLLM_CPU for one test, and puts back what was there.
class ChooseBackend : public ::testing::Test {
 protected:
  ChooseBackend() {
    const char* value = std::getenv("AIRLLM_CPU");
    if (value != nullptr) before_ = value;
    was_set_ = value != nullptr;
  }
  ~ChooseBackend() override {
    if (was_set_) {
      setenv("AIRLLM_CPU", before_.c_str(), 1);
    } else {
      unsetenv("AIRLLM_CPU");
    }
  }

 private:
  std::string before_;
  bool was_set_ = false;
};

TEST_F(ChooseBackend, UnsetOrEmptyGivesTheBest) {
  const Backend* best = backends().back();
  unsetenv("AIRLLM_CPU");
  ASSERT_TRUE(choose_backend());
  EXPECT_EQ(best, *choose_backend());
  setenv("AIRLLM_CPU", "", 1);
  ASSERT_TRUE(choose_backend());
  EXPECT_EQ(best, *choose_backend());
}

TEST_F(ChooseBackend, NamesAreHonoured) {
  for (const char* name : kBackendNames) {
    setenv("AIRLLM_CPU", name, 1);
    const Result<const Backend*> chosen = choose_backend();
    if (find_backend(name) != nullptr) {
      ASSERT_TRUE(chosen);
      EXPECT_STREQ(name, (*chosen)->name);
    } else {
      ASSERT_FALSE(chosen);
      EXPECT_EQ(ErrorCode::kConfig, chosen.error().code);
      EXPECT_NE(std::string::npos, chosen.error().message.find("this CPU or this build"));
    }
  }
}

TEST_F(ChooseBackend, UnknownNameIsRefusedWithTheList) {
  for (const char* name : {"AVX2", "avx512f", "scalar ", "x"}) {
    setenv("AIRLLM_CPU", name, 1);
    const Result<const Backend*> chosen = choose_backend();
    ASSERT_FALSE(chosen) << name;
    EXPECT_EQ(ErrorCode::kConfig, chosen.error().code);
    EXPECT_NE(std::string::npos, chosen.error().message.find(name));
    EXPECT_NE(std::string::npos, chosen.error().remedy.find("scalar"));
  }
}

TEST(Backend, EachIsFoundByItsName) {
  EXPECT_EQ(&scalar_backend(), find_backend("scalar"));
  EXPECT_EQ(avx2_backend(), find_backend("avx2"));
  EXPECT_EQ(avx512_backend(), find_backend("avx512"));
  EXPECT_EQ(nullptr, find_backend("neon"));
  if (avx512_backend() != nullptr) {
    EXPECT_NE(nullptr, avx2_backend());
  }
}

}  // namespace
}  // namespace airllm::kernels::testing
