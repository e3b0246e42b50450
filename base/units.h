// Sizes and durations as people write them. K, M, G, T are binary (1K = 1024 bytes).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;
inline constexpr uint64_t kPageBytes = 4096;

// Bytes from "512K", "1.5G", "64MiB", "1048576"; upper or lower case, an optional "B" or "iB".
// Negative, empty, overflowing or unknown text is a kUsage error that quotes `text`.
Result<uint64_t> parse_size(std::string_view text);

// "1.5 GiB", "640 KiB", "12 B".
std::string format_size(uint64_t bytes);

}  // namespace airllm
