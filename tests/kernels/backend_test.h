// BackendTest: a test that runs once for each backend of the CPU, and is skipped for those that
// this machine has not got.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/kernels/random_data.h"

namespace airllm::kernels::testing {

// With the names of kBackendNames.
class BackendTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (find_backend(GetParam()) == nullptr) {
      GTEST_SKIP() << "this CPU or this build has not got " << GetParam();
    }
  }
  const Backend& backend() const { return *find_backend(GetParam()); }

  Random random_;
  ThreadPool one_thread_{1};
  ThreadPool four_threads_{4};
};

inline std::string backend_name(const ::testing::TestParamInfo<const char*>& info) {
  return info.param;
}

}  // namespace airllm::kernels::testing
