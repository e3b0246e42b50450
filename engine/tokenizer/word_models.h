// The models that look whole words or their longest known beginnings up: WordLevel and WordPiece.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/model.h"

namespace airllm::tokenizer {

// `fields` is the file's "model"; the vocabulary is taken from `file`.
Result<std::unique_ptr<Model>> build_word_level(const Fields& fields, TokenizerFile& file);
Result<std::unique_ptr<Model>> build_word_piece(const Fields& fields, TokenizerFile& file);

}  // namespace airllm::tokenizer
