// The tables of operations, and which of them this CPU gets.
#include "kernels/backend.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/cpu/operations.h"
#include "kernels/watched.h"
#if defined(AIRLLM_KERNELS_X86)
#include <cpuid.h>
#endif

namespace airllm::kernels {
namespace {

constexpr const char* kVariable = "AIRLLM_CPU";

constexpr Backend kScalar = {"scalar",
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

#if defined(AIRLLM_KERNELS_X86)
constexpr Backend kAVX2 = {"avx2",
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

constexpr Backend make_avx512() {
  Backend backend = kAVX2;
  backend.name = "avx512";
  backend.matmul = watched<avx512::matmul>;
  backend.prepare = avx512::prepare;
  backend.burn = avx512::burn;
  return backend;
}
constexpr Backend kAVX512 = make_avx512();

// Whether the CPU has the instructions and the operating system saves their registers (which
// __builtin_cpu_supports() asks of XGETBV for avx2 and for avx512f and all that belongs to it).
bool cpu_has_avx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

std::string valid_names() {
  std::string names;
  for (const char* name : kBackendNames) {
    if (find_backend(name) != nullptr) names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

}  // namespace

const Backend& scalar_backend() { return kScalar; }

const Backend* avx2_backend() {
#if defined(AIRLLM_KERNELS_X86)
  static const bool supported = cpu_has_avx2();
  return supported ? &kAVX2 : nullptr;
#else
  return nullptr;
#endif
}

const Backend* avx512_backend() {
#if defined(AIRLLM_KERNELS_X86)
  static const bool supported = cpu_has_avx512();
  return supported ? &kAVX512 : nullptr;
#else
  return nullptr;
#endif
}

const Backend* find_backend(std::string_view name) {
  for (const Backend* backend : {&scalar_backend(), avx2_backend(), avx512_backend()}) {
    if (backend != nullptr && name == backend->name) return backend;
  }
  return nullptr;
}

const Backend& best_backend() {
  if (const Backend* backend = avx512_backend()) return *backend;
  if (const Backend* backend = avx2_backend()) return *backend;
  return scalar_backend();
}

Result<const Backend*> choose_backend() {
  const char* value = std::getenv(kVariable);
  const std::string_view name = value == nullptr ? "" : value;
  if (name.empty()) return &best_backend();
  if (const Backend* backend = find_backend(name)) return backend;
  const bool known =
      std::find(kBackendNames.begin(), kBackendNames.end(), name) != kBackendNames.end();
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
