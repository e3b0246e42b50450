// Brings a range of a file's bytes to the daemon: the method "read".
#pragma once

#include <optional>

#include "fetch/source_job.h"

namespace airllm::fetch {

// The longest range. A safetensors header may have 100 MB.
inline constexpr uint64_t kMaxReadBytes = 100'000'000 + 8;

class ReadJob : public SourceJob, private HttpReceiver {
 public:
  // The range is not empty, and not longer than kMaxReadBytes.
  ReadJob(JobContext& context, uint64_t id, HubAccess hub, const protocol::ReadParams& params)
      : SourceJob(context, id, std::move(hub), {params.name, params.size, {}, {}}),
        next_(params.offset),
        wanted_end_(params.offset + params.length) {}
  ~ReadJob() override;

  bool begin_transfer(Clock::time_point now) override;
  void look(Clock::time_point now) override;
  size_t transfers() const override {
    return (transfer_ == nullptr ? 0U : 1U) + (is_resolving() ? 1U : 0U);
  }

 private:
  bool on_head(const ResponseHead& head) override;
  Taken on_body(std::span<const std::byte> bytes) override;
  void on_end(const HttpEnd& end) override;
  uint64_t end() const { return std::min(wanted_end_, location()->size); }

  uint64_t next_;  // of the bytes to be sent
  const uint64_t wanted_end_;
  uint64_t received_ = 0;

  HttpClient::Transfer* transfer_ = nullptr;
  std::optional<Url> url_;
  std::optional<BodyPlace> place_;  // of the transfer's body
  uint64_t position_ = 0;           // of the body's next byte
  std::optional<Verdict> wrong_;    // what was wrong about the answer
};

}  // namespace airllm::fetch
