// The families of tests/families with random weights: the same to the bit however the work is cut.
// What the numbers are is for tests/e2e/test_families.py.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "base/json.h"
#include "engine/model/families.h"
#include "tests/engine/model/pass.h"

namespace airllm::model {
namespace {

using testing::Logits;
using testing::MemoryModel;
using testing::Pass;
using testing::random_tokens;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Fixture {
  std::string name;
  Architecture architecture;        // by the settings as hub repositories have them
  Architecture saved_architecture;  // as transformers saves them
  std::vector<std::string> tensors;
};

// Of the families that are known.
const std::vector<Fixture>& fixtures() {
  static const std::vector<Fixture> all = [] {
    std::vector<Fixture> out;
    for (const auto& entry :
         std::filesystem::directory_iterator(AIRLLM_SOURCE_DIR "/tests/families")) {
      if (entry.path().extension() != ".json") continue;
      const Json root = parse_json(read_file(entry.path()), "fixture").value();
      const std::string family = root["config"]["model_type"].get<std::string>();
      if (find_family(family) == nullptr) continue;
      Fixture fixture;
      fixture.name = entry.path().stem();
      fixture.architecture = parse_config(dump_json(root["config"]), "config").value();
      fixture.saved_architecture =
          parse_config(dump_json(root["config_saved"]), "config_saved").value();
      for (const Json& tensor : root["tensors"]) {
        fixture.tensors.push_back(tensor[0].get<std::string>());
      }
      out.push_back(std::move(fixture));
    }
    return out;
  }();
  return all;
}

TEST(Families, BothSpellingsMakeTheSameStages) {
  ASSERT_FALSE(fixtures().empty());
  for (const Fixture& fixture : fixtures()) {
    const std::vector<StageSpec> hub = stages(fixture.architecture);
    const std::vector<StageSpec> saved = stages(fixture.saved_architecture);
    ASSERT_EQ(hub.size(), saved.size());
    for (size_t i = 0; i < hub.size(); ++i) {
      ASSERT_EQ(hub[i].tensors.size(), saved[i].tensors.size()) << fixture.name;
      EXPECT_EQ(hub[i].steps.size(), saved[i].steps.size()) << fixture.name;
      for (size_t t = 0; t < hub[i].tensors.size(); ++t) {
        EXPECT_EQ(hub[i].tensors[t].name, saved[i].tensors[t].name) << fixture.name;
        EXPECT_EQ(hub[i].tensors[t].shape, saved[i].tensors[t].shape) << fixture.name;
      }
    }
  }
}

TEST(Families, StagesWantTheTensorsOfTheCheckpointAndNoOthers) {
  for (const Fixture& fixture : fixtures()) {
    std::set<std::string> wanted;
    for (const StageSpec& stage : stages(fixture.architecture)) {
      for (const TensorSpec& tensor : stage.tensors) {
        wanted.insert(tensor.part.name.empty() ? tensor.name : tensor.part.name);
      }
    }
    for (const std::string& tensor : fixture.tensors) {
      EXPECT_EQ(wanted.erase(tensor), 1U) << fixture.name << " has " << tensor;
    }
    EXPECT_TRUE(wanted.empty()) << fixture.name << " has no " << *wanted.begin();
  }
}

TEST(Families, TheSameToTheBitHoweverTheWorkIsCut) {
  for (const Fixture& fixture : fixtures()) {
    const MemoryModel model(fixture.architecture, kernels::NumberFormat::kF32, 5);
    // One longer than a page of keys and values, one shorter than a window.
    const std::vector<std::vector<int32_t>> sequences{random_tokens(45, 1, model.architecture),
                                                      random_tokens(5, 2, model.architecture)};
    std::vector<Logits> alone;
    for (const auto& sequence : sequences) {
      alone.push_back(Pass(model, {}).run({sequence}, 100).front());
    }
    for (const float logit : alone.front().back()) ASSERT_TRUE(std::isfinite(logit));
    for (const size_t chunk : {1, 3, 100}) {
      EXPECT_EQ(Pass(model, {.threads = 3}).run(sequences, chunk), alone)
          << fixture.name << ", chunk " << chunk;
    }
  }
}

Logits every(const Logits& all, size_t step) {
  Logits out;
  for (size_t i = 0; i < all.size(); i += step) out.push_back(all[i]);
  return out;
}

// Some rows, or all of a sweep, go no further than the last layer's keys and values.
TEST(Families, TheSameToTheBitWhateverRowsWantLogits) {
  for (const Fixture& fixture : fixtures()) {
    const MemoryModel model(fixture.architecture, kernels::NumberFormat::kF32, 5);
    const std::vector<std::vector<int32_t>> sequences{random_tokens(23, 1, model.architecture),
                                                      random_tokens(5, 2, model.architecture)};
    const std::vector<Logits> all = Pass(model, {}).run(sequences, 100);
    const std::vector<Logits> expected{every(all[0], 4), every(all[1], 4)};
    for (const size_t chunk : {1, 3, 100}) {
      EXPECT_EQ(Pass(model, {}).run(sequences, chunk, 4), expected)
          << fixture.name << ", chunk " << chunk;
    }
  }
}

// Experts are left out or come, tile by tile, through a ring, too.
TEST(Families, TheSameToTheBitWhereWeightsStream) {
  size_t streamed = 0;
  for (const Fixture& fixture : fixtures()) {
    const MemoryModel model(fixture.architecture, kernels::NumberFormat::kF32, 5);
    const std::vector<std::vector<int32_t>> sequences{random_tokens(40, 1, model.architecture)};
    const uint64_t full = stream::full_budget_bytes({&model.architecture, model.shards});
    const uint64_t budget = 192 * kKiB;
    const auto plan = stream::make_plan({&model.architecture, model.shards}, budget);
    if (!plan || full <= budget || !plan->streams()) continue;
    ++streamed;
    EXPECT_EQ(Pass(model, {.budget = budget}).run(sequences, 7),
              Pass(model, {}).run(sequences, 100))
        << fixture.name;
  }
  EXPECT_GE(streamed, 10U);
}

// Whatever part of the experts memory has room for.
TEST(Families, TheSameToTheBitWhateverExpertsStay) {
  size_t in_slots = 0;
  for (const Fixture& fixture : fixtures()) {
    if (fixture.architecture.router.experts == 0) continue;
    const MemoryModel model(fixture.architecture, kernels::NumberFormat::kF32, 5);
    const std::vector<std::vector<int32_t>> sequences{random_tokens(24, 1, model.architecture)};
    const std::vector<Logits> expected = Pass(model, {}).run(sequences, 100);
    const uint64_t full = stream::full_budget_bytes({&model.architecture, model.shards});
    for (const uint64_t percent : {5, 10, 20, 35, 50, 75}) {
      const uint64_t budget = full / 100 * percent;
      const auto plan = stream::make_plan({&model.architecture, model.shards}, budget);
      if (!plan) continue;
      in_slots += plan->expert_slots() > 0 ? 1 : 0;
      for (const size_t chunk : {1, 5}) {
        EXPECT_EQ(Pass(model, {.budget = budget}).run(sequences, chunk), expected)
            << fixture.name << " in " << percent << " %";
      }
    }
  }
  EXPECT_GE(in_slots, 10U);
}

}  // namespace
}  // namespace airllm::model
