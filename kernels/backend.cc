// The tables of operations, and which of them this CPU gets.
#include "kernels/backend.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/cpu/operations.h"
#include "kernels/watched.h"
#if defined(AIRLLM_KERNELS_AVX2)
#include <cpuid.h>
#endif

namespace airllm::kernels {
namespace {

#if defined(AIRLLM_KERNELS_AVX2)
// Whether the CPU has the instructions and the operating system saves their registers (which
// __builtin_cpu_supports() asks of XGETBV for avx2).
bool cpu_has_avx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

constexpr const char* kVariable = "AIRLLM_CPU";

std::string valid_names() { return avx2_backend() != nullptr ? "scalar, avx2" : "scalar"; }

}  // namespace

const Backend& scalar_backend() {
  static constexpr Backend kBackend = {"scalar",
                                       watched<scalar::matmul>,
                                       scalar::prepared_bytes,
                                       scalar::prepare,
                                       watched_transposed<scalar::matmul_transposed>,
                                       scalar::norm,
                                       scalar::rope,
                                       scalar::attention,
                                       scalar::map,
                                       scalar::add,
                                       scalar::copy,
                                       scalar::add_bias,
                                       scalar::compress_row,
                                       scalar::to_f32,
                                       scalar::burn};
  return kBackend;
}

const Backend* avx2_backend() {
#if defined(AIRLLM_KERNELS_AVX2)
  static constexpr Backend kBackend = {"avx2",
                                       watched<avx2::matmul>,
                                       avx2::prepared_bytes,
                                       avx2::prepare,
                                       watched_transposed<avx2::matmul_transposed>,
                                       avx2::norm,
                                       avx2::rope,
                                       avx2::attention,
                                       avx2::map,
                                       avx2::add,
                                       scalar::copy,
                                       avx2::add_bias,
                                       avx2::compress_row,
                                       avx2::to_f32,
                                       avx2::burn};
  static const bool supported = cpu_has_avx2();
  return supported ? &kBackend : nullptr;
#else
  return nullptr;
#endif
}

const Backend& best_backend() {
  return avx2_backend() != nullptr ? *avx2_backend() : scalar_backend();
}

Result<const Backend*> choose_backend() {
  const char* value = std::getenv(kVariable);
  const std::string_view name = value == nullptr ? "" : value;
  if (name.empty()) return &best_backend();
  for (const Backend* backend : {&scalar_backend(), avx2_backend()}) {
    if (backend != nullptr && name == backend->name) return backend;
  }
  const bool known = name == "avx2";
  return Unexpected(ErrorCode::kConfig,
                    std::string(kVariable) + "=" + std::string(name) + " names " +
                        (known ? "instructions that this CPU or this build has not got"
                               : "no known instruction set"),
                    "unset it, or set it to one of: " + valid_names());
}

std::string backend_reason(std::string_view name) {
  const char* value = std::getenv(kVariable);
  if (value != nullptr && *value != '\0') return std::string(kVariable) + " names it";
  if (name == scalar_backend().name) return "this CPU or this build has no AVX2 with FMA and F16C";
  return "the best that this CPU has";
}

}  // namespace airllm::kernels
