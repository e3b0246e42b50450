// The normalizer Precompiled: a map of characters that came from a tokenizer.model.
#pragma once

#include <memory>

#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/normalizer.h"

namespace airllm::tokenizer {

// As the crate spm_precompiled: each grapheme cluster of fewer than six bytes becomes what the
// shortest text of the map becomes with which it begins; else each of its characters does so by
// itself. A "precompiled_charsmap" that is not base64 of a map is a kData error.
Result<std::unique_ptr<Normalizer>> precompiled_normalizer(const Fields& fields);

}  // namespace airllm::tokenizer
