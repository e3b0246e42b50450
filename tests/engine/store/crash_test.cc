// The promise of split: killed between any two operations of the disk, nothing half-written is ever
// taken for whole, and the same split given again ends as if nothing had happened.
#include <gtest/gtest.h>

#include <cerrno>

#include "base/json.h"
#include "engine/store/hash.h"
#include "engine/store/store.h"
#include "tests/engine/store/memory_disk.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

constexpr const char* kRoot = "/store";
constexpr const char* kName = "org/tiny";

// The hash of each file; of manifests, without the time.
using Files = std::map<std::string, uint64_t>;

Files without_times(const std::map<std::string, std::string>& files) {
  Files out;
  for (const auto& [path, text] : files) {
    out[path] = xxh3(text);
    if (!path.ends_with("manifest.json")) continue;
    Result<Json> root = parse_json(text, path);
    if (!root) continue;
    (*root)["created"] = "";
    out[path] = xxh3(dump_json(*root));
  }
  return out;
}

std::unique_ptr<Store> open_store(MemoryDisk& disk) {
  Result<std::unique_ptr<Store>> store = Store::open(kRoot, disk);
  return store ? std::move(*store) : nullptr;
}

class SplitCrash : public testing::Test {
 protected:
  SplitCrash() { write_tiny_checkpoint(source_.path(), {.layers = 2, .files = 2}); }

  Result<Json> split(Store& store) {
    engine::SplitRequest request = split_request(source_.path(), kName);
    if (in_place_) request.in_place = source_.path();
    return store.split(request, {}, {});
  }

  // The store after a split that nothing disturbed, and how many operations it takes.
  Files expected() {
    MemoryDisk disk;
    const auto store = open_store(disk);
    const uint64_t before = disk.operations();
    EXPECT_TRUE(split(*store).has_value());
    operations_ = disk.operations() - before;
    return without_times(disk.files_below(kRoot));
  }

  // What is listed as complete can be read to its last byte.
  static void expect_nothing_half(Store& store) {
    const Result<std::vector<ModelSummary>> models = store.list({});
    ASSERT_TRUE(models.has_value()) << models.error().message;
    for (const ModelSummary& model : *models) {
      EXPECT_EQ(model.problem, "");
      const Result<Json> verified = store.verify(model.model, {}, {});
      EXPECT_EQ(verified.has_value(), model.complete);
      if (!verified && model.complete) ADD_FAILURE() << verified.error().message;
    }
  }

  // Crashes after each operation in turn.
  void check_every_crash();

  TemporaryFolder source_;
  bool in_place_ = false;
  uint64_t operations_ = 0;
};

void SplitCrash::check_every_crash() {
  const Files expected_files = expected();
  ASSERT_GT(operations_, 50U);
  for (uint64_t at = 0; at <= operations_; ++at) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      SCOPED_TRACE("crash after " + std::to_string(at) + " operations, seed " +
                   std::to_string(seed));
      MemoryDisk disk;
      {
        const auto store = open_store(disk);
        ASSERT_NE(store, nullptr);
        disk.crash_after(at);
        EXPECT_EQ(split(*store).has_value(), at >= operations_ - 1);
      }
      disk.reboot(seed);
      const auto store = open_store(disk);
      ASSERT_NE(store, nullptr);
      expect_nothing_half(*store);
      // A split that has ended well is there for good.
      EXPECT_TRUE(at < operations_ || store->open_model(kName).has_value());
      const Result<Json> made = split(*store);
      ASSERT_TRUE(made.has_value()) << made.error().message;
      ASSERT_EQ(without_times(disk.files_below(kRoot)), expected_files);
    }
  }
}

TEST_F(SplitCrash, GoesOnAfterACrashBetweenAnyTwoOperations) { check_every_crash(); }

TEST_F(SplitCrash, GoesOnWithIndexesAfterACrashBetweenAnyTwoOperations) {
  in_place_ = true;
  check_every_crash();
}

TEST_F(SplitCrash, GoesOnAfterManyCrashes) {
  const Files expected_files = expected();
  // Enough for one shard and its journal, so every try gets further.
  constexpr uint64_t kOperationsPerTry = 45;
  MemoryDisk disk;
  bool done = false;
  for (uint64_t tries = 0; tries < 40 && !done; ++tries) {
    disk.reboot(tries);
    disk.crash_after(kOperationsPerTry);
    const auto store = open_store(disk);
    if (store) done = split(*store).has_value();
  }
  ASSERT_TRUE(done);
  EXPECT_EQ(without_times(disk.files_below(kRoot)), expected_files);
}

TEST_F(SplitCrash, GoesOnAfterAnErrorOfTheDisk) {
  const Files expected_files = expected();
  for (uint64_t at = 0; at < operations_; ++at) {
    SCOPED_TRACE("EIO after " + std::to_string(at) + " operations");
    MemoryDisk disk;
    auto store = open_store(disk);
    disk.fail_after(at, EIO);
    const Result<Json> first = split(*store);
    if (!first) {
      EXPECT_EQ(first.error().code, ErrorCode::kIo) << first.error().message;
    }
    expect_nothing_half(*store);
    const Result<Json> made = split(*store);
    ASSERT_TRUE(made.has_value()) << made.error().message;
    store.reset();
    store = open_store(disk);
    ASSERT_EQ(without_times(disk.files_below(kRoot)), expected_files);
  }
}

// Shared or not, the model is whole, and its owner is known.
TEST_F(SplitCrash, SharingIsAllOrNothing) {
  constexpr uid_t kUser = 1001;
  engine::SplitRequest request = split_request(source_.path(), kName);
  request.owner = kUser;
  for (uint64_t at = 0; at < 12; ++at) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      SCOPED_TRACE("crash after " + std::to_string(at) + " operations, seed " +
                   std::to_string(seed));
      MemoryDisk disk;
      bool shared = false;
      {
        const auto store = open_store(disk);
        ASSERT_TRUE(store->split(request, {}, {}).has_value());
        disk.crash_after(at);
        shared = store->share({kName, kUser}).has_value();
      }
      disk.reboot(seed);
      const auto store = open_store(disk);
      ASSERT_NE(store, nullptr);
      const Result<engine::FoundModel> found = store->find(kName, {kUser}, false);
      ASSERT_TRUE(found.has_value()) << found.error().message;
      EXPECT_EQ(found->owner, kUser);
      EXPECT_TRUE(!shared || !found->model.holder);
      EXPECT_TRUE(store->verify(found->model, {}, {}).has_value());
      ASSERT_TRUE(store->share(found->model).has_value());
      EXPECT_EQ(store->find(kName, {}, false)->owner, kUser);
      EXPECT_EQ(store->list({kUser})->size(), 1U);
    }
  }
}

TEST_F(SplitCrash, RemovalIsAllOrNothing) {
  const Files expected_files = expected();
  for (uint64_t at = 0; at < 25; ++at) {
    SCOPED_TRACE("crash after " + std::to_string(at) + " operations");
    MemoryDisk disk;
    {
      const auto store = open_store(disk);
      ASSERT_TRUE(split(*store).has_value());
      disk.crash_after(at);
      (void)store->remove(kName);
    }
    disk.reboot(at);
    const auto store = open_store(disk);
    ASSERT_NE(store, nullptr);
    expect_nothing_half(*store);
    EXPECT_TRUE(disk.list("/store/incoming")->empty());
    ASSERT_TRUE(split(*store).has_value());
    EXPECT_EQ(without_times(disk.files_below(kRoot)), expected_files);
  }
}

}  // namespace
}  // namespace airllm::store
