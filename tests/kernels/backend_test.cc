// The choice of a backend.
#include "kernels/backend.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace airllm::kernels {
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
  const Backend* best = avx2_backend() != nullptr ? avx2_backend() : &scalar_backend();
  unsetenv("AIRLLM_CPU");
  ASSERT_TRUE(choose_backend());
  EXPECT_EQ(best, *choose_backend());
  setenv("AIRLLM_CPU", "", 1);
  ASSERT_TRUE(choose_backend());
  EXPECT_EQ(best, *choose_backend());
}

TEST_F(ChooseBackend, NamesAreHonoured) {
  setenv("AIRLLM_CPU", "scalar", 1);
  ASSERT_TRUE(choose_backend());
  EXPECT_EQ(&scalar_backend(), *choose_backend());

  setenv("AIRLLM_CPU", "avx2", 1);
  const Result<const Backend*> chosen = choose_backend();
  if (avx2_backend() != nullptr) {
    ASSERT_TRUE(chosen);
    EXPECT_EQ(avx2_backend(), *chosen);
  } else {
    ASSERT_FALSE(chosen);
    EXPECT_EQ(ErrorCode::kConfig, chosen.error().code);
  }
}

TEST_F(ChooseBackend, UnknownNameIsRefusedWithTheList) {
  for (const char* name : {"AVX2", "avx512", "scalar ", "x"}) {
    setenv("AIRLLM_CPU", name, 1);
    const Result<const Backend*> chosen = choose_backend();
    ASSERT_FALSE(chosen) << name;
    EXPECT_EQ(ErrorCode::kConfig, chosen.error().code);
    EXPECT_NE(std::string::npos, chosen.error().message.find(name));
    EXPECT_NE(std::string::npos, chosen.error().remedy.find("scalar"));
  }
}

TEST(Backend, NamesItself) {
  EXPECT_STREQ("scalar", scalar_backend().name);
  if (avx2_backend() == nullptr) GTEST_SKIP() << "this CPU has no AVX2, FMA and F16C";
  EXPECT_STREQ("avx2", avx2_backend()->name);
}

}  // namespace
}  // namespace airllm::kernels
