// A model as jobs see it: everything of it but the weights, in memory and immutable.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/sampling/generation_config.h"
#include "engine/store/store.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::schedule {

struct LoadedModel {
  store::StoredModel stored;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;         // null: prompts are ids
  std::optional<Error> tokenizer_problem;                  // why it is null though there is a file
  std::unique_ptr<tokenizer::ChatTemplate> chat_template;  // null: the model has none
  sampling::GenerationConfig generation;
  std::vector<int32_t> end_tokens;

  const engine::ModelRef& ref() const { return stored.ref; }
  const std::string& name() const { return stored.ref.name; }
  const model::Architecture& architecture() const { return stored.architecture; }

  // Takes `stored` over and parses its tokenizer, template and generation settings.
  static Result<std::shared_ptr<const LoadedModel>> load(store::StoredModel stored);

  // The ids of a request's prompt. Input that the model cannot take (no template, ids out of range,
  // longer than the context) is a kUsage or kData error.
  Result<std::vector<int32_t>> encode_prompt(const engine::GenerateRequest& request) const;

  // kUsage for an id that the vocabulary does not have.
  Status check_ids(std::span<const int32_t> ids) const;
  // What makes it null as an error.
  Result<const tokenizer::Tokenizer*> need_tokenizer() const;
  // kUsage when there is none.
  Result<const tokenizer::ChatTemplate*> need_chat_template() const;

  bool is_end_token(int32_t id) const;
};

}  // namespace airllm::schedule
