#include "engine/schedule/bench_result.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/check.h"
#include "base/json.h"

namespace airllm::schedule {
namespace {

// A product over weights does more than read them, so one at this share of the plain sum's rate is
// as good as bound by memory.
constexpr double kMemoryBoundShare = 0.7;

// Of what `value` makes of each round.
template <typename Value>
Spread spread(std::span<const BenchRound> rounds, const Value& value) {
  std::vector<double> values;
  values.reserve(rounds.size());
  for (const BenchRound& round : rounds) values.push_back(value(round));
  return spread_of(std::move(values));
}

// A rate beside its ceiling in each round.
template <typename Rate, typename Ceiling>
void put_rates(Json& tier, std::span<const BenchRound> rounds, const Rate& rate,
               const Ceiling& ceiling) {
  const Spread ratio =
      spread(rounds, [&](const BenchRound& round) { return over(rate(round), ceiling(round)); });
  tier["bytes_per_second"] = whole(spread(rounds, rate).median);
  tier["ceiling_bytes_per_second"] = whole(spread(rounds, ceiling).median);
  tier["ratio"] = ratio.median;
  tier["ratio_min"] = ratio.least;
  tier["ratio_max"] = ratio.most;
}

void clear(Json& tier, std::initializer_list<const char*> keys) {
  for (const char* key : keys) tier[key] = nullptr;
}

Json disk_tier(const BenchSetup& setup, std::span<const BenchRound> rounds) {
  const auto used = [](const BenchRound& r) { return static_cast<double>(r.disk_bytes); };
  Json tier{{"name", "disk"}, {"bytes_per_sweep", whole(spread(rounds, used).median)}};
  put_rates(
      tier, rounds, [](const BenchRound& r) { return r.disk_rate(); },
      [](const BenchRound& r) { return r.disk_ceiling; });
  if (!setup.streams) clear(tier, {"ratio", "ratio_min", "ratio_max"});
  tier["ceiling_bytes"] = setup.ceiling_disk_bytes;
  return tier;
}

Json ram_tier(const BenchSetup& setup, std::span<const BenchRound> rounds) {
  const auto used = [](const BenchRound& r) {
    return static_cast<double>(r.disk_bytes + r.ram_bytes);
  };
  Json tier{{"name", "ram"}, {"bytes_per_sweep", whole(spread(rounds, used).median)}};
  const bool has_ceiling = std::all_of(
      rounds.begin(), rounds.end(), [](const BenchRound& r) { return r.ram_ceiling.has_value(); });
  put_rates(
      tier, rounds, [](const BenchRound& r) { return r.ram_rate(); },
      [](const BenchRound& r) { return r.ram_ceiling.value_or(0); });
  if (!has_ceiling) clear(tier, {"ceiling_bytes_per_second", "ratio", "ratio_min", "ratio_max"});
  tier["ceiling_bytes"] = setup.ceiling_ram_bytes;
  tier["resident_bytes"] = setup.resident_bytes;
  return tier;
}

Json run_of(const BenchRound& round) {
  return {{"seconds", round.seconds},
          {"reading_seconds", round.reading_seconds},
          {"waiting_seconds", round.waiting_seconds},
          {"computing_seconds", round.computing_seconds()},
          {"disk_bytes", round.disk_bytes},
          {"ram_bytes", round.ram_bytes},
          {"disk_bytes_per_second", whole(round.disk_rate())},
          {"disk_ceiling_bytes_per_second", whole(round.disk_ceiling)},
          {"ram_bytes_per_second", whole(round.ram_rate())},
          {"ram_ceiling_bytes_per_second",
           round.ram_ceiling ? Json(whole(*round.ram_ceiling)) : Json()}};
}

}  // namespace

double BenchRound::computing_seconds() const { return std::max(seconds - waiting_seconds, 0.0); }

double BenchRound::disk_rate() const { return over(read_bytes, seconds); }

double BenchRound::ram_rate() const {
  return over(static_cast<double>(disk_bytes + ram_bytes), computing_seconds());
}

const char* bound_name(Bound bound) {
  switch (bound) {
    case Bound::kDisk: return "disk";
    case Bound::kMemory: return "memory";
    case Bound::kCompute: return "compute";
  }
  return "?";
}

double over(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

uint64_t whole(double value) { return static_cast<uint64_t>(std::llround(value)); }

Spread spread_of(std::vector<double> values) {
  AIRLLM_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

Bound what_bounds(const BenchSetup& setup, std::span<const BenchRound> rounds) {
  const double computing =
      spread(rounds, [](const BenchRound& r) { return r.computing_seconds(); }).median;
  const double reading = spread(rounds, [](const BenchRound& r) {
                           return over(static_cast<double>(r.disk_bytes), r.disk_ceiling);
                         }).median;
  if (reading >= computing) return Bound::kDisk;
  const double share = spread(rounds, [](const BenchRound& r) {
                         return over(r.ram_rate(), r.ram_ceiling.value_or(0));
                       }).median;
  const bool is_memory = setup.ceiling_ram_bytes >= kBeyondCachesBytes;
  return is_memory && share >= kMemoryBoundShare ? Bound::kMemory : Bound::kCompute;
}

Json bench_result(const BenchSetup& setup, std::span<const BenchRound> rounds) {
  const Spread sweep = spread(rounds, [](const BenchRound& r) { return r.seconds; });
  const auto median = [&](const auto& value) { return spread(rounds, value).median; };
  Json runs = Json::array();
  for (const BenchRound& round : rounds) runs.push_back(run_of(round));
  return {
      {"model", setup.model},
      {"sweeps", rounds.size()},
      {"cold_sweep_seconds", setup.cold_sweep_seconds ? Json(*setup.cold_sweep_seconds) : Json()},
      {"sweep_seconds", sweep.median},
      {"sweep_seconds_min", sweep.least},
      {"sweep_seconds_max", sweep.most},
      {"reading_seconds", median([](const BenchRound& r) { return r.reading_seconds; })},
      {"waiting_seconds", median([](const BenchRound& r) { return r.waiting_seconds; })},
      {"computing_seconds", median([](const BenchRound& r) { return r.computing_seconds(); })},
      {"bound", bound_name(what_bounds(setup, rounds))},
      {"tiers", Json::array({disk_tier(setup, rounds), ram_tier(setup, rounds)})},
      {"reader", setup.reader},
      {"ceiling_reader", setup.ceiling_reader},
      {"direct", setup.is_direct},
      {"streams", setup.streams},
      {"threads", setup.threads},
      {"ram_bytes", setup.ram_bytes},
      {"other_jobs", setup.other_jobs},
      {"lost_reads", setup.lost_reads},
      {"runs", std::move(runs)}};
}

}  // namespace airllm::schedule
