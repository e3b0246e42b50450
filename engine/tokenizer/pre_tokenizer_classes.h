// Pre-tokenizers that cut by classes of characters.
#pragma once

#include <memory>
#include <string_view>

#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/pre_tokenizer.h"

namespace airllm::tokenizer {

// Whitespace, WhitespaceSplit, Punctuation, BertPreTokenizer, UnicodeScripts, CharDelimiterSplit
// and FixedLength; null for another type.
Result<std::unique_ptr<PreTokenizer>> class_pre_tokenizer(const Fields& fields,
                                                          std::string_view type);

}  // namespace airllm::tokenizer
