// A job on one file of a repository: knows where its bytes are, and asks again when they moved.
#pragma once

#include <memory>
#include <optional>

#include "fetch/job.h"
#include "fetch/resolver.h"

namespace airllm::fetch {

class SourceJob : public Job {
 public:
  SourceJob(JobContext& context, uint64_t id, HubAccess hub, WantedFile wanted)
      : Job(context, id, std::move(hub)),
        wanted_(std::move(wanted)),
        resolver_(context.http, hub_, wanted_,
                  [this](Resolver::Answer answer, Clock::time_point began) {
                    on_resolved(std::move(answer), began);
                  }) {}

 protected:
  // Begins to find out where the bytes are, unless that is known or under way.
  bool begin_resolving(Clock::time_point now);
  bool is_resolving() const { return is_resolving_; }
  const std::optional<FileLocation>& location() const { return location_; }
  const WantedFile& wanted() const { return wanted_; }

  // A request for bytes at the location.
  HttpRequest data_request(std::optional<HttpRequest::Range> range) const;
  // Bytes came from the location.
  void location_works();
  // What the end of a request for bytes, which was sent to `url`, means.
  Verdict judge_data(const HttpEnd& end, const Url& url) const;
  // Follows, waits or fails as the verdict says.
  void heed(const Verdict& verdict, const Url& url, Clock::time_point began);

 private:
  void on_resolved(Resolver::Answer answer, Clock::time_point began);

  const WantedFile wanted_;
  Resolver resolver_;
  bool is_resolving_ = false;
  std::optional<FileLocation> location_;
  bool location_worked_ = false;
  int redirects_ = 0;
};

}  // namespace airllm::fetch
