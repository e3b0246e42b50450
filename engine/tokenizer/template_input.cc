#include "engine/tokenizer/template_input.h"

#include <algorithm>
#include <array>

#include "engine/jinja/strings.h"

namespace airllm::tokenizer {
namespace {

constexpr std::array<const char*, 3> kReasoningFields = {"reasoning_content", "thinking",
                                                         "reasoning"};
// The mark and the space behind it are those of transformers, since a conversation that has the
// mark in it is cut there, too.
constexpr std::string_view kMark = "CONTINUE_FINAL_MESSAGE_TAG";
constexpr std::string_view kMarkAndSpace = "CONTINUE_FINAL_MESSAGE_TAG ";

// Names that transformers passes itself: a variable of the same name is an error there, too.
constexpr std::array<std::string_view, 4> kReservedNames = {"messages", "tools", "documents",
                                                            "add_generation_prompt"};

Unexpected usage(std::string message) { return Unexpected(ErrorCode::kUsage, std::move(message)); }

Status check_utf8(const TemplateInput& input) {
  for (const Json* json : {&input.messages, &input.tools, &input.documents, &input.variables}) {
    try {
      (void)json->dump();
    } catch (const Json::exception&) {
      return Unexpected(ErrorCode::kData, "a message is not UTF-8");
    }
  }
  return {};
}

Status check_list(const Json& list, const std::string& name) {
  if (list.is_null()) return {};
  if (!list.is_array()) return usage(name + " are not a list");
  for (const Json& element : list) {
    if (!element.is_object()) return usage("one of the " + name + " is not an object");
  }
  return {};
}

Status check(const TemplateInput& input) {
  AIRLLM_TRY_VOID(check_utf8(input));
  if (input.messages.is_null()) return usage("messages are not a list");
  AIRLLM_TRY_VOID(check_list(input.messages, "messages"));
  AIRLLM_TRY_VOID(check_list(input.tools, "tools"));
  AIRLLM_TRY_VOID(check_list(input.documents, "documents"));
  if (input.messages.empty()) return usage("the conversation is empty: give at least one message");
  if (!input.variables.is_object()) return usage("variables are not an object");
  for (const std::string_view name : kReservedNames) {
    if (input.variables.contains(name)) {
      return usage("a variable may not be called '" + std::string(name) + "'");
    }
  }
  if (input.continue_field && input.add_generation_prompt) {
    return usage("a message is continued, or a new one begun with a generation prompt; not both");
  }
  return {};
}

// Takes the member out; nothing when it is absent or null.
Json take(Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return nullptr;
  Json value = std::move(*found);
  object.erase(found);
  return value;
}

Status read_generation_prompt(const Json& value, bool& out) {
  if (value.is_null()) return {};
  if (!value.is_boolean()) return usage("add_generation_prompt is not true or false");
  out = value.get<bool>();
  return {};
}

Status read_continued(const Json& value, TemplateInput& out) {
  if (value.is_null() || value == false) return {};
  if (!value.is_string() && value != true) {
    return usage("continue_final_message is not true, false or the name of a field");
  }
  out.continue_field = value.is_string() ? value.get<std::string>() : "content";
  return {};
}

Json without_nulls(const Json& message) {
  Json out = Json::object();
  for (const auto& [key, value] : message.items()) {
    if (!value.is_null()) out[key] = value;
  }
  return out;
}

Json with_reasoning(Json message) {
  const auto field = std::find_if(kReasoningFields.begin(), kReasoningFields.end(),
                                  [&](const char* name) { return message.contains(name); });
  if (field == kReasoningFields.end()) return message;
  const Json reasoning = message[*field];
  // The order of keys shows when a template prints the whole message.
  Json out = Json::object();
  out["thinking"] = reasoning;
  for (const auto& [key, value] : message.items()) out[key] = value;
  out["reasoning_content"] = reasoning;
  return out;
}

// str.strip() of Python.
std::string_view strip(std::string_view text) {
  text.remove_suffix(jinja::spaces_at_end(text));
  text.remove_prefix(jinja::spaces_at_begin(text));
  return text;
}

// The last part of the list that has a text.
Result<std::string> mark_part(Json& parts) {
  for (size_t i = parts.size(); i-- > 0;) {
    Json& part = parts[i];
    if (!part.is_object() || !part.contains("text")) continue;
    Json& text = part["text"];
    if (!text.is_string()) break;
    std::string continued = text.get<std::string>();
    text = continued + std::string(kMarkAndSpace);
    return continued;
  }
  return usage("the last message has no text that could be continued");
}

}  // namespace

Json text_message(std::string_view role, std::string_view content) {
  return {{"role", role}, {"content", content}};
}

Result<TemplateInput> read_template_input(Json json, bool add_generation_prompt) {
  TemplateInput input{.add_generation_prompt = add_generation_prompt};
  if (json.is_array()) {
    input.messages = std::move(json);
    return input;
  }
  if (!json.is_object() || !json.contains("messages")) {
    return usage("a conversation is a list of messages, or an object with \"messages\"");
  }
  input.messages = take(json, "messages");
  input.tools = take(json, "tools");
  input.documents = take(json, "documents");
  AIRLLM_TRY_VOID(read_continued(take(json, "continue_final_message"), input));
  // A message that is continued leaves no place for a new one.
  if (input.continue_field) input.add_generation_prompt = false;
  AIRLLM_TRY_VOID(
      read_generation_prompt(take(json, "add_generation_prompt"), input.add_generation_prompt));
  input.variables = std::move(json);
  return input;
}

Result<TemplateInput> prepare(const TemplateInput& input) {
  AIRLLM_TRY_VOID(check(input));
  TemplateInput out = input;
  for (Json& message : out.messages) message = with_reasoning(without_nulls(message));
  return out;
}

Result<std::string> mark_continued(TemplateInput& prepared, std::string_view source) {
  const std::string& field = *prepared.continue_field;
  Json& message = prepared.messages.back();
  if (!message.contains(field)) {
    return usage("the last message has no \"" + field + "\" that could be continued");
  }
  const Json final_value = message[field];
  std::vector<std::string> fields = {field};
  if (std::find(kReasoningFields.begin(), kReasoningFields.end(), field) !=
      kReasoningFields.end()) {
    // Whichever of the names the template reads.
    fields.clear();
    for (const char* name : kReasoningFields) {
      if (message.contains(name) && message[name] == final_value) fields.emplace_back(name);
    }
  }
  if (std::none_of(fields.begin(), fields.end(), [&](const std::string& name) {
        return source.find(name) != std::string_view::npos;
      })) {
    return usage("the template does not know \"" + field + "\", which is to be continued");
  }
  if (final_value.is_array()) return mark_part(message[field]);
  if (!final_value.is_string()) return usage("\"" + field + "\" of the last message is not a text");
  const auto continued = final_value.get<std::string>();
  for (const std::string& name : fields) message[name] = continued + std::string(kMarkAndSpace);
  return continued;
}

Result<size_t> continued_end(std::string_view rendered, std::string_view continued) {
  const size_t mark = rendered.rfind(kMark);
  if (mark == std::string_view::npos || rendered.find(strip(continued)) == std::string_view::npos) {
    return usage(
        "the template does not show the end of the last message, so that it cannot be continued");
  }
  if (rendered.substr(mark).starts_with(kMarkAndSpace)) return mark;
  return mark - jinja::spaces_at_end(rendered.substr(0, mark));
}

}  // namespace airllm::tokenizer
