// Weights in memory outlast the engine, where something holds them meanwhile.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/units.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

// As a service manager does it, in this process.
class HeldMemory : public MemoryStore {
 public:
  std::vector<Entry> take() override {
    const std::lock_guard lock(mutex_);
    std::vector<Entry> out;
    for (const auto& [name, fd] : held_) out.push_back({name, duplicate(fd.get())});
    return out;
  }
  void keep(const std::string& name, int fd) override {
    const std::lock_guard lock(mutex_);
    ++kept_;
    held_.emplace_back(name, duplicate(fd));
  }
  void forget(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    std::erase_if(held_, [&](const auto& entry) { return entry.first == name; });
  }

  int kept() const {
    const std::lock_guard lock(mutex_);
    return kept_;
  }
  std::vector<std::string> names() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    for (const auto& entry : held_) out.push_back(entry.first);
    return out;
  }
  // The only one.
  int fd() const {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(held_.size(), 1U);
    return held_.empty() ? -1 : held_.front().second.get();
  }
  void rename(const std::string& name) {
    const std::lock_guard lock(mutex_);
    ASSERT_EQ(held_.size(), 1U);
    held_.front().first = name;
  }

 private:
  static UniqueFd duplicate(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

  mutable std::mutex mutex_;
  int kept_ = 0;
  std::vector<std::pair<std::string, UniqueFd>> held_;
};

uint64_t size_of(int fd) {
  struct stat info {};
  EXPECT_EQ(::fstat(fd, &info), 0);
  return static_cast<uint64_t>(info.st_size);
}

