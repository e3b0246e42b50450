// The requests of one client: those answered at once, and the jobs that it has running.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/context.h"
#include "daemon/job_bridge.h"
#include "daemon/outbox.h"
#include "daemon/remote_directory.h"
#include "daemon/user.h"
#include "protocol/messages.h"

namespace airllm::daemon {

// Belongs to the connection thread.
class Requests {
 public:
  Requests(Context& context, std::shared_ptr<Outbox> outbox, const User& user)
      : context_(context), outbox_(std::move(outbox)), user_(user) {}
  ~Requests() { abandon(); }
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // Every request gets its answer or its error as events. A kProtocol error is returned for what
  // only a broken peer sends (id 0, an id that is running), and ends the connection.
  Status handle(protocol::Request request);
  // One that has ended meanwhile is no error.
  void cancel(const protocol::Cancel& cancel);
  // kProtocol for files that nobody asked for.
  Status deliver(protocol::Files files, std::vector<UniqueFd> descriptors);

  // The request's last frame is on its way.
  void ended(uint64_t id);
  // The peer did not read; its job is cancelled, the client has been told.
  void given_up(uint64_t id);
  // The daemon ends all jobs with `error`.
  void fail_all(const Error& error);
  // The peer is gone: cancels all jobs.
  void abandon();
  size_t running() const { return running_.size(); }

 private:
  struct Running {
    engine::JobId job = 0;
    std::shared_ptr<JobBridge> bridge;
    std::shared_ptr<RemoteDirectory> directory;  // when files may be asked for
    const char* kind = "";
    std::string model;
  };

  Status start(uint64_t id, const protocol::GenerateParams& params);
  Status start(uint64_t id, const protocol::TokenizeParams& params);
  Status start(uint64_t id, const protocol::DetokenizeParams& params);
  Status start(uint64_t id, const protocol::TemplateParams& params);
  Status start(uint64_t id, const protocol::SplitParams& params);
  Status start(uint64_t id, const protocol::VerifyParams& params);
  Status start(uint64_t id, const protocol::StopParams& params);
  Status start(uint64_t id, const protocol::MeasureDiskParams& params);
  Status start(uint64_t id, const protocol::BenchStreamParams& params);
  Status start(uint64_t id, const protocol::BenchKernelsParams& params);
  Status start_text(uint64_t id, const std::string& model, engine::TextWork work);
  Result<engine::ModelRef> source_model(const protocol::SplitParams& params) const;
  std::shared_ptr<RemoteDirectory> owner_directory(const engine::ModelRef& model, bool opens_files,
                                                   const std::shared_ptr<JobBridge>& bridge);
  void keep(uint64_t id, Running running);
  Status check_split_limit() const;
  Status check_default(const std::string& name) const;
  Result<engine::FoundModel> find_to_change(const std::string& name, const std::string& verb);
  void log_end(const Running& running) const;

  Result<Json> answer(const protocol::ListParams& params);
  Result<Json> answer(const protocol::ShowParams& params);
  Result<Json> answer(const protocol::PsParams& params);
  Result<Json> answer(const protocol::RemoveParams& params);
  Result<Json> answer(const protocol::ShareParams& params);
  Result<Json> answer(const protocol::JobParams& params);
  Result<Json> answer(const protocol::StatusParams& params);
  Result<Json> answer(const protocol::DefaultParams& params);
  Result<Json> answer(const protocol::DoctorParams& params);
  Result<Json> answer(const protocol::UnknownMethod& unknown);

  void finish(uint64_t id, Result<Json> result);
  // A job that was not taken; that a limit was hit is logged.
  void refuse(uint64_t id, const Error& error);

  Context& context_;
  const std::shared_ptr<Outbox> outbox_;
  const User user_;
  std::map<uint64_t, Running> running_;
};

}  // namespace airllm::daemon
