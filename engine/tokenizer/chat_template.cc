#include "engine/tokenizer/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

std::vector<TextPart> to_parts(const text::MarkedText& text) {
  std::vector<TextPart> parts;
  size_t begin = 0;
  for (const text::MarkedText::Run& run : text.runs()) {
    parts.push_back({text.text().substr(begin, run.end - begin), run.origin == text::kUserOrigin});
    begin = run.end;
  }
  return parts;
}

// Every string is the user's, but for a message's role when it is a plain word: templates make
// control tokens of it ('<|' + role + '|>').
jinja::Value user_value(const Json& json, std::string_view key) {
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const bool is_role = key == "role" && std::all_of(text.begin(), text.end(), [](char c) {
                           return (c >= 'a' && c <= 'z') || c == '_' || c == '-';
                         });
    if (is_role) return jinja::Value::literal(text);
    return jinja::Value::string(text::MarkedText(text, text::kUserOrigin));
  }
  if (json.is_array()) {
    jinja::List list;
    for (const Json& element : json) list.push_back(user_value(element, ""));
    return jinja::Value::list(std::move(list));
  }
  if (json.is_object()) {
    jinja::Map map;
    for (const auto& [name, value] : json.items()) map.emplace_back(name, user_value(value, name));
    return jinja::Value::map(std::move(map));
  }
  return jinja::Value::from_json(json);
}

class JinjaTemplate : public ChatTemplate {
 public:
  JinjaTemplate(jinja::Block block, const Json& special_tokens, std::string_view what)
      : block_(std::move(block)), what_(what) {
    for (const auto& [key, value] : special_tokens.items()) {
      special_tokens_.emplace_back(key, jinja::Value::from_json(value));
    }
  }

  Result<std::vector<TextPart>> render(const TemplateInput& input) const override {
    AIRLLM_TRY_VOID(check_utf8(input));
    jinja::Map names = special_tokens_;
    const auto define = [&names](const std::string& name, jinja::Value value) {
      std::erase_if(names, [&](const auto& entry) { return entry.first == name; });
      names.emplace_back(name, std::move(value));
    };
    for (const auto& [key, value] : input.variables.items()) define(key, user_value(value, ""));
    // A variable of the same name must not hide these.
    define("messages", user_value(input.messages, ""));
    define("tools", user_value(input.tools, ""));
    define("documents", user_value(input.documents, ""));
    define("add_generation_prompt", jinja::Value::boolean(input.add_generation_prompt));
    AIRLLM_TRY(const text::MarkedText text, jinja::Evaluator(what_, std::move(names)).run(block_));
    return to_parts(text);
  }

 private:
  // Code points are walked without checks behind this.
  static Status check_utf8(const TemplateInput& input) {
    for (const Json* json : {&input.messages, &input.tools, &input.documents, &input.variables}) {
      try {
        json->dump();
      } catch (const Json::exception&) {
        return Unexpected(ErrorCode::kData, "a message is not UTF-8");
      }
    }
    return {};
  }

  jinja::Block block_;
  jinja::Map special_tokens_;
  std::string what_;
};

}  // namespace

Json text_message(std::string_view role, std::string_view content) {
  return {{"role", role}, {"content", content}};
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string_view source,
                                                          const Json& special_tokens,
                                                          std::string_view what) {
  if (source.size() > kMaxTemplateBytes) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": the template has " +
                                            std::to_string(source.size()) +
                                            " bytes; the limit is 1 MiB");
  }
  if (find_invalid_utf8(source) != kValidUtf8) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": the template is not UTF-8");
  }
  AIRLLM_TRY(jinja::Block block, jinja::parse(source, what));
  return std::unique_ptr<ChatTemplate>(new JinjaTemplate(std::move(block), special_tokens, what));
}

}  // namespace airllm::tokenizer
