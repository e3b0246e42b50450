// An Engine without tensors, for tests of the daemon. What a job does follows from its model's
// name.
//   "short"    three tokens, then the end
//   "endless"  a token each millisecond until it is cancelled
//   "silent"   accepted, then nothing until it is cancelled
//   "flood"    tokens of 64 KiB as fast as they go until it is cancelled, or 4096 of them
//   "deaf"     takes 300 ms to notice that it is cancelled
// Tokens are bytes; a template gives back its input. A split asks for kSplitNames and ends with
// their sizes. A verify ends at once, and
// a stop says that the model was in memory. A bench tells how many sweeps it was to make; of
// "endless" and "silent" it goes on until it is cancelled.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace airllm::daemon {

inline const std::array<std::string, 2> kSplitNames{"config.json", "absent.json"};

// Thread-safe, as an Engine is.
class FakeEngine : public engine::Engine {
 public:
  explicit FakeEngine(std::vector<std::string> models = {"short", "endless", "silent", "flood",
                                                         "deaf"});
  ~FakeEngine() override;

  Result<engine::JobId> generate(engine::GenerateRequest request,
                                 std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> run_text(engine::TextRequest request,
                                 std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> split(engine::SplitRequest request,
                              std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> verify(const engine::ModelRef& model, uid_t user,
                               std::shared_ptr<engine::JobEvents> events,
                               std::shared_ptr<engine::OwnerFiles> owner_files) override;
  Result<engine::JobId> stop(const engine::ModelRef& model, uid_t user,
                             std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> measure_disk(uid_t user,
                                     std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> bench_stream(engine::BenchRequest request,
                                     std::shared_ptr<engine::JobEvents> events) override;
  Result<engine::JobId> bench_kernels(engine::KernelBenchRequest request,
                                      std::shared_ptr<engine::JobEvents> events) override;
  Status cancel(engine::JobId job) override;
  Result<engine::FoundModel> find(const std::string& name, const engine::Viewer& viewer,
                                  bool unfinished) override;
  Result<Json> list(const engine::Viewer& viewer) override;
  Result<Json> show(const engine::ModelRef& model) override;
  Status remove(const engine::ModelRef& model) override;
  Status share(const engine::ModelRef& model) override;
  std::vector<engine::JobInfo> jobs() override;
  Json status(const engine::Viewer& viewer) override;
  void close_admission() override;
  void apply(const engine::EngineOptions& options) override;

  // Beside the shared models of the daemon's own user that it is made with. Before it is used.
  void add(engine::FoundModel model) { models_.push_back(std::move(model)); }
  bool has(const engine::ModelRef& model) const;
  // How many jobs have begun and not ended.
  size_t running() const;
  uint64_t cancelled() const { return cancelled_; }
  // What apply() was last given.
  engine::EngineOptions applied() const;
  // The bundled flag of `model` in list().
  void set_bundled(const std::string& model) { bundled_ = model; }

 private:
  using Body = std::function<void(engine::JobId, engine::JobEvents&)>;
  Result<engine::JobId> start(std::string kind, uid_t user, engine::ModelRef model,
                              std::shared_ptr<engine::JobEvents> events, Body body);
  // The job's last event, before which it is off the list, as the engine's are.
  void done(engine::JobId job, engine::JobEvents& out, const Json& result);
  // Waits; true when the job was cancelled meanwhile.
  bool cancelled_within(engine::JobId job, std::chrono::milliseconds time);
  void run_generate(engine::JobId job, const std::string& model, engine::JobEvents& events);

  struct Job {
    engine::JobInfo info;
    bool cancelled = false;
  };
  engine::EngineOptions applied_;
  mutable std::mutex mutex_;
  std::vector<engine::FoundModel> models_;
  std::string bundled_;
  std::condition_variable changed_;
  std::map<engine::JobId, Job> jobs_;
  std::vector<std::thread> threads_;
  engine::JobId next_ = 1;
  bool closed_ = false;
  std::atomic<uint64_t> cancelled_ = 0;
};

}  // namespace airllm::daemon
