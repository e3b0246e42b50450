// What a bench of streaming has measured, and what is made of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json_fwd.h"

namespace airllm::schedule {

// A sweep, and the ceilings that were measured right behind it. Seconds, and bytes per second.
struct BenchRound {
  double seconds = 0;
  double waiting_seconds = 0;  // of the engine thread, for reading
  double reading_seconds = 0;  // in which at least one read was under way
  uint64_t disk_bytes = 0;     // weights that were used from disk
  uint64_t ram_bytes = 0;      // that lay in memory already
  double read_bytes = 0;       // that came from disk between the sweep's begin and its end
  double disk_ceiling = 0;
  std::optional<double> ram_ceiling;

  double computing_seconds() const;
  // Of the sweep.
  double disk_rate() const;
  // All weights that were multiplied, over the seconds of computing: what was read from disk has
  // to come from memory, too.
  double ram_rate() const;
};

// What is the same for all rounds.
struct BenchSetup {
  std::string model;
  std::string reader;  // of the sweeps, "io_uring" or "threads"
  std::string ceiling_reader;
  bool is_direct = false;
  bool streams = false;  // else sweeps read nothing but parts of the embedding for new tokens
  unsigned threads = 0;
  uint64_t ram_bytes = 0;           // of the budget, that the model has taken
  uint64_t resident_bytes = 0;      // weights in memory
  uint64_t ceiling_disk_bytes = 0;  // read for each ceiling
  uint64_t ceiling_ram_bytes = 0;   // summed for each
  std::optional<double> cold_sweep_seconds;
  uint64_t other_jobs = 0;  // the most at once that ran or waited beside it
  uint64_t lost_reads = 0;  // that were not recorded
};

// A rate; 0 where it took no time.
double over(double amount, double seconds);
// To the nearest integer.
uint64_t whole(double value);

enum class Bound : uint8_t { kDisk, kMemory, kCompute };
// "disk", "memory", "compute".
const char* bound_name(Bound bound);

struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};
// Of at least one value. The median of an even number is the mean of the two in the middle.
Spread spread_of(std::vector<double> values);

// Memory smaller than this may lie in the processor's caches, so that its rate bounds nothing.
inline constexpr uint64_t kBeyondCachesBytes = uint64_t{64} << 20;

// What keeps sweeps from being faster: the disk when reading at its ceiling takes as long as
// computing; else memory when computing takes its weights at 0.7 of memory's ceiling or more.
Bound what_bounds(const BenchSetup& setup, std::span<const BenchRound> rounds);

// The result of `airllm bench stream`, as airllm(1) describes it. At least one round.
Json bench_result(const BenchSetup& setup, std::span<const BenchRound> rounds);

}  // namespace airllm::schedule
