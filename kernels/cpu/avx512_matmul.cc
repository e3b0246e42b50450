// The product with weights of the plain formats, by AVX-512: see plain_product.h. And what a core
// computes at most by it.
#include "kernels/cpu/avx512_outputs.h"
#include "kernels/cpu/burn.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/plain_product.h"

namespace airllm::kernels::avx512 {

void matmul(const MatmulArgs& args, ThreadPool& pool) {
  if (args.format == NumberFormat::kFP8) return matmul_fp8(args, pool);
  if (is_compressed(args.format)) return matmul_compressed(args, pool);
  avx2::matmul_plain<TwoOutputs>(args, pool);
}

uint64_t burn(uint64_t rounds) { return avx2::burn_with<TwoOutputs>(rounds); }

}  // namespace airllm::kernels::avx512
