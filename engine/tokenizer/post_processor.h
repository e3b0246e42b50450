// The "post_processor" of tokenizer.json: the tokens that every text gets around it, such as BOS.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::tokenizer {

// What a single text becomes. Immutable; safe to share between threads.
struct PostProcessor {
  // TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel (which changes no ids) and
  // Sequence with one of them that adds tokens; another type is a kData error that names it. Null:
  // nothing is added. `where` names the component.
  static Result<PostProcessor> from_json(const Json* json, const std::string& where);

  // `add_special` as in EncodeOptions.
  std::vector<int32_t> apply(std::vector<int32_t> ids, bool add_special) const;

  struct Piece {
    bool is_text = false;         // the text's own ids
    std::vector<int32_t> tokens;  // or these
  };
  std::vector<Piece> pieces;  // empty: the text alone
};

}  // namespace airllm::tokenizer
