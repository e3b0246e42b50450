// The product with fp8 weights, by AVX-512: see fp8_product.h.
#include "kernels/cpu/avx512_outputs.h"
#include "kernels/cpu/fp8_product.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx512 {

void matmul_fp8(const MatmulArgs& args, ThreadPool& pool) {
  avx2::matmul_fp8_with<TwoOutputs>(args, pool);
}

}  // namespace airllm::kernels::avx512
