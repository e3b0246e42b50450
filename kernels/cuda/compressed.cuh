// Compressed rows (kernels/compressed.h) on a device. Their parts begin at any address, so that
// what is longer than a byte is put together of bytes.
#pragma once

#include "kernels/compressed.h"
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {

// Device code may use constants of the host, but not call what makes them.
template <NumberFormat F>
inline constexpr bool kIsCompressed = is_compressed(F);

// The little-endian number at `from`.
template <typename T>
__device__ inline T load_any(const char* from) {
  char bytes[sizeof(T)];
#pragma unroll
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = from[i];
  T number;
  memcpy(&number, bytes, sizeof(number));
  return number;
}

__device__ inline size_t cover(size_t count, size_t size) { return (count + size - 1) / size; }

// Code `i` of a row whose codes lie as q4's and nf4's do: 64 in 32 bytes, the first 32 in the lower
// halves.
__device__ inline unsigned half_byte(const char* row, size_t i) {
  const unsigned both = static_cast<unsigned char>(row[i / 64 * 32 + i % 32]);
  return i % 64 < 32 ? both & 15u : both >> 4;
}

struct NF4Table {
  float values[16];
};
constexpr NF4Table make_nf4_table() {
  NF4Table out{};
  for (size_t i = 0; i < 16; ++i) out.values[i] = kNF4Values[i];
  return out;
}
__constant__ const NF4Table kNF4OnDevice = make_nf4_table();

// E4M3 without infinity: f16 has its bits one place further down, and an exponent that is 8 larger.
__device__ inline float widen_fp8(unsigned code) {
  const unsigned bits = (code & 0x80u) << 8 | (code & 0x7fu) << 7;
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits))) * 256;
}

// Numbers [begin, begin + count) of a row of `width`, count <= 8; begin is a multiple of 8.
template <NumberFormat F>
__device__ inline void expand(const char* row, size_t width, size_t begin, size_t count,
                              float (&out)[8]) {
  const size_t block = begin / kBlockNumbers;
  float scale = 0, offset = 0;
  if constexpr (F == NumberFormat::kQ8) {
    scale = __half2float(load_any<__half>(row + width + block * sizeof(__half)));
  } else if constexpr (F == NumberFormat::kQ4) {
    const size_t blocks = cover(width, kBlockNumbers);
    const char* const steps = row + cover(width, 2 * kBlockNumbers) * kBlockNumbers;
    const char* const offsets = steps + blocks;
    const char* const units = offsets + blocks + begin / kSuperblockNumbers * 2 * sizeof(__half);
    scale = static_cast<float>(static_cast<unsigned char>(steps[block])) *
            __half2float(load_any<__half>(units));
    offset = static_cast<float>(static_cast<signed char>(offsets[block])) *
             __half2float(load_any<__half>(units + sizeof(__half)));
  } else if constexpr (F == NumberFormat::kNF4) {
    const char* const scales = row + cover(width, kNF4BlockNumbers) * (kNF4BlockNumbers / 2);
    scale = load_any<float>(scales + begin / kNF4BlockNumbers * sizeof(float));
  } else {
    scale = load_any<float>(row + width + begin / kFP8BlockNumbers * sizeof(float));
  }
#pragma unroll
  for (size_t i = 0; i < 8; ++i) {
    if (i >= count) break;
    if constexpr (F == NumberFormat::kQ8) {
      out[i] = static_cast<float>(static_cast<signed char>(row[begin + i])) * scale;
    } else if constexpr (F == NumberFormat::kQ4) {
      out[i] = static_cast<float>(half_byte(row, begin + i)) * scale + offset;
    } else if constexpr (F == NumberFormat::kNF4) {
      out[i] = kNF4OnDevice.values[half_byte(row, begin + i)] * scale;
    } else {
      out[i] = widen_fp8(static_cast<unsigned char>(row[begin + i])) * scale;
    }
  }
}

}  // namespace airllm::kernels::cuda
