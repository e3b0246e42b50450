// Normalizers that look at one character at a time.
#pragma once

#include <memory>
#include <string_view>

#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/normalizer.h"

namespace airllm::tokenizer {

// Lowercase, Strip, StripAccents, Nmt, ByteLevel and BertNormalizer; null for another type.
Result<std::unique_ptr<Normalizer>> character_normalizer(const Fields& fields,
                                                         std::string_view type);

}  // namespace airllm::tokenizer
