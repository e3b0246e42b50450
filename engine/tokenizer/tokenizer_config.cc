#include "engine/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "engine/tokenizer/fields.h"

namespace airllm::tokenizer {
namespace {

constexpr std::string_view kTokenSuffix = "_token";

// The text of a special token: a string, or an object that describes an added token.
Result<std::string> token_text(const Fields& fields, const std::string& key, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return fields.wrong(key, "a string or an object with \"content\"");
  return Fields(value, fields.where() + ": " + key).string("content");
}

// The special tokens of one file replace those of an earlier one; null unsets.
Status add_special_tokens(const Json& object, const Fields& fields, Json& tokens) {
  for (const auto& [key, value] : object.items()) {
    if (key == "extra_special_tokens" && value.is_object()) {
      for (const auto& [name, token] : value.items()) {
        AIRLLM_TRY(tokens[name], token_text(fields, name, token));
      }
      continue;
    }
    const bool standard = is_standard_token(key);
    const bool own = !standard && key.ends_with(kTokenSuffix) &&
                     (value.is_string() || (value.is_object() && value.contains("content")));
    if (value.is_null()) {
      if (standard) tokens.erase(key);
    } else if (standard || own) {
      AIRLLM_TRY(tokens[key], token_text(fields, key, value));
    }
  }
  return {};
}

// What the classes of transformers set where the file does not name the token, as of 5.24. A token
// that the file sets to null is not set.
struct ClassTokens {
  std::string_view name;
  std::initializer_list<std::pair<std::string_view, std::string_view>> tokens;
};
const std::array<ClassTokens, 7>& class_tokens() {
  static constexpr std::string_view kEnd = "<|endoftext|>";
  static const std::array<ClassTokens, 7> table = {{
      {"LlamaTokenizer", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}},
      {"CodeLlamaTokenizer", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}},
      {"Qwen2Tokenizer", {{"eos_token", kEnd}, {"unk_token", kEnd}, {"pad_token", kEnd}}},
      {"GPT2Tokenizer", {{"bos_token", kEnd}, {"eos_token", kEnd}, {"unk_token", kEnd}}},
      {"GPTNeoXTokenizer",
       {{"bos_token", kEnd},
        {"eos_token", kEnd},
        {"unk_token", kEnd},
        {"pad_token", "<|padding|>"}}},
      {"GemmaTokenizer",
       {{"bos_token", "<bos>"},
        {"eos_token", "<eos>"},
        {"unk_token", "<unk>"},
        {"pad_token", "<pad>"},
        {"mask_token", "<mask>"}}},
      {"CohereTokenizer",
       {{"bos_token", "<BOS_TOKEN>"},
        {"eos_token", "<|END_OF_TURN_TOKEN|>"},
        {"unk_token", "<UNK>"},
        {"sep_token", "<SEP>"},
        {"pad_token", "<PAD>"},
        {"cls_token", "<CLS>"},
        {"mask_token", "<MASK_TOKEN>"}}},
  }};
  return table;
}

void add_class_tokens(std::string_view name, const Json& object, Json& tokens) {
  constexpr std::string_view kFast = "Fast";
  if (name.ends_with(kFast)) name.remove_suffix(kFast.size());
  for (const ClassTokens& known : class_tokens()) {
    if (known.name != name) continue;
    for (const auto& [key, text] : known.tokens) {
      if (!object.contains(key)) tokens[std::string(key)] = std::string(text);
    }
  }
}

// "chat_template": the template itself, or a list of {"name", "template"}, of which a later one
// replaces an earlier one of the same name.
Result<TemplateSources> setting_templates(const Fields& fields) {
  TemplateSources out;
  const Json* value = fields.find("chat_template");
  if (value == nullptr) return out;
  const std::string what = fields.where() + ": chat_template";
  if (value->is_string()) {
    out.single = true;
    out.templates.push_back({"default", value->get<std::string>(), what});
    return out;
  }
  if (!value->is_array()) return fields.wrong("chat_template", "a string or a list");
  for (const Json& element : *value) {
    const Fields entry(element, what);
    AIRLLM_TRY(std::string name, entry.string("name"));
    AIRLLM_TRY(std::string source, entry.string("template"));
    std::erase_if(out.templates, [&name = name](const auto& t) { return t.name == name; });
    const std::string entry_what = what + " '" + name + "'";
    out.templates.push_back({std::move(name), std::move(source), entry_what});
  }
  return out;
}

TemplateSources file_templates(const TextFiles& files, std::string_view where) {
  TemplateSources out;
  const std::string folder(where);
  if (files.chat_template_jinja) {
    out.templates.push_back(
        {"default", *files.chat_template_jinja, folder + "/chat_template.jinja"});
  }
  for (const auto& [name, source] : files.additional_chat_templates) {
    std::erase_if(out.templates, [&name = name](const auto& t) { return t.name == name; });
    out.templates.push_back(
        {name, source, folder + "/additional_chat_templates/" + name + ".jinja"});
  }
  out.single = out.templates.size() == 1 && out.templates[0].name == "default";
  return out;
}

// "auto_map": {"AutoTokenizer": ["module.Class", null]}: the class that comes with the model, of
// which there may be a slow and a fast one.
std::string auto_class(const Fields& fields) {
  const Json* map = fields.find("auto_map");
  if (map == nullptr || !map->is_object()) return "";
  const auto found = map->find("AutoTokenizer");
  if (found == map->end()) return "";
  const Json& name = found->is_array() && !found->empty() ? found->front() : *found;
  if (!name.is_string()) return "";
  const auto& text = name.get_ref<const std::string&>();
  return text.substr(text.rfind('.') + 1);  // without a dot, from the beginning
}

}  // namespace

bool is_standard_token(std::string_view key) {
  return std::find(kStandardTokens.begin(), kStandardTokens.end(), key) != kStandardTokens.end();
}

Result<TokenizerConfig> read_tokenizer_config(const TextFiles& files, std::string_view where) {
  TokenizerConfig config;
  config.chat_templates = file_templates(files, where);
  bool has_decoder = false;
  if (files.tokenizer_config_json) {
    const std::string what = std::string(where) + "/tokenizer_config.json";
    AIRLLM_TRY(const Json object, parse_json_object(*files.tokenizer_config_json, what));
    const Fields fields(object, what);
    AIRLLM_TRY_VOID(add_special_tokens(object, fields, config.special_tokens));
    AIRLLM_TRY(config.tokenizer_class, fields.string_or("tokenizer_class", ""));
    config.auto_class = auto_class(fields);
    add_class_tokens(config.tokenizer_class, object, config.special_tokens);
    AIRLLM_TRY(TemplateSources setting, setting_templates(fields));
    if (config.chat_templates.templates.empty()) config.chat_templates = std::move(setting);
    has_decoder = object.contains("added_tokens_decoder");
  }
  if (files.special_tokens_map_json && !has_decoder) {
    const std::string what = std::string(where) + "/special_tokens_map.json";
    AIRLLM_TRY(const Json object, parse_json_object(*files.special_tokens_map_json, what));
    AIRLLM_TRY_VOID(add_special_tokens(object, Fields(object, what), config.special_tokens));
  }
  return config;
}

}  // namespace airllm::tokenizer
