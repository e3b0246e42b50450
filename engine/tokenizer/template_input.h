// What a chat template is rendered with, and what transformers does to it before.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/jinja/strftime.h"

namespace airllm::tokenizer {

// As transformers' apply_chat_template() takes it.
struct TemplateInput {
  Json messages =
      Json::array();         // objects with "role", "content" and whatever else the model knows
  Json tools = nullptr;      // a list of JSON schemas; null: none
  Json documents = nullptr;  // a list of objects; null: none
  bool add_generation_prompt = false;
  // The field of the last message that the model goes on with ("content" as a rule): the text ends
  // with it. Not together with add_generation_prompt.
  std::optional<std::string> continue_field = std::nullopt;
  Json variables = Json::object();  // further names, such as enable_thinking
  std::string template_name = {};   // of a model that has several; empty: as the rule says
  // What strftime_now() prints; unset: the time at the moment, in the local zone.
  std::optional<jinja::LocalTime> now = std::nullopt;
};

// One message of plain text, the usual case.
Json text_message(std::string_view role, std::string_view content);

// The input as JSON says it: a list of messages, or an object with "messages" and, all optional,
// "tools", "documents", "add_generation_prompt" (else as given here), "continue_final_message"
// (true, or the name of a field) and further variables. Another shape is a kUsage error.
Result<TemplateInput> read_template_input(Json json, bool add_generation_prompt);

// Checks the shape of all (UTF-8; lists of objects; a conversation that is not empty; variables
// that do not hide what transformers itself passes), drops the keys of messages that are null, and
// lets "reasoning_content", "thinking" and "reasoning" fill "thinking" and "reasoning_content":
// the first of them that is set goes to reasoning_content, and to thinking where that is missing.
// kUsage errors, but kData for what is not UTF-8.
Result<TemplateInput> prepare(const TemplateInput& input);

// Marks the end of the text to be continued, as `prepared.continue_field` says, in a way that
// continued_end() finds in what the template made of it. `source` is the template. Returns
// the text to be continued.
Result<std::string> mark_continued(TemplateInput& prepared, std::string_view source);

// How many bytes of `rendered` there are up to the mark, with or without the space that a template
// may have trimmed.
Result<size_t> continued_end(std::string_view rendered, std::string_view continued);

}  // namespace airllm::tokenizer
