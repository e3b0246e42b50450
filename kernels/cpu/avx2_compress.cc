#include "kernels/cpu/compress_rows.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {

void compress_row(NumberFormat format, const float* numbers, size_t width, char* out) {
  compress(format, numbers, width, out);
}

}  // namespace airllm::kernels::avx2
