#include "engine/schedule/loaded_model.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/load_tokenizer.h"
#include "engine/tokenizer/template_input.h"

namespace airllm::schedule {
namespace {

Status load_text_side(LoadedModel& model) {
  store::StoredModel& stored = model.stored;
  // Once parsed, the texts would only take the daemon's memory.
  const tokenizer::TextFiles files{
      .tokenizer_json = std::exchange(stored.tokenizer_json, std::nullopt),
      .tokenizer_model = std::exchange(stored.tokenizer_model, std::nullopt),
      .tiktoken = std::exchange(stored.tiktoken, std::nullopt),
      .tokenizer_config_json = std::exchange(stored.tokenizer_config_json, std::nullopt),
      .special_tokens_map_json = std::exchange(stored.special_tokens_map_json, std::nullopt),
      .added_tokens_json = std::exchange(stored.added_tokens_json, std::nullopt),
      .chat_template_jinja = std::exchange(stored.chat_template_jinja, std::nullopt),
      .config_json = stored.config_json,
      .additional_chat_templates = std::exchange(stored.additional_chat_templates, {})};
  auto loaded = tokenizer::load_tokenizer(files, model.name());
  if (loaded) {
    model.tokenizer = std::move(*loaded);
  } else if (files.tokenizer_json) {
    return Unexpected(std::move(loaded).error());
  } else {
    // A format of which not all kinds can be read: the model can still be asked with ids.
    model.tokenizer_problem = std::move(loaded).error();
  }
  AIRLLM_TRY(model.chat_template, tokenizer::load_chat_template(files, model.name()));
  return {};
}

}  // namespace

Result<std::shared_ptr<const LoadedModel>> LoadedModel::load(store::StoredModel stored) {
  auto model = std::make_shared<LoadedModel>();
  model->stored = std::move(stored);
  AIRLLM_TRY_VOID(load_text_side(*model));
  if (model->stored.generation_config_json) {
    AIRLLM_TRY(model->generation,
               sampling::parse_generation_config(*model->stored.generation_config_json,
                                                 model->name() + "/generation_config.json"));
  }
  model->end_tokens = model->generation.end_tokens.empty() ? model->architecture().end_tokens
                                                           : model->generation.end_tokens;
  return std::shared_ptr<const LoadedModel>(std::move(model));
}

bool LoadedModel::is_end_token(int32_t id) const {
  return std::find(end_tokens.begin(), end_tokens.end(), id) != end_tokens.end();
}

namespace {

Result<std::vector<tokenizer::TextPart>> render(const LoadedModel& model,
                                                const engine::GenerateRequest& request) {
  AIRLLM_TRY(const tokenizer::ChatTemplate* const chat_template, model.need_chat_template());
  tokenizer::TemplateInput input{.add_generation_prompt = true};
  for (const engine::ChatMessage& message : request.messages) {
    input.messages.push_back(tokenizer::text_message(message.role, message.content));
  }
  return chat_template->render(input);
}

Result<std::vector<int32_t>> encode_text(const LoadedModel& model,
                                         const engine::GenerateRequest& request) {
  AIRLLM_TRY(const tokenizer::Tokenizer* const tokenizer, model.need_tokenizer());
  if (request.raw_text) {
    const tokenizer::TextPart part{*request.raw_text, false};
    return tokenizer->encode({&part, 1}, {.add_special = true});
  }
  AIRLLM_TRY(std::vector<tokenizer::TextPart> parts, render(model, request));
  if (request.special) {
    for (tokenizer::TextPart& part : parts) part.from_user = false;
  }
  return tokenizer->encode(parts, {.add_special = false});
}

}  // namespace

Result<std::vector<int32_t>> LoadedModel::encode_prompt(
    const engine::GenerateRequest& request) const {
  std::vector<int32_t> ids;
  if (request.prompt_ids) {
    ids = *request.prompt_ids;
  } else {
    AIRLLM_TRY(ids, encode_text(*this, request));
  }
  if (!request.stop.empty()) AIRLLM_TRY_VOID(need_tokenizer());
  if (ids.empty()) {
    return Unexpected(ErrorCode::kUsage, "the prompt has no tokens",
                      "give at least one token or character");
  }
  if (ids.size() > architecture().context) {
    return Unexpected(ErrorCode::kData,
                      "the prompt has " + std::to_string(ids.size()) +
                          " tokens, but the context of '" + name() + "' holds " +
                          std::to_string(architecture().context),
                      "shorten the prompt, or use a model with a longer context");
  }
  AIRLLM_TRY_VOID(check_ids(ids));
  return ids;
}

Status LoadedModel::check_ids(std::span<const int32_t> ids) const {
  for (const int32_t id : ids) {
    if (id >= 0 && static_cast<uint64_t>(id) < architecture().vocabulary) continue;
    return Unexpected(ErrorCode::kUsage,
                      "token id " + std::to_string(id) + " is not in the vocabulary of '" + name() +
                          "', which has ids 0 to " + std::to_string(architecture().vocabulary - 1),
                      "give ids that the model's own tokenizer made");
  }
  return {};
}

Result<const tokenizer::Tokenizer*> LoadedModel::need_tokenizer() const {
  if (tokenizer != nullptr) return tokenizer.get();
  if (tokenizer_problem) return Unexpected(*tokenizer_problem);
  return Unexpected(ErrorCode::kUsage, "the model '" + name() + "' has no tokenizer",
                    "give the prompt as token ids with --prompt-ids");
}

Result<const tokenizer::ChatTemplate*> LoadedModel::need_chat_template() const {
  if (chat_template != nullptr) return chat_template.get();
  return Unexpected(ErrorCode::kUsage, "the model '" + name() + "' has no chat template",
                    "give the prompt with --raw, as the model expects it");
}

}  // namespace airllm::schedule
