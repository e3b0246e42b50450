#include "engine/tokenizer/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"
#include "engine/tokenizer/builtin_templates.h"
#include "engine/tokenizer/template_input.h"
#include "engine/tokenizer/tokenizer_config.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

std::vector<TextPart> to_parts(const text::MarkedText& text, size_t end) {
  std::vector<TextPart> parts;
  size_t begin = 0;
  for (const text::MarkedText::Run& run : text.runs()) {
    if (begin >= end) break;
    const size_t length = std::min(run.end, end) - begin;
    parts.push_back({text.text().substr(begin, length), run.origin == text::kUserOrigin});
    begin = run.end;
  }
  return parts;
}

jinja::Value user_text(const std::string& text) {
  return jinja::Value::string(text::MarkedText(text, text::kUserOrigin));
}

jinja::Value user_value(const Json& json) {
  if (json.is_string()) return user_text(json.get_ref<const std::string&>());
  if (json.is_array()) {
    jinja::List list;
    for (const Json& element : json) list.push_back(user_value(element));
    return jinja::Value::list(std::move(list));
  }
  if (json.is_object()) {
    jinja::Dict members;
    for (const auto& [name, value] : json.items()) members.set(user_text(name), user_value(value));
    return jinja::Value::dict(std::move(members));
  }
  return jinja::Value::from_json(json);
}

bool is_plain_role(const Json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || c == '_' || c == '-'; });
}

jinja::Value message_values(const Json& messages) {
  jinja::List list;
  for (const Json& message : messages) {
    jinja::Dict members;
    for (const auto& [key, value] : message.items()) {
      const bool is_role = key == "role" && is_plain_role(value);
      members.set(user_text(key), is_role ? jinja::Value::from_json(value) : user_value(value));
    }
    list.push_back(jinja::Value::dict(std::move(members)));
  }
  return jinja::Value::list(std::move(list));
}

// One template, compiled.
struct Compiled {
  std::string source;
  std::string what;
  jinja::Block block;

  static Result<Compiled> parse(std::string_view source, std::string_view what);
  Result<std::vector<TextPart>> render(const jinja::Map& special_tokens,
                                       TemplateInput prepared) const;
};

Result<Compiled> Compiled::parse(std::string_view source, std::string_view what) {
  if (source.size() > kMaxTemplateBytes) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": the template has " +
                                            std::to_string(source.size()) +
                                            " bytes; the limit is 1 MiB");
  }
  if (find_invalid_utf8(source) != kValidUtf8) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": the template is not UTF-8");
  }
  AIRLLM_TRY(jinja::Block block, jinja::parse(source, what));
  return Compiled{std::string(source), std::string(what), std::move(block)};
}

Result<std::vector<TextPart>> Compiled::render(const jinja::Map& special_tokens,
                                               TemplateInput prepared) const {
  std::string continued;
  if (prepared.continue_field) {
    AIRLLM_TRY(continued, mark_continued(prepared, source));
  }
  jinja::Map names = special_tokens;
  const auto define = [&names](const std::string& name, jinja::Value value) {
    names.emplace_back(name, std::move(value));  // the last one of a name counts
  };
  for (const auto& [key, value] : prepared.variables.items()) define(key, user_value(value));
  define("messages", message_values(prepared.messages));
  define("tools", user_value(prepared.tools));
  define("documents", user_value(prepared.documents));
  define("add_generation_prompt", jinja::Value::boolean(prepared.add_generation_prompt));
  AIRLLM_TRY(const text::MarkedText text, jinja::Evaluator(what, names, prepared.now).run(block));
  size_t end = text.size();
  if (prepared.continue_field) {
    AIRLLM_TRY(end, continued_end(text.text(), continued));
  }
  return to_parts(text, end);
}

class TemplateSet : public ChatTemplate {
 public:
  struct Entry {
    std::string name;
    Result<Compiled> compiled;
  };

  TemplateSet(bool single, std::vector<Entry> entries, const Json& special_tokens)
      : single_(single), entries_(std::move(entries)) {
    for (const auto& [key, value] : special_tokens.items()) {
      special_tokens_.emplace_back(key, jinja::Value::from_json(value));
    }
  }

  Result<std::vector<TextPart>> render(const TemplateInput& input) const override {
    AIRLLM_TRY(const Entry* entry, choose(input));
    AIRLLM_TRY(TemplateInput prepared, prepare(input));
    if (!entry->compiled) return Unexpected(entry->compiled.error());
    return entry->compiled->render(special_tokens_, std::move(prepared));
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const Entry& entry : entries_) names.push_back(entry.name);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  const Entry* find(std::string_view name) const {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.name == name; });
    return found == entries_.end() ? nullptr : &*found;
  }

  Result<const Entry*> choose(const TemplateInput& input) const {
    const Entry* entry = nullptr;
    if (!input.template_name.empty()) {
      entry = find(input.template_name);
    } else if (single_) {
      entry = &entries_.front();
    } else {
      if (!input.tools.is_null()) entry = find("tool_use");
      if (entry == nullptr) entry = find("default");
    }
    if (entry != nullptr) return entry;
    std::string list;
    for (const std::string& name : names()) list += (list.empty() ? "'" : ", '") + name + "'";
    const std::string missing =
        input.template_name.empty()
            ? "the model has several chat templates and none of them is the default"
            : "the model has no chat template '" + input.template_name + "'";
    return Unexpected(ErrorCode::kUsage, missing, "name one of " + list);
  }

  bool single_;
  std::vector<Entry> entries_;
  jinja::Map special_tokens_;
};

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string_view source,
                                                          const Json& special_tokens,
                                                          std::string_view what) {
  AIRLLM_TRY(Compiled compiled, Compiled::parse(source, what));
  std::vector<TemplateSet::Entry> entries;
  entries.push_back({"default", std::move(compiled)});
  return std::unique_ptr<ChatTemplate>(new TemplateSet(true, std::move(entries), special_tokens));
}

Result<std::unique_ptr<ChatTemplate>> load_chat_template(const TextFiles& files,
                                                         std::string_view where) {
  AIRLLM_TRY(const TokenizerConfig config, read_tokenizer_config(files, where));
  const TemplateSources& sources = config.chat_templates;
  if (sources.single) {
    const NamedTemplate& only = sources.templates.front();
    return ChatTemplate::parse(only.source, config.special_tokens, only.what);
  }
  if (!sources.templates.empty()) {
    std::vector<TemplateSet::Entry> entries;
    for (const NamedTemplate& t : sources.templates) {
      entries.push_back({t.name, Compiled::parse(t.source, t.what)});
    }
    return std::unique_ptr<ChatTemplate>(
        new TemplateSet(false, std::move(entries), config.special_tokens));
  }
  const BuiltinTemplate* builtin = find_builtin_template(files, config, where);
  if (builtin == nullptr) return std::unique_ptr<ChatTemplate>();
  return ChatTemplate::parse(
      builtin->source, config.special_tokens,
      std::string(where) + ": the built-in template " + std::string(builtin->name));
}

}  // namespace airllm::tokenizer
