// The operations of each instruction set of the CPU, as backend.h describes them. The avx2 and the
// avx512 ones exist only where the build has AIRLLM_KERNELS_X86.
//
// Files compiled for more than the base instruction set must not emit inline functions that other
// files emit too (of the standard library, of ours): the linker keeps one copy of each, and the CPU
// at hand might not run it. So they use intrinsics, static functions and loops, and little else.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace airllm::kernels {

namespace scalar {
void matmul(const MatmulArgs& args, ThreadPool& pool);
void matmul_transposed(const MatmulArgs& args, ThreadPool& pool);
size_t prepared_bytes(size_t in);
void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool);
void norm(const NormArgs& args, ThreadPool& pool);
void rope(const RopeArgs& args, ThreadPool& pool);
void attention(const AttentionArgs& args, ThreadPool& pool);
void map(const MapArgs& args, ThreadPool& pool);
void add(const AddArgs& args, ThreadPool& pool);
void copy(const CopyArgs& args, ThreadPool& pool);
void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool);
void compress_row(NumberFormat format, const float* numbers, size_t width, char* out);
void to_f32(const void* in, NumberFormat format, float* out, size_t count);
uint64_t burn(uint64_t rounds);
}  // namespace scalar

namespace avx2 {
void matmul(const MatmulArgs& args, ThreadPool& pool);
void matmul_compressed(const MatmulArgs& args, ThreadPool& pool);
void matmul_fp8(const MatmulArgs& args, ThreadPool& pool);
void matmul_transposed(const MatmulArgs& args, ThreadPool& pool);
size_t prepared_bytes(size_t in);
void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool);
void norm(const NormArgs& args, ThreadPool& pool);
void rope(const RopeArgs& args, ThreadPool& pool);
void attention(const AttentionArgs& args, ThreadPool& pool);
void map(const MapArgs& args, ThreadPool& pool);
void add(const AddArgs& args, ThreadPool& pool);
void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool);
void compress_row(NumberFormat format, const float* numbers, size_t width, char* out);
void to_f32(const void* in, NumberFormat format, float* out, size_t count);
uint64_t burn(uint64_t rounds);
}  // namespace avx2

// What differs from avx2's; that is of the same bits. Prepared inputs have as many bytes, in
// another order.
namespace avx512 {
void matmul(const MatmulArgs& args, ThreadPool& pool);
void matmul_compressed(const MatmulArgs& args, ThreadPool& pool);
void matmul_fp8(const MatmulArgs& args, ThreadPool& pool);
void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool);
uint64_t burn(uint64_t rounds);
}  // namespace avx512

// The first position that a row at `position` attends to.
static inline size_t first_position(const AttentionArgs& args, size_t position) {
  return args.window == 0 || position < args.window ? 0 : position - args.window + 1;
}

// One key head's view of one page; positions [first, end) of it count, and only they are read.
struct KvPage {
  const float* k;  // [32, head_dim]
  const float* v;  // [32, value_dim], positions v_stride floats apart
  size_t v_stride;
  size_t number;
  size_t first, end;
};

static inline KvPage view_page(const AttentionArgs& args, const AttentionRow& row, size_t number,
                               size_t kv_head) {
  const size_t k_floats = kKvPagePositions * args.head_dim;
  const size_t v_floats = kKvPagePositions * args.value_dim;
  const size_t begin = number * kKvPagePositions, left = row.position - begin + 1;
  const size_t first = first_position(args, row.position);
  const float* memory = row.pages[number];
  KvPage page;
  page.k = memory + kv_head * k_floats;
  page.v = args.values_in_keys ? page.k : memory + args.kv_heads * k_floats + kv_head * v_floats;
  page.v_stride = args.values_in_keys ? args.head_dim : args.value_dim;
  page.number = number;
  page.first = first > begin ? first - begin : 0;
  page.end = left < kKvPagePositions ? left : kKvPagePositions;
  return page;
}

static inline float round_to_bf16(float number) {
  uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof(bits));
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;  // to nearest, ties to even
  __builtin_memcpy(&number, &bits, sizeof(bits));
  return number;
}

// What the slopes add to the score of the row at `position` with the key at `key_position`.
static inline float position_bias(const AttentionArgs& args, size_t head, size_t position,
                                  size_t key_position) {
  if (args.bf16_biases) {
    const float where = round_to_bf16(static_cast<float>(key_position));
    return round_to_bf16(round_to_bf16(args.slopes[head]) * where) * args.scale;
  }
  return args.slopes[head] * -static_cast<float>(position - key_position);
}

// The least work, in elementary steps, that is worth giving to another thread: waking one that
// spins costs about a microsecond.
inline constexpr size_t kMinStepsPerChunk = 16384;

// The fewest items of `steps_per_item` steps each that are worth a chunk, a multiple of `multiple`.
static inline size_t grain_for(size_t steps_per_item, size_t multiple) {
  const size_t items = kMinStepsPerChunk / (steps_per_item == 0 ? 1 : steps_per_item) + 1;
  return (items - 1) / multiple * multiple + multiple;
}

// Calls body(row, first, end) for the numbers [begin, end) of rows that are `width` long each.
template <typename Body>
static inline void for_each_row(size_t begin, size_t end, size_t width, const Body& body) {
  while (begin < end) {
    const size_t row = begin / width, first = begin % width;
    const size_t count = width - first < end - begin ? width - first : end - begin;
    body(row, first, first + count);
    begin += count;
  }
}

}  // namespace airllm::kernels
