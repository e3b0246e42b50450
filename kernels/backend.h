// A Backend is the table of operations of one instruction set. It is chosen once at start.
//
// Every operation is deterministic: a row's result depends on that row alone, never on the number
// of rows, on threads, or on how the caller cuts a weight into tiles. Activations are f32. Weights
// are used as they are stored and may begin at any address that is a multiple of their element.
//
// Rows, weights, and pages of keys and values lie in the memory of what computes. The small arrays
// that say how (positions, frequencies, slopes, tables of pages, indices) are the host's, and are
// done with when a call returns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kernels/number_format.h"
#include "kernels/thread_pool.h"

namespace airllm::kernels {

// y[r, o] = (accumulate ? y[r, o] : 0) + sum over i of x[r, i] * weight[o, i]
struct MatmulArgs {
  const float* x = nullptr;  // [rows, in], rows x_stride floats apart
  size_t x_stride = 0;
  const void* weight = nullptr;  // [out, in], row-major, as stored
  NumberFormat format = NumberFormat::kF32;
  size_t weight_stride = 0;  // bytes from one row of the weight to the next; 0: no gaps
  float* y = nullptr;        // [rows, out], rows y_stride floats apart
  size_t y_stride = 0;
  size_t rows = 0, in = 0, out = 0;
  bool accumulate = false;
  // Of compressed weights: what prepare() has made of x, which is not looked at then, where
  // prepared_bytes(in) is not 0.
  const void* prepared = nullptr;
};

static inline size_t weight_stride(const MatmulArgs& args) {
  return args.weight_stride != 0 ? args.weight_stride : row_bytes(args.format, args.in);
}

// Every group of a row is normalised by itself: y = (x - mean) / sqrt(variance + epsilon) times
// (weight + weight_offset), the variance over the group's numbers, 1 / width each (layer norm,
// arXiv 1607.06450); or with 0 for the mean (RMSNorm, arXiv 1910.07467). y may be x.
struct NormArgs {
  enum class Kind : uint8_t { kRms, kLayer };

  Kind kind = Kind::kRms;
  const float* x = nullptr;  // [rows, groups, width], rows x_stride floats apart
  size_t x_stride = 0;
  const void* weight = nullptr;  // [width], of every group; null: none, as if all were 1
  NumberFormat format = NumberFormat::kF32;
  float weight_offset = 0;
  float* y = nullptr;  // [rows, groups, width], rows y_stride floats apart
  size_t y_stride = 0;
  size_t rows = 0, groups = 1, width = 0;
  float epsilon = 0;
};

// Rotates the first rotary_dim numbers of every head in place (RoPE, arXiv 2104.09864). Pairs are
// (i, i + rotary_dim / 2), the half-split order of Hugging Face, or (2 i, 2 i + 1).
struct RopeArgs {
  float* x = nullptr;  // [rows, heads, head_dim], rows x_stride floats apart
  size_t x_stride = 0;
  const uint32_t* positions = nullptr;         // [rows]
  const float* inverse_frequencies = nullptr;  // [rotary_dim / 2], radians per position
  float scale = 1;                             // multiplies sine and cosine (1 but for yarn-like)
  bool interleaved = false;                    // pairs are neighbours
  size_t rows = 0, heads = 0, head_dim = 0, rotary_dim = 0;
};

// Positions of keys and values that one page holds. Attention reduces over whole pages in order of
// position, so results do not depend on how a prompt was cut into chunks.
inline constexpr size_t kKvPagePositions = 32;

// One row's view of its sequence's keys and values in one layer.
struct AttentionRow {
  // Page p holds positions [32 p, 32 p + 32): k [kv_heads, 32, head_dim], then v [kv_heads, 32,
  // value_dim], unless values lie in the keys.
  const float* const* pages = nullptr;
  uint32_t position = 0;  // this row attends to positions 0 … position
};

// Causal attention by online softmax, page by page (arXiv 2205.14135): O(value_dim) memory per row
// and head, never rows × context. The score of a row at position i with the key at position j is
// q . k * scale; with a soft cap, cap * tanh(that / cap) (Gemma 2, arXiv 2408.00118); with slopes,
// that + slope * (j - i) (ALiBi, arXiv 2108.12409).
struct AttentionArgs {
  const float* q = nullptr;  // [rows, heads, head_dim], rows q_stride floats apart
  size_t q_stride = 0;
  float* out = nullptr;                                    // [rows, heads, value_dim]
  const AttentionRow* attention_rows = nullptr;            // [rows]
  size_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;  // kv_heads divides heads
  size_t value_dim = 0;                                    // numbers of one value
  // A value is the first value_dim numbers of its key, and pages hold keys alone.
  bool values_in_keys = false;
  float scale = 0;     // usually 1 / sqrt(head_dim)
  size_t window = 0;   // a row attends to this many positions, itself the last; 0: to all
  float soft_cap = 0;  // 0: none
  const float* slopes = nullptr;  // [heads], or null: none
  // As Falcon adds its biases: bf16(bf16(slope) * bf16(j)) before the score is scaled.
  bool bf16_biases = false;
};

// What maps one number to another.
enum class Function : uint8_t {
  kSilu,         // x / (1 + exp(-x))
  kGelu,         // x * (1 + erf(x / sqrt(2))) / 2
  kGeluTanh,     // x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2
  kRelu,         // max(x, 0)
  kReluSquared,  // max(x, 0)^2
  kXielu,        // x > 0 ? a x^2 + c x : (expm1(min(x, d)) - x) b + c x     (arXiv 2411.13010)
  kScale,        // a x
  kClamp,        // min(max(x, -a), a)
  kSoftCap,      // a tanh(x / a)
};

// x[r, i] = f(x[r, i]), or with a factor f(x[r, i]) * factor[r, i].
struct MapArgs {
  Function function = Function::kSilu;
  float a = 0, b = 0, c = 0, d = 0;  // of the function
  float* x = nullptr;                // [rows, width], rows x_stride floats apart
  size_t x_stride = 0;
  const float* factor = nullptr;  // [rows, width], rows factor_stride floats apart; or null
  size_t factor_stride = 0;
  size_t rows = 0, width = 0;
};

// y[r, i] += factor * x[r, i]
struct AddArgs {
  const float* x = nullptr;  // [rows, width], rows x_stride floats apart
  size_t x_stride = 0;
  float* y = nullptr;  // [rows, width], rows y_stride floats apart
  size_t y_stride = 0;
  size_t rows = 0, width = 0;
  float factor = 1;
};

// y[r, i] = x[index[r], i]; without an index x[r, i]; without an x 0. They do not overlap.
struct CopyArgs {
  const float* x = nullptr;  // [.., width], rows x_stride floats apart; or null
  size_t x_stride = 0;
  const size_t* index = nullptr;  // [rows], or null
  float* y = nullptr;             // [rows, width], rows y_stride floats apart
  size_t y_stride = 0;
  size_t rows = 0, width = 0;
};

struct Backend {
  const char* name;  // one of kBackendNames, of the CPU

