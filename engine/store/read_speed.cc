#include "engine/store/read_speed.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::store {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kLongest = std::chrono::seconds(1);
constexpr uint64_t kMostBytes = 64 * kMiB;
constexpr uint64_t kReadBytes = 4 * kMiB;
constexpr uint64_t kScratchBytes = 8 * kMiB;
constexpr const char* kScratchName = "/speed-test";

struct AlignedFree {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::byte, AlignedFree>;

Result<std::unique_ptr<DiskFile>> longest_file(Disk& disk, const std::string& folder) {
  std::unique_ptr<DiskFile> longest;
  uint64_t most = 0;
  if (folder.empty()) return longest;
  AIRLLM_TRY(const std::vector<DirEntry> entries, disk.list(folder));
  for (const DirEntry& entry : entries) {
    if (entry.is_directory) continue;
    AIRLLM_TRY(std::unique_ptr<DiskFile> file,
               disk.open(folder + "/" + entry.name, OpenMode::kReadDirect));
    AIRLLM_TRY(const uint64_t bytes, file->size_bytes());
    if (bytes <= most) continue;
    most = bytes;
    longest = std::move(file);
  }
  return longest;
}

Status write_scratch(Disk& disk, const std::string& path, std::byte* buffer) {
  std::fill_n(buffer, kReadBytes, std::byte{0x5a});
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kCreate));
  for (uint64_t at = 0; at < kScratchBytes; at += kReadBytes) {
    AIRLLM_TRY_VOID(file->write_at(at, {buffer, kReadBytes}));
  }
  return file->sync();
}

Result<ReadSpeed> read_for_a_while(const DiskFile& file, std::byte* buffer,
                                   const std::stop_token& stop) {
  AIRLLM_TRY(const uint64_t size, file.size_bytes());
  ReadSpeed speed{file.path(), 0, 0, file.is_direct()};
  const Clock::time_point start = Clock::now();
  const uint64_t end = std::min(size, kMostBytes);
  while (speed.bytes < end && Clock::now() - start < kLongest) {
    if (stop.stop_requested()) return Unexpected(ErrorCode::kCancelled, "cancelled");
    const uint64_t bytes = std::min(kReadBytes, end - speed.bytes);
    const uint64_t wanted = file.is_direct() ? round_up(bytes, kPageBytes) : bytes;
    AIRLLM_TRY_VOID(file.read_at(speed.bytes, {buffer, wanted}));
    speed.bytes += bytes;
  }
  speed.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return speed;
}

Result<ReadSpeed> measure_scratch(Disk& disk, const std::string& path, std::byte* buffer,
                                  const std::stop_token& stop) {
  AIRLLM_TRY_VOID(write_scratch(disk, path, buffer));
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kReadDirect));
  return read_for_a_while(*file, buffer, stop);
}

}  // namespace

Result<ReadSpeed> measure_read_speed(Disk& disk, const std::string& folder,
                                     const std::string& scratch_folder,
                                     const std::stop_token& stop) {
  const Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kReadBytes)));
  if (!buffer) return Unexpected(ErrorCode::kOs, "no memory for reading from " + scratch_folder);
  AIRLLM_TRY(const std::unique_ptr<DiskFile> longest, longest_file(disk, folder));
  if (longest) return read_for_a_while(*longest, buffer.get(), stop);
  const std::string path = scratch_folder + kScratchName;
  Result<ReadSpeed> speed = measure_scratch(disk, path, buffer.get(), stop);
  // One that could not even be made is not there to be removed.
  if (disk.exists(path)) AIRLLM_TRY_VOID(disk.remove_file(path));
  return speed;
}

}  // namespace airllm::store