uint64_t allocated(int fd) {
  struct stat info {};
  EXPECT_EQ(::fstat(fd, &info), 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

// The last page, up to its first zero.
std::string description(int fd) {
  std::string page(kPageBytes, '\0');
  EXPECT_EQ(::pread(fd, page.data(), page.size(), static_cast<off_t>(size_of(fd) - kPageBytes)),
            static_cast<ssize_t>(kPageBytes));
  return page.c_str();
}

void describe(int fd, std::string text) {
  text.resize(kPageBytes);
  ASSERT_EQ(::pwrite(fd, text.data(), text.size(), static_cast<off_t>(size_of(fd) - kPageBytes)),
            static_cast<ssize_t>(kPageBytes));
}

class Restarted : public EngineTest {
 protected:
  void SetUp() override {
    restart();
    ASSERT_TRUE(split(demo_directory(), "demo")->done);
  }
  void TearDown() override { engine.reset(); }

  EngineOptions options(uint64_t ram_bytes = 64 * kMiB) {
    EngineOptions out;
    out.ram_bytes = ram_bytes;
    out.kv_bytes = 16 * kMiB;
    out.threads = 2;
    out.memory_store = &held;
    return out;
  }
  void restart(uint64_t ram_bytes = 64 * kMiB) { open(options(ram_bytes)); }

  std::shared_ptr<RecordedJob> ask(const std::string& model = "demo") {
    const auto job = run(question("What is the capital of France?", model));
    EXPECT_TRUE(job->result) << (job->error ? job->error->message : "");
    EXPECT_NE(job->text.find("Paris"), std::string::npos);
    return job;
  }
  uint64_t bytes_read(const std::string& model = "demo") { return ask(model)->result->read_bytes; }

  Json models() const { return engine->status({std::nullopt, true})["models"]; }
  uint64_t used() const { return engine->status({})["ram_used_bytes"].get<uint64_t>(); }

  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 6000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  HeldMemory held;
};

TEST_F(Restarted, TheFirstJobReadsNothingAndAnswersAlike) {
  const auto before = ask();
  EXPECT_GT(before->result->read_bytes, 4 * kMiB);
  const uint64_t taken = used();
  for (int i = 0; i < 10; ++i) {
    restart();
    const Json row = models()[0];
    EXPECT_EQ(row["name"], "demo");
    EXPECT_EQ(row["received"], true);
    EXPECT_GT(row["resident_bytes"].get<uint64_t>(), 4 * kMiB);
    EXPECT_EQ(row["ram_bytes"], used());
    const auto after = ask();
    EXPECT_EQ(after->result->read_bytes, 0U);
    EXPECT_GT(after->result->cache_bytes, 4 * kMiB);
    EXPECT_EQ(after->ids, before->ids);
    EXPECT_EQ(used(), taken);
    EXPECT_EQ(models()[0]["received"], false);
  }
  EXPECT_EQ(held.kept(), 1);
}

TEST_F(Restarted, OfAModelThatStreamsOnlyWhatStreamsIsRead) {
  constexpr uint64_t kBudget = 3 * kMiB;
  restart(kBudget);
  const auto before = ask();
  const auto again = ask();
  restart(kBudget);
  const auto after = ask();
  EXPECT_EQ(after->ids, before->ids);
  EXPECT_LT(after->result->read_bytes, before->result->read_bytes);
  // Once more what lay in the workspace, at most a quarter of the budget.
  EXPECT_LE(after->result->read_bytes, again->result->read_bytes + kBudget / 4);
}

TEST_F(Restarted, WhatIsHeldDependsOnNoPrompt) {
  const auto held_after = [&](const std::string& text) {
    HeldMemory own;
    EngineOptions fresh = options();
    fresh.memory_store = &own;
    open(fresh);
    EXPECT_TRUE(run(question(text))->result);
    std::string all(size_of(own.fd()) - kPageBytes, '\0');
    EXPECT_EQ(::pread(own.fd(), all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    engine.reset();
    return all;
  };
  const std::string one = held_after("What is the capital of France?");
  EXPECT_GT(one.size(), 4 * kMiB);
  EXPECT_TRUE(one == held_after("Hello, who are you?"));
}

TEST_F(Restarted, ADamagedByteIsReadAgain) {
  const auto before = ask();
  engine.reset();
  const auto middle = static_cast<off_t>(size_of(held.fd()) / 2);
  char byte = 0;
  ASSERT_EQ(::pread(held.fd(), &byte, 1, middle), 1);
  byte = static_cast<char>(byte ^ 1);
  ASSERT_EQ(::pwrite(held.fd(), &byte, 1, middle), 1);
  restart();
  const auto after = ask();
  EXPECT_EQ(after->ids, before->ids);
  EXPECT_GT(after->result->read_bytes, 0U);
  EXPECT_LE(after->result->read_bytes, 4 * kMiB);
  restart();
  EXPECT_EQ(bytes_read(), 0U);
}

TEST_F(Restarted, ASmallerBudgetGivesItBackAtOnce) {
  ask();
  const int fd = ::dup(held.fd());
  restart(3 * kMiB);
  EXPECT_TRUE(held.names().empty());
  EXPECT_EQ(allocated(fd), 0U);
  ::close(fd);
  EXPECT_EQ(used(), 0U);
  EXPECT_GT(bytes_read(), 0U);
  EXPECT_EQ(held.names().size(), 1U);
}

// The plan takes no more of a larger budget: it holds for all that it fits.
TEST_F(Restarted, ABudgetThatStillHoldsItAllIsNoReasonToReadItAgain) {
  ask();
  const uint64_t taken = used();
  restart(taken);
  EXPECT_EQ(bytes_read(), 0U);
  restart(512 * kMiB);
  EXPECT_EQ(bytes_read(), 0U);
}

TEST_F(Restarted, ALargerBudgetThatHoldsMoreOfItIsUsed) {
  restart(3 * kMiB);
  ask();
  restart(64 * kMiB);
  EXPECT_GT(bytes_read(), 0U);
  EXPECT_EQ(models()[0]["streams"], false);
  EXPECT_EQ(held.names().size(), 1U);
}

TEST_F(Restarted, AModelThatIsGoneIsGivenBack) {
  ask();
  engine.reset();
  std::filesystem::remove_all(folder.path() + "/models/demo");
  restart();
  EXPECT_TRUE(held.names().empty());
  EXPECT_EQ(models().size(), 0U);
}

TEST_F(Restarted, AModelThatWasReplacedIsReadAnew) {
  ask();
  engine.reset();
  HeldMemory other;
  EngineOptions elsewhere = options();
  elsewhere.memory_store = &other;
  open(elsewhere);
  ASSERT_TRUE(engine->remove("demo"));
  // The same architecture with one weight changed.
  testing::TemporaryFolder changed;
  std::filesystem::copy(demo_directory(), changed.path(), std::filesystem::copy_options::recursive);
  for (const auto& entry : std::filesystem::directory_iterator(changed.path())) {
    if (entry.path().extension() != ".safetensors") continue;
    std::filesystem::permissions(entry.path(), std::filesystem::perms::owner_all);
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('\x01');
  }
  ASSERT_TRUE(split(changed.path(), "demo")->done);
  restart();
  EXPECT_EQ(models().size(), 1U);
  EXPECT_GT(run(question("Hello"))->result->read_bytes, 4 * kMiB);
  EXPECT_EQ(held.names().size(), 1U);
}

TEST_F(Restarted, RemovingAModelGivesItBack) {
  ask();
  restart();
  ASSERT_TRUE(engine->remove("demo"));
  EXPECT_TRUE(eventually([&] { return held.names().empty(); }));
  EXPECT_TRUE(eventually([&] { return models().empty(); }));
}

TEST_F(Restarted, AStopGivesItBack) {
  ask();
  restart();
  const uint64_t taken = used();
  EXPECT_GT(taken, 4 * kMiB);
  const auto job = std::make_shared<RecordedJob>();
  ASSERT_TRUE(engine->stop("demo", 7, job));
  job->wait();
  ASSERT_TRUE(job->done);
  EXPECT_EQ((*job->done)["was_in_memory"], true);
  EXPECT_EQ((*job->done)["freed_bytes"], taken);
  EXPECT_TRUE(held.names().empty());
  EXPECT_EQ(used(), 0U);
  EXPECT_GT(bytes_read(), 4 * kMiB);
  // Also of one that runs.
  const auto again = std::make_shared<RecordedJob>();
  EXPECT_TRUE(eventually([&] { return models()[0]["in_use"] == false; }));
  ASSERT_TRUE(engine->stop("demo", 7, again));
  again->wait();
  EXPECT_TRUE(held.names().empty());
}

TEST_F(Restarted, WhatNobodyAsksExpires) {
  ask();
  EngineOptions soon = options();
  soon.keep_alive = std::chrono::milliseconds(300);
  open(soon);
  EXPECT_TRUE(eventually([&] { return models().empty(); }));
  EXPECT_TRUE(eventually([&] { return held.names().empty(); }));
  EXPECT_EQ(used(), 0U);
}

TEST_F(Restarted, WhatTheSettingKeepsStays) {
  ask();
  EngineOptions kept = options();
  kept.keep_alive = std::chrono::milliseconds(0);
  kept.keep = {"demo"};
  open(kept);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(models()[0]["kept"], true);
  EXPECT_EQ(bytes_read(), 0U);
}

TEST_F(Restarted, ItMakesRoomForAnotherModel) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  ask("demo");
  const uint64_t taken = used();
  restart(taken + taken / 8);
  EXPECT_EQ(models()[0]["name"], "demo");
  EXPECT_GT(bytes_read("other"), 4 * kMiB);
  EXPECT_EQ(models().size(), 1U);
  EXPECT_LE(used(), taken + taken / 8);
  EXPECT_EQ(held.names().size(), 1U);
}

TEST_F(Restarted, TwoModelsAreBothThere) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  ask("demo");
  ask("other");
  restart();
  EXPECT_EQ(models().size(), 2U);
  EXPECT_EQ(bytes_read("other"), 0U);
  EXPECT_EQ(bytes_read("demo"), 0U);
}

TEST_F(Restarted, AnothersModelOfTheNameIsAnother) {
  const auto job = std::make_shared<RecordedJob>();
  SplitRequest request{"demo", demo_directory(),
                       std::make_shared<testing::LocalDirectory>(demo_directory())};
  request.owner = 4711;
  ASSERT_TRUE(engine->split(request, job));
  job->wait();
  ASSERT_TRUE(job->done);
  ask();
  restart();
  GenerateRequest asked = question("What is the capital of France?");
  asked.model = ModelRef("demo", 4711);
  EXPECT_GT(run(asked)->result->read_bytes, 4 * kMiB);
  EXPECT_EQ(bytes_read(), 0U);
  EXPECT_EQ(held.names().size(), 2U);
  restart();
  EXPECT_EQ(run(asked)->result->read_bytes, 0U);
  // Who may not see it is not told of it.
  EXPECT_EQ(engine->status({})["models"].size(), 1U);
  for (const std::string& name : held.names()) EXPECT_EQ(name.find("demo"), std::string::npos);
  // Shared, it is another's no more: its weights are read as those of the shared one.
  ASSERT_TRUE(engine->remove("demo"));
  ASSERT_TRUE(engine->share(ModelRef("demo", 4711)));
  EXPECT_TRUE(eventually([&] { return held.names().empty(); }));
}

TEST_F(Restarted, ADescriptionThatIsNoneIsGivenBack) {
  ask();
  engine.reset();
  const int fd = ::dup(held.fd());
  const std::string good = description(fd);
  const std::string name = held.names().front();
  ASSERT_NE(good.find("\"demo\""), std::string::npos);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from << " in " << good;
    return text.replace(at, from.size(), to);
  };
  held.forget(name);
  const std::vector<std::string> bad{
      "",
      "{}",
      "[]",
      "null",
      good.substr(0, good.size() / 2),
      std::string(kPageBytes, '{'),
      std::string(kPageBytes, '\xff'),
      with("airllm-weights", "airllm-w\xc3ights"),
      with("\"version\":1", "\"version\":2"),
      with("\"version\":1", "\"version\":-1"),
      with("\"holder\":null", "\"holder\":99999999999"),
      with("\"holder\":null", "\"holder\":\"root\""),
      with("\"holder\":null", "\"holder\":0"),
      with("\"demo\"", "\"../demo\""),
      with("\"demo\"", "\"" + std::string(1000, 'x') + "\""),
      with("\"demo\"", "\"absent\""),
      with("\"plan_bytes\":", "\"plan_bytes\":1e9,\"x\":"),
      with("\"plan_bytes\":", "\"plan_bytes\":9"),
      with("\"layout\":\"", "\"layout\":\"0"),
      with("\"streams\":false", "\"streams\":0"),
      with("}", ",\"more\":1}"),
  };
  for (const std::string& text : bad) {
    describe(fd, text);
    held.keep(name, fd);
    restart();
    EXPECT_TRUE(held.names().empty()) << text;
    EXPECT_EQ(models().size(), 0U) << text;
    EXPECT_EQ(used(), 0U) << text;
    engine.reset();
  }
  ::close(fd);
}

TEST_F(Restarted, APlanThatIsNotTheirsIsNoticed) {
  ask();
  engine.reset();
  const int fd = ::dup(held.fd());
  std::string text = description(fd);
  const std::string key = "\"plan_bytes\":";
  const size_t at = text.find(key) + key.size();
  text.replace(at, text.find(',', at) - at, "3000000");
  describe(fd, text);
  restart();
  EXPECT_EQ(models().size(), 1U);
  EXPECT_GT(bytes_read(), 4 * kMiB);
  EXPECT_EQ(allocated(fd), 0U);
  ::close(fd);
  restart();
  EXPECT_EQ(bytes_read(), 0U);
}

TEST_F(Restarted, WhatIsNoSealedMemoryIsGivenBack) {
  ask();
  engine.reset();
  const std::string name = held.names().front();
  const int good = ::dup(held.fd());
  const std::string text = description(good);
  held.forget(name);
  const auto refuses = [&](int fd, const char* what) {
    held.keep(name, fd);
    restart();
    EXPECT_TRUE(held.names().empty()) << what;
    engine.reset();
    ::close(fd);
  };
  // One that can be shortened under a reader.
  const int loose = ::memfd_create("test", MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(loose, static_cast<off_t>(size_of(good))), 0);
  describe(loose, text);
  refuses(loose, "not sealed");
  const int empty = ::memfd_create("test", MFD_ALLOW_SEALING);
  ASSERT_EQ(::fcntl(empty, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  refuses(empty, "empty");
  const int odd = ::memfd_create("test", MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(odd, kPageBytes + 100), 0);
  ASSERT_EQ(::fcntl(odd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  refuses(odd, "no whole pages");
  refuses(::open("/dev/null", O_RDWR), "no memory");
  refuses(::open(folder.path().c_str(), O_RDONLY), "a folder");
  // Another size than the plan's.
  const int longer = ::memfd_create("test", MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(longer, static_cast<off_t>(size_of(good) + kPageBytes)), 0);
  ASSERT_EQ(::fcntl(longer, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  describe(longer, text);
  held.keep(name, longer);
  ::close(longer);
  restart();
  EXPECT_GT(bytes_read(), 4 * kMiB);
  EXPECT_EQ(held.names().size(), 1U);
  ::close(good);
}

TEST_F(Restarted, OfTwoOfANameNeitherIsTrusted) {
  ask();
  engine.reset();
  held.keep(held.names().front(), held.fd());
  EXPECT_EQ(held.names().size(), 2U);
  restart();
  EXPECT_TRUE(held.names().empty());
  EXPECT_EQ(models().size(), 0U);
}

TEST_F(Restarted, AForeignNameIsForgotten) {
  ask();
  for (const std::string& name :
       {std::string("stored"), std::string("airllm-weights-"), std::string("airllm-weights-xyz"),
        std::string("airllm-weights-0123456789abcdef")}) {
    if (held.names().empty()) ask();
    engine.reset();
    held.rename(name);
    restart();
    EXPECT_TRUE(held.names().empty()) << name;
  }
}

TEST_F(Restarted, UnderPressureItGoesFirst) {
  testing::TemporaryFolder files;
  const std::string path = files.path() + "/pressure";
  std::ofstream(path) << "some avg10=0.00\nfull avg10=0.00\n";
  ask();
  restart();
  const uint64_t ram = used() + 512 * kKiB;  // the weights, and little else
  restart(ram);
  ask();
  ::setenv("AIRLLM_DEBUG_PRESSURE", path.c_str(), 1);
  restart(ram);
  EXPECT_EQ(models().size(), 1U);
  std::ofstream(path + ".new") << "some avg10=50.00\nfull avg10=20.00\n";
  std::filesystem::rename(path + ".new", path);
  EXPECT_TRUE(eventually([&] { return held.names().empty() && models().empty(); }));
  ::setenv("AIRLLM_DEBUG_PRESSURE", "/nonexistent", 1);
}

}  // namespace
}  // namespace airllm::engine
