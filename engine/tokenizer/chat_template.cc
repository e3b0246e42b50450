#include "engine/tokenizer/chat_template.h"

#include <utility>

#include "base/utf8.h"
#include "engine/tokenizer/jinja_evaluator.h"
#include "engine/tokenizer/jinja_parser.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

jinja::Value message_value(const TemplateMessage& message) {
  return jinja::Value::map(
      {{"role", jinja::Value::literal(message.role)},
       {"content", jinja::Value::string(MarkedText(message.content, kUserOrigin))}});
}

std::vector<TextPart> to_parts(const MarkedText& text) {
  std::vector<TextPart> parts;
  size_t begin = 0;
  for (const MarkedText::Run& run : text.runs()) {
    parts.push_back({text.text().substr(begin, run.end - begin), run.origin == kUserOrigin});
    begin = run.end;
  }
  return parts;
}

class JinjaTemplate : public ChatTemplate {
 public:
  JinjaTemplate(jinja::Block block, std::string_view what)
      : block_(std::move(block)), what_(what) {}

  Result<std::vector<TextPart>> render(const std::vector<TemplateMessage>& messages,
                                       bool add_generation_prompt,
                                       const Json& variables) const override {
    jinja::Map names;
    if (variables.is_object()) {
      for (const auto& [key, value] : variables.items()) {
        names.emplace_back(key, jinja::Value::from_json(value));
      }
    }
    jinja::List list;
    for (const TemplateMessage& message : messages) {
      // Code points are walked without checks from here on.
      if (find_invalid_utf8(message.role) != kValidUtf8 ||
          find_invalid_utf8(message.content) != kValidUtf8) {
        return Unexpected(ErrorCode::kData,
                          "message " + std::to_string(list.size() + 1) + " is not UTF-8");
      }
      list.push_back(message_value(message));
    }
    // A variable of the same name must not hide these.
    std::erase_if(names, [](const auto& entry) {
      return entry.first == "messages" || entry.first == "add_generation_prompt";
    });
    names.emplace_back("messages", jinja::Value::list(std::move(list)));
    names.emplace_back("add_generation_prompt", jinja::Value::boolean(add_generation_prompt));
    AIRLLM_TRY(const MarkedText text, jinja::Evaluator(what_, std::move(names)).run(block_));
    return to_parts(text);
  }

 private:
  jinja::Block block_;
  std::string what_;
};

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string_view source,
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
  return std::unique_ptr<ChatTemplate>(new JinjaTemplate(std::move(block), what));
}

}  // namespace airllm::tokenizer
