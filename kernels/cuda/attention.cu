// Attention on a device: a warp makes one head of one row, by online softmax over one page after
// the other. A page's 32 positions are the warp's 32 lanes; the output's dimensions are divided
// over the lanes too, and lie in global memory meanwhile, so that head_dim has no limit.
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

static_assert(kKvPagePositions == kWarp);
constexpr unsigned kWarpsPerBlock = 4;

// q . k * scale. k: [head_dim]
__device__ float score(const float* q, const float* k, size_t head_dim, float scale) {
  float sum = 0;
  for (size_t d = 0; d < head_dim; ++d) sum = fmaf(q[d], k[d], sum);
  return sum * scale;
}

__global__ void attend(AttentionArgs args) {
  const size_t task = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
  if (task >= args.rows * args.heads) return;
  const unsigned lane = threadIdx.x;
  const AttentionRow view = args.attention_rows[task / args.heads];
  const size_t kv_head = task % args.heads / (args.heads / args.kv_heads);
  const size_t page_floats = kKvPagePositions * args.head_dim;
  const float* q = args.q + task * args.head_dim;
  float* out = args.out + task * args.head_dim;
  for (size_t d = lane; d < args.head_dim; d += kWarp) out[d] = 0;

  float max = -INFINITY, sum = 0;
  const size_t positions = static_cast<size_t>(view.position) + 1;
  for (size_t begin = 0; begin < positions; begin += kKvPagePositions) {
    const float* k = view.pages[begin / kKvPagePositions] + kv_head * page_floats;
    const float* v = k + args.kv_heads * page_floats;
    const size_t left = positions - begin;
    const unsigned valid = static_cast<unsigned>(left < kWarp ? left : kWarp);
    // Lanes behind the last position read nothing; their weight is exp(-infinity) = 0.
    const float mine =
        lane < valid ? score(q, k + lane * args.head_dim, args.head_dim, args.scale) : -INFINITY;
    const float new_max = fmaxf(max, max_of_warp(mine));
    const float correction = expf(max - new_max);
    const float weight = expf(mine - new_max);
    max = new_max;
    sum = fmaf(sum, correction, sum_of_warp(weight));
    for (size_t first = 0; first < args.head_dim; first += kWarp) {
      const size_t d = first + lane;
      float number = d < args.head_dim ? out[d] * correction : 0;
      for (unsigned j = 0; j < valid; ++j) {
        const float other = __shfl_sync(kAllLanes, weight, static_cast<int>(j));
        if (d < args.head_dim) number = fmaf(other, v[j * args.head_dim + d], number);
      }
      if (d < args.head_dim) out[d] = number;
    }
  }
  for (size_t d = lane; d < args.head_dim; d += kWarp) out[d] /= sum;
}

}  // namespace

CudaStatus attention(const AttentionArgs& args, CudaStream* stream) {
  if (args.rows * args.heads == 0) return cudaSuccess;
  attend<<<blocks_for(args.rows * args.heads, kWarpsPerBlock), dim3(kWarp, kWarpsPerBlock), 0,
           raw(stream)>>>(args);
  return cudaGetLastError();
}

}  // namespace airllm::kernels::cuda
