// Chat templates of families that were published before models shipped their own.
#pragma once

#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer_config.h"

namespace airllm::tokenizer {

struct BuiltinTemplate {
  std::string_view name;  // "llama-2", for messages
  std::string_view source;
};

// The template of the model's family, or null. What decides, the first that fits:
// 1. A name hint: the folder's name `where` or config.json's "_name_or_path", without regard to
//    case, has "platypus", "alpaca" or "vicuna" in it. These are fine-tunings of Llama whose files
//    do not tell them from it.
// 2. The kind: tokenizer_config.json's "tokenizer_class", config.json's "model_type" and the first
//    of its "architectures" name Gemma, ChatGLM, Baichuan or InternLM. The generation of
//    - ChatGLM is 3 when tokenizer_config.json has "<|user|>" among its added tokens or the hint
//      says chatglm3, 1 (which has no template here) when the bos_token is "<sop>", and else 2;
//    - Baichuan is 1 when config.json's "vocab_size" is 64000, and else 2;
//    - InternLM is 2 when one of the names says so (InternLM2Tokenizer), and else 1.
// 3. Llama-2: a LlamaTokenizer whose tokens are <s> and </s>, in a model of type llama with 32000
//    tokens (as far as config.json is there): what transformers did for that class up to 4.43.
// Config.json counts only where it is sound; who needs it says what is wrong with it.
const BuiltinTemplate* find_builtin_template(const TextFiles& files, const TokenizerConfig& config,
                                             std::string_view where);

}  // namespace airllm::tokenizer