  void (*matmul)(const MatmulArgs&, ThreadPool&);
  // Bytes of what a product with compressed weights takes of one row of `in` inputs, a multiple of
  // 64; 0 where it takes the row itself.
  size_t (*prepared_bytes)(size_t in);
  // Makes it of args.x, for the products of these rows with any compressed weights; `prepared` has
  // prepared_bytes(in) for each of the rows and is aligned to 64. Only x, rows and in are looked
  // at.
  void (*prepare)(const MatmulArgs&, void* prepared, ThreadPool&);
  // y[r, i] += sum over o of x[r, o] * weight[o, i], in the order of o; x [rows, out], y [rows,
  // in], weight [out, in] as for matmul without gaps; accumulate is not looked at.
  void (*matmul_transposed)(const MatmulArgs&, ThreadPool&);
  void (*norm)(const NormArgs&, ThreadPool&);
  void (*rope)(const RopeArgs&, ThreadPool&);
  void (*attention)(const AttentionArgs&, ThreadPool&);
  void (*map)(const MapArgs&, ThreadPool&);
  void (*add)(const AddArgs&, ThreadPool&);
  void (*copy)(const CopyArgs&, ThreadPool&);
  // x[r, i] += bias[i]; x [rows, width], rows x_stride floats apart
  void (*add_bias)(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
                   size_t width, ThreadPool&);
  // Makes a row of a compressed format of `numbers`, all finite; [width], `out` has
  // row_bytes(format, width). A number beyond what f16 scales reach is cut off there; a block of
  // zeros stays zero. Both are the host's, and the bytes are those of every other backend.
  void (*compress_row)(NumberFormat format, const float* numbers, size_t width, char* out);
  // out[i] = number i of `in` as f32; [count], of a compressed format one whole row. Both are the
  // host's.
  void (*to_f32)(const void* in, NumberFormat format, float* out, size_t count);
  // Products of f32 that are added up in registers, as fast as one core can; returns how many
  // operations, a product and its sum being two. To measure by; null on a device.
  uint64_t (*burn)(uint64_t rounds);
};

// The most that any backend's prepared_bytes(in) is: 2.25 bytes for each number of whole
// superblocks.
constexpr size_t most_prepared_bytes(size_t in) {
  return blocks_of(in, kSuperblockNumbers) * kSuperblockNumbers / 4 * 9;
}

// The reference: plain loops, in the order of the formulas. Stays for ever.
const Backend& scalar_backend();
// Null where this build or this CPU has not got it. All of AVX-512's results have the bits of
// AVX2's.
const Backend* avx2_backend();
const Backend* avx512_backend();

// Those of the CPU, the better ones last.
inline constexpr std::array kBackendNames = {"scalar", "avx2", "avx512"};
// Null where the name is unknown, or this build or this CPU has not got it.
const Backend* find_backend(std::string_view name);
// The best of this CPU.
const Backend& best_backend();

// The best backend of this CPU, or the one of kBackendNames that the environment variable
// AIRLLM_CPU names. A name that is unknown or that this CPU cannot run is a kConfig error.
Result<const Backend*> choose_backend();

// Why choose_backend() takes the backend `name` here, for people.
std::string backend_reason(std::string_view name);

}  // namespace airllm::kernels
