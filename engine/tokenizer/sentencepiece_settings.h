// What stands beside a tokenizer.model: the tokens that were added to it, and what goes around a
// text.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/sentencepiece_file.h"
#include "engine/tokenizer/sentencepiece_vocabulary.h"
#include "engine/tokenizer/text_files.h"

namespace airllm::tokenizer {

struct SentencePieceSettings {
  // Tokens of tokenizer_config.json's "added_tokens_decoder" or, without it, of added_tokens.json;
  // the special tokens by name; the control and unknown pieces. All are searched in the text as it
  // came.
  std::vector<AddedToken> added;
  std::vector<int32_t> before, behind;  // such as BOS: what EncodeOptions::add_special adds
  // Whether each stretch between added tokens gets the space that add_dummy_prefix asks for, or the
  // text's begin alone ("legacy": false).
  bool prefix_every_stretch = true;
};

// As transformers' from_pretrained(), where it can be told. `where` is the folder's name for
// messages.
Result<SentencePieceSettings> read_sentencepiece_settings(const TextFiles& files,
                                                          const SentencePieceFile& file,
                                                          const SentencePieceVocabulary& vocabulary,
                                                          std::string_view where);

}  // namespace airllm::tokenizer
