#include "client/bench_summary.h"

#include <array>
#include <cstdio>
#include <optional>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "client/table.h"

namespace airllm::client {
namespace {

// Memory smaller than this may lie in the processor's caches.
constexpr uint64_t kBeyondCachesBytes = 64 * kMiB;

template <typename... Values>
std::string print(const char* format, Values... values) {
  std::array<char, 160> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, values...);
  return buffer.data();
}

Json member(const Json& object, const char* key) {
  return object.is_object() ? object.value(key, Json()) : Json();
}

std::optional<double> number(const Json& object, const char* key) {
  const Json value = member(object, key);
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::string rate(const Json& tier, const char* key) {
  const std::optional<double> bytes_per_second = number(tier, key);
  return bytes_per_second ? print("%.2f GB/s", *bytes_per_second / 1e9) : "-";
}

// A median with the least and the most, by their keys.
std::string spread_text(const Json& object, const char* median_key, const char* least_key,
                        const char* most_key) {
  const std::optional<double> median = number(object, median_key);
  if (!median) return "-";
  return print("%.2f (%.2f to %.2f)", *median, number(object, least_key).value_or(0),
               number(object, most_key).value_or(0));
}

std::string tiers_text(const Json& tiers) {
  std::vector<std::vector<std::string>> rows{{"TIER", "A SWEEP", "RATE", "CEILING", "RATIO"}};
  for (const Json& tier : tiers) {
    rows.push_back({cell(tier, "name"), cell(tier, "bytes_per_sweep"),
                    rate(tier, "bytes_per_second"), rate(tier, "ceiling_bytes_per_second"),
                    spread_text(tier, "ratio", "ratio_min", "ratio_max")});
  }
  return format_table(rows);
}

std::string times_text(const Json& result) {
  const double sweep = number(result, "sweep_seconds").value_or(0);
  std::string out = print("sweep      %9.4f s   (%.4f to %.4f)\n", sweep,
                          number(result, "sweep_seconds_min").value_or(0),
                          number(result, "sweep_seconds_max").value_or(0));
  constexpr std::array<std::array<const char*, 3>, 3> kParts{{
      {"reading", "reading_seconds", "at least one read was under way"},
      {"waiting", "waiting_seconds", "for reads"},
      {"computing", "computing_seconds", "the rest"},
  }};
  for (const auto& [name, key, meaning] : kParts) {
    const double part = number(result, key).value_or(0);
    out += print("%-10s %9.4f s   %5.1f %%   %s\n", name, part,
                 sweep > 0 ? 100 * part / sweep : 0.0, meaning);
  }
  return out;
}

const char* bound_text(const Json& result) {
  const Json bound = member(result, "bound");
  if (bound == "disk")
    return "bound by the disk: reading at its ceiling takes longer than computing";
  if (bound == "memory")
    return "bound by memory: computing takes weights as fast as memory gives them";
  if (bound == "compute")
    return "bound by computing: neither the disk nor memory is at its ceiling";
  return "it is not told what bounds it";
}

Json tier_named(const Json& tiers, const char* name) {
  for (const Json& tier : tiers) {
    if (member(tier, "name") == name) return tier;
  }
  return {};
}

std::string how_text(const Json& result, const Json& tiers) {
  const Json disk = tier_named(tiers, "disk");
  const Json ram = tier_named(tiers, "ram");
  const bool is_direct = member(result, "direct") == true;
  std::string out = "sweeps:   one row each, read by " + cell(result, "reader") +
                    (is_direct ? ", past the page cache" : ", through the page cache") + "; " +
                    cell(result, "threads") + " threads; " + cell(ram, "resident_bytes") +
                    " of weights stay in memory, of " + cell(result, "ram_bytes") + " in all\n";
  out += "ceilings: behind each sweep " + cell(disk, "ceiling_bytes") +
         " of the same files were read by " + cell(result, "ceiling_reader") +
         " and not used,\n          and " + cell(ram, "ceiling_bytes") +
         " of resident weights summed\n";
  return out + "figures:  medians; of ratios, and of the sweep, the least and the most, too\n";
}

// Of what memory's ceiling was taken from.
std::string caches_text(uint64_t bytes) {
  if (bytes == 0 || bytes >= kBeyondCachesBytes) return {};
  return "not clean: the processor's caches may hold the " + format_size(bytes) +
         " that memory's ceiling was taken from\n";
}

std::string time_text(double seconds) {
  if (seconds < 1e-3) return print("%.1f us", seconds * 1e6);
  return print("%.2f ms", seconds * 1e3);
}

std::vector<std::string> operation_row(const Json& operation) {
  std::string name = cell(operation, "operation");
  if (const std::optional<double> positions = number(operation, "positions")) {
    name += print(", %.0f positions", *positions);
  }
  const std::optional<double> seconds = number(operation, "seconds");
  const std::optional<double> flop = number(operation, "flop_per_second");
  const auto limit_ratio = [&](const char* key) {
    return spread_text(member(operation, key), "median", "min", "max");
  };
  return {name,
          cell(operation, "format"),
          cell(operation, "rows"),
          seconds ? time_text(*seconds) : "-",
          rate(operation, "bytes_per_second"),
          limit_ratio("of_memory"),
          flop ? print("%.1f GFLOP/s", *flop / 1e9) : "-",
          limit_ratio("of_peak")};
}

std::string other_jobs_text(const Json& result) {
  const uint64_t others = count_of(result, "other_jobs");
  if (others == 0) return {};
  return "not clean: other jobs were at work meanwhile, " + std::to_string(others) +
         " at once; try again when airllm ps shows none\n";
}

std::string warnings_text(const Json& result, const Json& tiers) {
  std::string out = other_jobs_text(result);
  if (member(result, "direct") == false) {
    out +=
        "not clean: files are read through the page cache, so memory may have answered for the "
        "disk\n";
  }
  out += caches_text(count_of(tier_named(tiers, "ram"), "ceiling_bytes"));
  if (const uint64_t lost = count_of(result, "lost_reads"); lost > 0) {
    out += "not clean: " + std::to_string(lost) + " reads were too many to be recorded\n";
  }
  return out;
}

}  // namespace

std::string bench_stream_text(const Json& result) {
  Json tiers = member(result, "tiers");
  if (!tiers.is_array()) tiers = Json::array();
  std::string out = cell(result, "model") + ": " + cell(result, "sweeps") + " sweeps";
  if (const std::optional<double> cold = number(result, "cold_sweep_seconds")) {
    out += print("; one before them filled the memory in %.3f s", *cold);
  }
  out += "\n\n" + tiers_text(tiers) + "\n" + times_text(result) + bound_text(result) + "\n\n";
  return out + how_text(result, tiers) + warnings_text(result, tiers);
}

std::string bench_kernels_text(const Json& result) {
  std::vector<std::vector<std::string>> rows{
      {"OPERATION", "FORMAT", "ROWS", "TIME", "RATE", "OF MEMORY", "ARITHMETIC", "OF PEAK"}};
  const Json operations = member(result, "operations");
  if (operations.is_array()) {
    for (const Json& operation : operations) rows.push_back(operation_row(operation));
  }
  std::string out =
      cell(result, "backend") + ", " + cell(result, "threads") + " threads: memory " +
      rate(result, "memory_bytes_per_second") +
      print(", peak %.1f GFLOP/s\n\n", number(result, "peak_flop_per_second").value_or(0) / 1e9);
  out += format_table(rows) + "\n";
  out +=
      "rate:       of the weights, or keys and values, that a call reads; norm and activation: of "
      "rows\n"
      "memory:     a plain sum over " +
      cell(result, "memory_bytes") +
      ", which products of up to 16 rows read, too\n"
      "peak:       fused products and sums of f32 in registers\n"
      "figures:    medians of " +
      cell(result, "rounds") + " rounds; of ratios the least and the most, too\n";
  return out + other_jobs_text(result) + caches_text(count_of(result, "memory_bytes"));
}

}  // namespace airllm::client
