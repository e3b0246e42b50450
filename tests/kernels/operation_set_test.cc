#include "kernels/operation_set.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

constexpr uint64_t kMemoryBytes = uint64_t{1} << 20;

class OperationSetTest : public BackendTest {
 protected:
  void SetUp() override {
    BackendTest::SetUp();
    if (!IsSkipped()) set_.emplace(backend(), pool_, kMemoryBytes);
  }

  ThreadPool pool_{2};
  std::optional<OperationSet> set_;
};

TEST_P(OperationSetTest, HasProductsOfEveryFormatAndTheOtherOperations) {
  std::set<NumberFormat> formats;
  std::set<std::string> names;
  for (const MeasuredOperation& operation : set_->operations()) {
    names.insert(operation.name);
    EXPECT_EQ(operation.format.has_value(), operation.name == "product");
    if (operation.format) formats.insert(*operation.format);
    EXPECT_EQ(operation.positions > 0, operation.name == "attention");
    EXPECT_GT(operation.rows, 0U);
  }
  EXPECT_EQ(formats.size(), kAllFormats.size());
  EXPECT_EQ(names, (std::set<std::string>{"product", "attention", "norm", "activation"}));
}

TEST_P(OperationSetTest, TellsWhatACallReadsAndComputes) {
  for (const MeasuredOperation& operation : set_->operations()) {
    if (operation.name != "product") continue;
    const size_t row = row_bytes(*operation.format, 4096);
    const size_t out = kMemoryBytes / row;
    EXPECT_EQ(operation.bytes, out * row);
    EXPECT_EQ(operation.flop, 2 * operation.rows * out * 4096);
  }
  EXPECT_EQ(set_->memory_read().bytes, kMemoryBytes);
  EXPECT_EQ(set_->peak().flop % pool_.threads(), 0U);
  EXPECT_GT(set_->peak().flop, 0U);
}

TEST_P(OperationSetTest, RunsThemAgainAndAgain) {
  for (int i = 0; i < 2; ++i) {
    set_->memory_read().run();
    for (const MeasuredOperation& operation : set_->operations()) {
      // Enough of them, while sanitizers watch.
      if (operation.rows <= 16 || operation.name != "product") operation.run();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, OperationSetTest, ::testing::ValuesIn(kBackendNames),
                         backend_name);

}  // namespace
}  // namespace airllm::kernels::testing
