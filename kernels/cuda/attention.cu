// Attention on a device: a warp makes one head of one row, by online softmax over one page after
// the other. A page's 32 positions are the warp's 32 lanes; the output's dimensions are divided
// over the lanes too, and lie in global memory meanwhile, so that value_dim has no limit.
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

static_assert(kKvPagePositions == kWarp);
constexpr unsigned kWarpsPerBlock = 4;

// k: [head_dim]
__device__ float score(const AttentionArgs& args, const float* q, const float* k) {
  float sum = 0;
  for (size_t d = 0; d < args.head_dim; ++d) sum = fmaf(q[d], k[d], sum);
  const float scaled = sum * args.scale;
  return args.soft_cap > 0 ? args.soft_cap * tanhf(scaled / args.soft_cap) : scaled;
}

__device__ float round_to_bf16(float number) {
  return __bfloat162float(__float2bfloat16_rn(number));
}

__device__ float position_bias(const AttentionArgs& args, size_t head, size_t position,
                               size_t key_position) {
  if (args.bf16_biases) {
    const float where = round_to_bf16(static_cast<float>(key_position));
    return round_to_bf16(round_to_bf16(args.slopes[head]) * where) * args.scale;
  }
  return args.slopes[head] * -static_cast<float>(position - key_position);
}

__global__ void attend(AttentionArgs args) {
  const size_t task = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
  if (task >= args.rows * args.heads) return;
  const unsigned lane = threadIdx.x;
  const size_t row = task / args.heads, head = task % args.heads;
  const AttentionRow view = args.attention_rows[row];
  const size_t kv_head = head / (args.heads / args.kv_heads);
  const size_t k_floats = kKvPagePositions * args.head_dim;
  const size_t v_floats = kKvPagePositions * args.value_dim;
  const size_t v_stride = args.values_in_keys ? args.head_dim : args.value_dim;
  const float* q = args.q + row * args.q_stride + head * args.head_dim;
  float* out = args.out + task * args.value_dim;
  for (size_t d = lane; d < args.value_dim; d += kWarp) out[d] = 0;

  float max = -INFINITY, sum = 0;
  const size_t positions = static_cast<size_t>(view.position) + 1;
  const size_t first = args.window == 0 || positions <= args.window ? 0 : positions - args.window;
  for (size_t begin = first / kWarp * kWarp; begin < positions; begin += kKvPagePositions) {
    const float* page = view.pages[begin / kKvPagePositions];
    const float* k = page + kv_head * k_floats;
    const float* v = args.values_in_keys ? k : page + args.kv_heads * k_floats + kv_head * v_floats;
    const size_t left = positions - begin;
    const unsigned from = static_cast<unsigned>(first > begin ? first - begin : 0);
    const unsigned end = static_cast<unsigned>(left < kWarp ? left : kWarp);
    // Lanes of positions that do not count read nothing; their weight is exp(-infinity) = 0.
    float mine = -INFINITY;
    if (from <= lane && lane < end) {
      mine = score(args, q, k + lane * args.head_dim);
      if (args.slopes != nullptr) mine += position_bias(args, head, view.position, begin + lane);
    }
    const float new_max = fmaxf(max, max_of_warp(mine));
    const float correction = expf(max - new_max);
    const float weight = expf(mine - new_max);
    max = new_max;
    sum = fmaf(sum, correction, sum_of_warp(weight));
    for (size_t d_begin = 0; d_begin < args.value_dim; d_begin += kWarp) {
      const size_t d = d_begin + lane;
      float number = d < args.value_dim ? out[d] * correction : 0;
      for (unsigned j = from; j < end; ++j) {
        const float other = __shfl_sync(kAllLanes, weight, static_cast<int>(j));
        if (d < args.value_dim) number = fmaf(other, v[j * v_stride + d], number);
      }
      if (d < args.value_dim) out[d] = number;
    }
  }
  for (size_t d = lane; d < args.value_dim; d += kWarp) out[d] /= sum;
}

}  // namespace

CudaStatus attention(const AttentionArgs& args, CudaStream* stream) {
  if (args.rows * args.heads == 0) return cudaSuccess;
  attend<<<blocks_for(args.rows * args.heads, kWarpsPerBlock), dim3(kWarp, kWarpsPerBlock), 0,
           raw(stream)>>>(args);
  return cudaGetLastError();
}

}  // namespace airllm::kernels::cuda
