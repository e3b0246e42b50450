// Tables of rows of three code points: the first and the last of a range, in order, and what they
// are. The tables are generated.
#pragma once

#include <cstddef>
#include <span>

namespace airllm::text {

// What the table says of `c`; 0 where no range holds it.
inline char32_t value_in_ranges(std::span<const char32_t> rows, char32_t c) {
  constexpr size_t kRow = 3;
  size_t low = 0;
  size_t high = rows.size() / kRow;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const std::span<const char32_t> row = rows.subspan(middle * kRow, kRow);
    if (c < row[0]) {
      high = middle;
    } else if (c > row[1]) {
      low = middle + 1;
    } else {
      return row[2];
    }
  }
  return 0;
}

}  // namespace airllm::text
