// The product with fp8 weights, by AVX2, FMA and F16C: see fp8_product.h.
#include "kernels/cpu/avx2_outputs.h"
#include "kernels/cpu/fp8_product.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {

void matmul_fp8(const MatmulArgs& args, ThreadPool& pool) {
  matmul_fp8_with<OneOutput>(args, pool);
}

}  // namespace airllm::kernels::avx2
