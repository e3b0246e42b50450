// Lists a repository: the method "repository".
#pragma once

#include <optional>
#include <string>

#include "fetch/job.h"

namespace airllm::fetch {

class RepositoryJob : public Job, private HttpReceiver {
 public:
  RepositoryJob(JobContext& context, uint64_t id, HubAccess hub)
      : Job(context, id, std::move(hub)) {}
  ~RepositoryJob() override;

  bool begin_transfer(Clock::time_point now) override;
  void look(Clock::time_point) override {}
  size_t transfers() const override { return transfer_ == nullptr ? 0 : 1; }

 private:
  bool on_head(const ResponseHead& head) override;
  Taken on_body(std::span<const std::byte> bytes) override;
  void on_end(const HttpEnd& end) override;
  void follow(const Url& target);
  void tell();

  HttpClient::Transfer* transfer_ = nullptr;
  std::optional<Url> url_;
  int redirects_ = 0;
  std::string body_;
  std::optional<Failure> refused_;  // why the body is not taken
};

}  // namespace airllm::fetch
