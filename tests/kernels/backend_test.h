// BackendTest: a test that runs once for each backend of this machine.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/kernels/random_data.h"

namespace airllm::kernels::testing {

class BackendTest : public ::testing::TestWithParam<const Backend*> {
 protected:
  const Backend& backend() const { return *GetParam(); }

  Random random_;
  ThreadPool one_thread_{1};
  ThreadPool four_threads_{4};
};

inline std::string backend_name(const ::testing::TestParamInfo<const Backend*>& info) {
  return info.param->name;
}

}  // namespace airllm::kernels::testing
