// A Backend is the table of operations of one instruction set. It is chosen once at start.
//
// Every operation is deterministic: a row's result depends on that row alone, never on the number
// of rows, on threads, or on how the caller cuts a weight into tiles. Activations are f32. Weights
// are used as they are stored and may begin at any address that is a multiple of their element.
#pragma once

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
  float* y = nullptr;  // [rows, out], rows y_stride floats apart
  size_t y_stride = 0;
  size_t rows = 0, in = 0, out = 0;
  bool accumulate = false;
};

// y[r, i] = x[r, i] / sqrt(mean over i of x[r, i]^2 + epsilon) * weight[i]      (RMSNorm,
// arXiv 1910.07467). y may be x.
struct RmsNormArgs {
  const float* x = nullptr;      // [rows, width]
  const void* weight = nullptr;  // [width]
  NumberFormat format = NumberFormat::kF32;
  float* y = nullptr;  // [rows, width]
  size_t rows = 0, width = 0;
  float epsilon = 0;
};

// Rotates the first rotary_dim numbers of every head in place (RoPE, arXiv 2104.09864), in the
// half-split order of Hugging Face: pairs are (i, i + rotary_dim / 2).
struct RopeArgs {
  float* x = nullptr;  // [rows, heads, head_dim], rows x_stride floats apart
  size_t x_stride = 0;
  const uint32_t* positions = nullptr;         // [rows]
  const float* inverse_frequencies = nullptr;  // [rotary_dim / 2], radians per position
  float scale = 1;                             // multiplies sine and cosine (1 but for yarn-like)
  size_t rows = 0, heads = 0, head_dim = 0, rotary_dim = 0;
};

// Positions of keys and values that one page holds. Attention reduces over whole pages in order of
// position, so results do not depend on how a prompt was cut into chunks.
inline constexpr size_t kKvPagePositions = 32;

// One row's view of its sequence's keys and values in one layer.
struct AttentionRow {
  // Page p holds positions [32 p, 32 p + 32): k [kv_heads, 32, head_dim], then v the same.
  const float* const* pages = nullptr;
  uint32_t position = 0;  // this row attends to positions 0 … position
};

// Causal attention by online softmax, page by page (arXiv 2205.14135): O(head_dim) memory per row
// and head, never rows × context.
struct AttentionArgs {
  const float* q = nullptr;                                // [rows, heads, head_dim]
  float* out = nullptr;                                    // [rows, heads, head_dim]
  const AttentionRow* attention_rows = nullptr;            // [rows]
  size_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;  // kv_heads divides heads
  float scale = 0;                                         // usually 1 / sqrt(head_dim)
};

struct Backend {
  const char* name;  // "scalar", "avx2"

  void (*matmul)(const MatmulArgs&, ThreadPool&);
  void (*rms_norm)(const RmsNormArgs&, ThreadPool&);
  void (*rope)(const RopeArgs&, ThreadPool&);
  void (*attention)(const AttentionArgs&, ThreadPool&);
  // gate[i] = silu(gate[i]) * up[i], silu(z) = z / (1 + exp(-z)); [count]
  void (*silu_multiply)(float* gate, const float* up, size_t count, ThreadPool&);
  // x[r, i] += bias[i]; x [rows, width], rows x_stride floats apart
  void (*add_bias)(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
                   size_t width, ThreadPool&);
  // out[i] = number i of `in` as f32; [count]
  void (*to_f32)(const void* in, NumberFormat format, float* out, size_t count);
};

// The reference: plain loops, in the order of the formulas. Stays for ever.
const Backend& scalar_backend();
// Null where this build or this CPU has not got it.
const Backend* avx2_backend();

// The best backend of this CPU, or the one that the environment variable AIRLLM_CPU names
// ("scalar", "avx2"). A name that is unknown or that this CPU cannot run is a kConfig error.
Result<const Backend*> choose_backend();

// Why choose_backend() takes the backend `name` here, for people.
std::string backend_reason(std::string_view name);

}  // namespace airllm::kernels
