// An Engine over a store in a temporary folder, and jobs whose events can be waited for.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace airllm::testing {

// Opens files of a local directory, as the client does for the daemon.
class LocalDirectory : public engine::SourceDirectory {
 public:
  explicit LocalDirectory(std::string path) : path_(std::move(path)) {}
  Result<std::vector<UniqueFd>> open(std::span<const std::string> names) override {
    std::vector<UniqueFd> out;
    for (const std::string& name : names) {
      out.emplace_back(::open((path_ + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    }
    return out;
  }

 private:
  std::string path_;
};

// Everything that a job reported. Thread-safe.
class RecordedJob : public engine::JobEvents {
 public:
  void on_accepted(const engine::GenerateAccepted& event) override {
    const std::lock_guard lock(mutex_);
    accepted = event;
    changed_.notify_all();
  }
  void on_prompt_logprobs(uint64_t position,
                          std::span<const engine::TokenLogprob> distribution) override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(position, prompt_logprobs.size());
    prompt_logprobs.emplace_back(distribution.begin(), distribution.end());
  }
  void on_token(const engine::GeneratedToken& token) override {
    const std::lock_guard lock(mutex_);
    if (token.id) {
      ids.push_back(*token.id);
      logprobs.push_back(token.logprobs);
    }
    text += token.text;
    changed_.notify_all();
  }
  void on_generated(const engine::GenerateResult& event) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(is_over_);
    result = event;
    is_over_ = true;
    changed_.notify_all();
  }
  void on_done(const Json& event) override {
    const std::lock_guard lock(mutex_);
    done = event;
    is_over_ = true;
    changed_.notify_all();
  }
  void on_error(const Error& event) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(is_over_);
    error = event;
    is_over_ = true;
    changed_.notify_all();
  }

  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(120), [&] { return is_over_; }));
  }
  bool is_over() {
    const std::lock_guard lock(mutex_);
    return is_over_;
  }
  void wait_for_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(120),
                                  [&] { return ids.size() >= count || is_over_; }));
  }

  std::optional<engine::GenerateAccepted> accepted;
  std::vector<std::vector<engine::TokenLogprob>> prompt_logprobs;
  std::vector<std::vector<engine::TokenLogprob>> logprobs;
  std::vector<int32_t> ids;
  std::string text;
  std::optional<engine::GenerateResult> result;
  std::optional<Json> done;
  std::optional<Error> error;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_over_ = false;
};

// A folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = ::testing::TempDir() + "airllm-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class EngineTest : public ::testing::Test {
 protected:
  // The machine's memory pressure is no part of what is tested.
  EngineTest() { ::setenv("AIRLLM_DEBUG_PRESSURE", "/nonexistent", 1); }

  void open(uint64_t ram_bytes, uint64_t kv_bytes = uint64_t{64} << 20, unsigned threads = 2) {
    engine::EngineOptions options;
    options.ram_bytes = ram_bytes;
    options.kv_bytes = kv_bytes;
    options.threads = threads;
    open(std::move(options));
  }

  void open(engine::EngineOptions options) {
    engine.reset();
    options.store_dir = folder.path();
    auto opened = engine::Engine::open(options);
    ASSERT_TRUE(opened) << opened.error().message;
    engine = std::move(*opened);
  }

  std::shared_ptr<RecordedJob> split(const std::string& directory, const std::string& name,
                                     const std::string& format = "") {
    auto job = std::make_shared<RecordedJob>();
    engine::SplitRequest request{name, directory, std::make_shared<LocalDirectory>(directory)};
    request.format = format;
    const auto id = engine->split(std::move(request), job);
    EXPECT_TRUE(id);
    job->wait();
    return job;
  }

  std::shared_ptr<RecordedJob> start(const engine::GenerateRequest& request,
                                     engine::JobId* id_out = nullptr) {
    auto job = std::make_shared<RecordedJob>();
    const auto id = engine->generate(request, job);
    EXPECT_TRUE(id) << id.error().message;
    if (id_out != nullptr) *id_out = *id;
    return job;
  }

  std::shared_ptr<RecordedJob> run(const engine::GenerateRequest& request) {
    auto job = start(request);
    job->wait();
    return job;
  }

  static engine::GenerateRequest question(const std::string& text,
                                          const std::string& model = "demo") {
    engine::GenerateRequest request;
    request.model = model;
    request.messages = {{"user", text}};
    request.sampling.temperature = 0;
    request.max_tokens = 32;
    return request;
  }

  static std::string demo_directory() { return std::string(AIRLLM_SOURCE_DIR) + "/models/demo"; }

  TemporaryFolder folder;
  std::unique_ptr<engine::Engine> engine;
};

}  // namespace airllm::testing
