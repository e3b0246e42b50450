// Numbers that are infinite or none (NaN), which healthy weights do not have.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/number_format.h"

namespace airllm::store {

// Whether one of `numbers`, of the plain format `format` and in whole, is infinite or NaN.
bool has_nonfinite(kernels::NumberFormat format, std::span<const std::byte> numbers);

}  // namespace airllm::store
