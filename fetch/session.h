// One connection of a daemon: its requests, worked on side by side, and their events.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/descriptor_passing.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fetch/job.h"
#include "fetch/options.h"
#include "protocol/framing.h"

namespace airllm::fetch {

// Requests that run at once; a file takes two threads.
inline constexpr size_t kMaxJobs = 64;

// Belongs to one thread.
class Session {
 public:
  // `own_token` is the service's; empty: it has none.
  Session(UniqueFd socket, const Options& options, Secret own_token);
  ~Session();

  // Serves until the daemon is gone, which is no error, or breaks the protocol, which is.
  Status run();

 private:
  Status read_bytes();
  Status take_frames();
  Status take_message(protocol::ToFetch message, std::vector<UniqueFd> descriptors);
  Status take_hello(const protocol::Hello& hello);
  Status take_settings(const protocol::FetchSettings& settings);
  Status take_request(protocol::FetchRequest request, std::vector<UniqueFd> descriptors);
  std::unique_ptr<Job> begin(protocol::FetchRequest& request, std::vector<UniqueFd> descriptors,
                             Failure& failed);
  Result<std::unique_ptr<Job>> begin_file(uint64_t id, HubAccess hub,
                                          const protocol::FileParams& params,
                                          std::vector<UniqueFd> descriptors);
  Result<HubAccess> access(protocol::Repository& from);
  Job* find(uint64_t id) const;

  void begin_transfers(Clock::time_point now);
  void look_after_jobs(Clock::time_point now);
  void wait();

  UniqueFd socket_;
  const Options& options_;
  const Secret own_token_;
  HttpClient http_;
  Replies replies_;
  JobContext context_;
  std::vector<std::unique_ptr<Job>> jobs_;  // in the order of their requests

  std::vector<char> buffer_;
  protocol::FrameReader frames_;
  DescriptorQueue descriptors_;
  uint64_t received_bytes_ = 0;
  bool heard_hello_ = false;
  bool is_gone_ = false;
};

}  // namespace airllm::fetch
