// The parts of which a tokenizer of this folder is made, whatever file they come from.
#pragma once

#include <memory>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/model.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

struct Components {
  std::unique_ptr<Model> model;
  AddedTokens added;
  std::unique_ptr<Normalizer> normalizer;       // may be null
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // may be null
  PostProcessor post_processor;
  std::unique_ptr<Decoder> decoder;
};

std::unique_ptr<Tokenizer> assemble(Components parts);

}  // namespace airllm::tokenizer
