// The product with weights of the plain formats, by AVX2, FMA and F16C: see plain_product.h.
#include "kernels/cpu/avx2_outputs.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/plain_product.h"

namespace airllm::kernels::avx2 {

void matmul(const MatmulArgs& args, ThreadPool& pool) {
  if (args.format == NumberFormat::kFP8) return matmul_fp8(args, pool);
  if (is_compressed(args.format)) return matmul_compressed(args, pool);
  matmul_plain<OneOutput>(args, pool);
}

// A number's sum is the same wherever it lies in a vector: one fused step after the other.
void matmul_transposed(const MatmulArgs& args, ThreadPool& pool) {
  if (is_compressed(args.format)) return scalar::matmul_transposed(args, pool);
  with_format(args.format, [&]<NumberFormat F>() {
    constexpr size_t kSize = bytes_per_element(F);
    const char* weight = static_cast<const char*>(args.weight);
    pool.run(args.rows * args.in, grain_for(args.out / 4 + 1, kLanes),
             [&](size_t begin, size_t end) {
               for_each_row(begin, end, args.in, [&](size_t row, size_t first, size_t last) {
                 const float* x = args.x + row * args.x_stride;
                 float* y = args.y + row * args.y_stride;
                 size_t i = first;
                 for (; i + kLanes <= last; i += kLanes) {
                   __m256 sum = _mm256_loadu_ps(y + i);
                   for (size_t o = 0; o < args.out; ++o) {
                     const __m256 numbers = load8<F>(weight + (o * args.in + i) * kSize);
                     sum = _mm256_fmadd_ps(_mm256_set1_ps(x[o]), numbers, sum);
                   }
                   _mm256_storeu_ps(y + i, sum);
                 }
                 for (; i < last; ++i) {
                   for (size_t o = 0; o < args.out; ++o) {
                     y[i] = fused(x[o], load1<F>(weight + (o * args.in + i) * kSize), y[i]);
                   }
                 }
               });
             });
  });
}

}  // namespace airllm::kernels::avx2
