// What compressed rows stand for.
#include "kernels/compressed.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/convert.h"

namespace airllm::kernels {
namespace {

float load_f16(const char* at, size_t index) { return load<NumberFormat::kF16>(at, index); }

void expand_q8_block(const Q8Row& row, size_t block, std::span<float> out) {
  const float scale = load_f16(row.scales, block);
  const int8_t* const codes = row.codes + block * kBlockNumbers;
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(codes[i]) * scale;
}

void expand_q4_block(const Q4Row& row, size_t block, std::span<float> out) {
  const size_t superblock = block * kBlockNumbers / kSuperblockNumbers;
  const float step = static_cast<float>(row.steps[block]) * load_f16(row.units, 2 * superblock);
  const float offset =
      static_cast<float>(row.offsets[block]) * load_f16(row.units, 2 * superblock + 1);
  const uint8_t* const pair = row.codes + block / 2 * kBlockNumbers;
  for (size_t i = 0; i < out.size(); ++i) {
    const int code = block % 2 == 0 ? pair[i] & 0xf : pair[i] >> 4;
    out[i] = static_cast<float>(code) * step + offset;
  }
}

void expand_nf4_block(const NF4Row& row, size_t block, std::span<float> out) {
  const float scale = load<NumberFormat::kF32>(row.scales, block / 2);
  const uint8_t* const pair = row.codes + block / 2 * kBlockNumbers;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = kNF4Values[static_cast<size_t>(block % 2 == 0 ? pair[i] & 0xf : pair[i] >> 4)] * scale;
  }
}

void expand_fp8_block(const FP8Row& row, size_t block, std::span<float> out) {
  const size_t begin = block * kBlockNumbers;
  const float scale = load<NumberFormat::kF32>(row.scales, begin / kFP8BlockNumbers);
  for (size_t i = 0; i < out.size(); ++i) out[i] = f8_e4m3_to_f32(row.codes[begin + i]) * scale;
}

}  // namespace

std::span<const float> expand_block(NumberFormat format, const char* row, size_t width,
                                    size_t block, std::span<float, kBlockNumbers> to) {
  const std::span<float> out = to.first(std::min(kBlockNumbers, width - block * kBlockNumbers));
  switch (format) {
    case NumberFormat::kQ8: expand_q8_block(q8_row(row, width), block, out); break;
    case NumberFormat::kQ4: expand_q4_block(q4_row(row, width), block, out); break;
    case NumberFormat::kNF4: expand_nf4_block(nf4_row(row, width), block, out); break;
    case NumberFormat::kFP8: expand_fp8_block(fp8_row(row, width), block, out); break;
    default: AIRLLM_CHECK(false);
  }
  return out;
}

void spoil(NumberFormat format, char* row, size_t width, size_t index) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const auto at = [row](const char* part) { return row + (part - row); };
  switch (format) {
    case NumberFormat::kQ8:
      return store<NumberFormat::kF16>(at(q8_row(row, width).scales), index / kBlockNumbers, kNaN);
    case NumberFormat::kQ4:  // the offsets' unit
      return store<NumberFormat::kF16>(at(q4_row(row, width).units),
                                       2 * (index / kSuperblockNumbers) + 1, kNaN);
    case NumberFormat::kNF4:
      return store<NumberFormat::kF32>(at(nf4_row(row, width).scales), index / kNF4BlockNumbers,
                                       kNaN);
    case NumberFormat::kFP8:
      return store<NumberFormat::kF32>(at(fp8_row(row, width).scales), index / kFP8BlockNumbers,
                                       kNaN);
    default: AIRLLM_CHECK(false);
  }
}

void compress_row_with_outliers(CompressRow* compress, NumberFormat format,
                                std::span<const size_t> index, std::span<float> numbers,
                                char* row) {
  constexpr float kLargestF16 = 65504;
  const size_t width = numbers.size();
  char* const outliers = row + outliers_offset(format, width);
  std::fill(row + row_bytes(format, width), outliers, '\0');
  std::vector<float> taken;
  for (const size_t i : index) taken.push_back(std::exchange(numbers[i], 0.0F));
  compress(format, numbers.data(), width, row);
  std::array<float, kBlockNumbers> storage;
  for (size_t j = 0; j < index.size(); ++j) {
    const std::span<const float> block =
        expand_block(format, row, width, index[j] / kBlockNumbers, storage);
    const float short_of = taken[j] - block[index[j] % kBlockNumbers];
    store<NumberFormat::kF16>(outliers, j, std::clamp(short_of, -kLargestF16, kLargestF16));
    numbers[index[j]] = taken[j];
  }
}

void add_outliers(NumberFormat format, const char* row, std::span<const size_t> index,
                  std::span<float> numbers) {
  const char* const outliers = row + outliers_offset(format, numbers.size());
  for (size_t j = 0; j < index.size(); ++j) {
    numbers[index[j]] += load<NumberFormat::kF16>(outliers, j);
  }
}

void expand_row(NumberFormat format, const char* row, std::span<float> out) {
  AIRLLM_CHECK(is_compressed(format));
  std::array<float, kBlockNumbers> numbers;
  for (size_t b = 0; b < blocks_of(out.size()); ++b) {
    std::ranges::copy(expand_block(format, row, out.size(), b, numbers),
                      out.begin() + static_cast<std::ptrdiff_t>(b * kBlockNumbers));
  }
}

}  // namespace airllm::kernels
