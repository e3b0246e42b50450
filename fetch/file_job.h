// Brings a file into descriptors, by several requests at once: the method "file".
#pragma once

#include <list>
#include <memory>
#include <optional>

#include "base/units.h"
#include "fetch/file_sink.h"
#include "fetch/source_job.h"

namespace airllm::fetch {

// The smallest window: less would mean a request for every few blocks.
inline constexpr uint64_t kMinWindow = kMiB;

class FileJob : public SourceJob {
 public:
  // `sink` is one for `params`, which are checked.
  FileJob(JobContext& context, uint64_t id, HubAccess hub, const protocol::FileParams& params,
          std::unique_ptr<FileSink> sink);
  ~FileJob() override;

  bool begin_transfer(Clock::time_point now) override;
  void look(Clock::time_point now) override;
  Clock::time_point next_look() const override;
  size_t transfers() const override { return transfers_.size() + (is_resolving() ? 1U : 0U); }
  bool is_short() const override { return false; }
  void grant(uint64_t limit) override;

 private:
  class Transfer;
  friend class Transfer;

  uint64_t size() const { return *wanted().size; }
  // Nothing is written at or behind this offset now.
  uint64_t allowed() const;
  uint64_t piece_bytes() const;
  // The upper half of what a slow transfer still has to bring.
  std::optional<Piece> part_of_slow_one(Clock::time_point now);
  bool begin_piece(const Piece& piece);
  // The server sends all of the file to `transfer`, which asked for a piece. Whether it goes on so.
  bool goes_on_with_all(Transfer& transfer);
  void on_transfer_end(Transfer& transfer, const HttpEnd& end);
  Failure of_disk(Error error) const;
  // `bytes` are written at `offset` of the piece. False when that failed.
  bool store(Piece& piece, uint64_t offset, std::span<const std::byte> bytes);
  void tell_progress(Clock::time_point now, bool is_due);
  void compare(const std::string& digest);

  std::unique_ptr<FileSink> sink_;
  const uint64_t window_;
  uint64_t limit_;
  std::list<std::unique_ptr<Transfer>> transfers_;
  bool saw_part_ = false;        // the server knows ranges
  bool sends_all_ = false;       // it does not
  size_t parallel_;              // transfers at once: less when the server complains
  double bytes_per_second_ = 0;  // of a transfer
  uint64_t unrewarded_ = 0;      // bytes that came since the patience was last renewed
  std::optional<Failure> disk_failure_;
  bool started_over_ = false;
  uint64_t told_prefix_ = 0;
  uint64_t told_received_ = 0;
  bool has_told_ = false;
  bool has_news_ = false;
  Clock::time_point told_at_{};
};

}  // namespace airllm::fetch
