// Unigram language model (arXiv 1804.10959) as Hugging Face tokenizers runs it: of all ways to cut
// a word into pieces the one with the largest sum of scores.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/model.h"

namespace airllm::tokenizer {

// `fields` is the file's "model"; the vocabulary and the scores are taken from `file`.
Result<std::unique_ptr<Model>> build_unigram(const Fields& fields, TokenizerFile& file);

}  // namespace airllm::tokenizer
