#include "engine/tokenizer/builtin_templates.h"

#include <algorithm>
#include <vector>

namespace airllm::tokenizer {
namespace {

// Source: generation.py of facebookresearch/llama (chat_completion), and the model card of
// Llama-2-7b-chat-hf.
constexpr BuiltinTemplate kLlama2{"llama-2", R"({%- set ns = namespace(system='') -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set ns.system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for message in turns -%}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
  {%- endif -%}
  {%- if message['role'] == 'user' -%}
    {%- set content = message['content'] -%}
    {%- if loop.first -%}{%- set content = ns.system + content -%}{%- endif -%}
    {{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- ' ' + message['content'].strip() + ' ' + eos_token -}}
  {%- else -%}
    {{- raise_exception('Only user, system and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%})"};

// Source: "Formatting and system instructions" of the Gemma documentation (ai.google.dev/gemma),
// and the model card of gemma-7b-it.
constexpr BuiltinTemplate kGemma{"gemma", R"({{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
  {{- raise_exception('System role not supported') -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
  {%- endif -%}
  {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
  {{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%})"};

// Source: build_prompt() and get_prefix_tokens() of tokenization_chatglm.py in chatglm2-6b.
constexpr BuiltinTemplate kChatGlm2{"chatglm2", R"({{- '[gMASK]sop' -}}
{%- set ns = namespace(round=0) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- set ns.round = ns.round + 1 -%}
    {{- '[Round ' ~ ns.round ~ ']\n\n问：' + message['content'] + '\n\n答：' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- message['content'] + '\n\n' -}}
  {%- else -%}
    {{- raise_exception('Only user and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%})"};

// Source: PROMPT.md of THUDM/ChatGLM3, and the tokenizer_config.json of chatglm3-6b.
constexpr BuiltinTemplate kChatGlm3{"chatglm3", R"({{- '[gMASK]sop' -}}
{%- for message in messages -%}
  {{- '<|' + message['role'] + '|>\n ' + message['content'] -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%})"};

// Source: _build_chat_input() of modeling_baichuan.py in Baichuan-13B-Chat; its user_token_id 195
// and assistant_token_id 196 are these tokens.
constexpr BuiltinTemplate kBaichuan1{"baichuan", R"({%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '<reserved_102>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<reserved_103>' + message['content'] + eos_token -}}
  {%- else -%}
    {{- raise_exception('Only user and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<reserved_103>' -}}{%- endif -%})"};

// Source: build_chat_input() of generation_utils.py in Baichuan2-7B-Chat; its user_token_id 195 and
// assistant_token_id 196 are these tokens.
constexpr BuiltinTemplate kBaichuan2{"baichuan2", R"({%- for message in messages -%}
  {%- if message['role'] == 'system' and loop.first -%}
    {{- message['content'] -}}
  {%- elif message['role'] == 'user' -%}
    {{- '<reserved_106>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<reserved_107>' + message['content'] -}}
  {%- else -%}
    {{- raise_exception('Only user and assistant roles, and a system message in front') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<reserved_107>' -}}{%- endif -%})"};

// Source: build_inputs() of modeling_internlm.py in internlm-chat-7b.
constexpr BuiltinTemplate kInternLm1{"internlm", R"({{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {{- '<|System|>:' + message['content'] + '\n' -}}
  {%- elif message['role'] == 'user' -%}
    {{- '<|User|>:' + message['content'] + '<eoh>\n' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<|Bot|>:' + message['content'] + '<eoa>\n' -}}
  {%- else -%}
    {{- raise_exception('Only user, system and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|Bot|>:' -}}{%- endif -%})"};

// Source: build_inputs() of modeling_internlm2.py in internlm2-chat-7b, and its
// tokenizer_config.json.
constexpr BuiltinTemplate kInternLm2{"internlm2", R"({{- bos_token -}}
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%})"};

// Source: docs/vicuna_weights_version.md ("Prompt Template", v1.1 and later) and conversation.py of
// lm-sys/FastChat.
constexpr BuiltinTemplate kVicuna{"vicuna", R"({%- set turns = messages -%}
{%- set system = "A chat between a curious user and an artificial intelligence assistant. )"
                                            R"(The assistant gives helpful, detailed, and polite )"
                                            R"(answers to the user's questions." -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{{- bos_token + system + ' ' -}}
{%- for message in turns -%}
  {%- if message['role'] == 'user' -%}
    {{- 'USER: ' + message['content'] + ' ' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- 'ASSISTANT: ' + message['content'] + eos_token -}}
  {%- else -%}
    {{- raise_exception('Only user, system and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%})"};

// Source: "Prompt Template for base LLaMA" on the model card of Platypus2-70B-instruct; the frame
// is that of tatsu-lab/stanford_alpaca.
constexpr BuiltinTemplate kAlpaca{"alpaca", R"({{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {{- message['content'] + '\n\n' -}}
  {%- elif message['role'] == 'user' -%}
    {{- '### Instruction:\n\n' + message['content'] + '\n\n' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '### Response:\n' + message['content'] + eos_token + '\n\n' -}}
  {%- else -%}
    {{- raise_exception('Only user, system and assistant roles are supported') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\n' -}}{%- endif -%})"};

constexpr uint64_t kLlama2Vocabulary = 32000;
constexpr uint64_t kBaichuan1Vocabulary = 64000;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

std::string string_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

struct Family {
  std::string hint;         // names that people gave
  std::string kind;         // names that programs gave
  std::string model_type;   // empty: not known
  uint64_t vocabulary = 0;  // 0: not known

  bool hints(std::string_view word) const { return hint.find(word) != std::string::npos; }
  bool is(std::string_view word) const { return kind.find(word) != std::string::npos; }
};

Family family_of(const TextFiles& files, const TokenizerConfig& config, std::string_view where) {
  Family family;
  family.hint = lower(std::string(where));
  family.kind = lower(config.tokenizer_class);
  if (!files.config_json) return family;
  const auto json = parse_json(*files.config_json, "config.json");
  if (!json || !json->is_object()) return family;
  family.hint += " " + lower(string_of(*json, "_name_or_path"));
  family.model_type = lower(string_of(*json, "model_type"));
  family.kind += " " + family.model_type;
  const auto architectures = json->find("architectures");
  if (architectures != json->end() && architectures->is_array() && !architectures->empty() &&
      architectures->front().is_string()) {
    family.kind += " " + lower(architectures->front().get<std::string>());
  }
  const auto size = json->find("vocab_size");
  if (size != json->end() && size->is_number_unsigned()) family.vocabulary = size->get<uint64_t>();
  return family;
}

const BuiltinTemplate* chatglm(const Family& family, const TextFiles& files,
                               const TokenizerConfig& config) {
  if (string_of(config.special_tokens, "bos_token") == "<sop>") return nullptr;
  const bool has_roles = files.tokenizer_config_json &&
                         files.tokenizer_config_json->find("\"<|user|>\"") != std::string::npos;
  return has_roles || family.hints("chatglm3") ? &kChatGlm3 : &kChatGlm2;
}

bool is_llama2(const Family& family, const TokenizerConfig& config) {
  return config.tokenizer_class.starts_with("LlamaTokenizer") &&
         (family.model_type.empty() || family.model_type == "llama") &&
         (family.vocabulary == 0 || family.vocabulary == kLlama2Vocabulary) &&
         string_of(config.special_tokens, "bos_token") == "<s>" &&
         string_of(config.special_tokens, "eos_token") == "</s>";
}

}  // namespace

const BuiltinTemplate* find_builtin_template(const TextFiles& files, const TokenizerConfig& config,
                                             std::string_view where) {
  const Family family = family_of(files, config, where);
  if (family.hints("platypus") || family.hints("alpaca")) return &kAlpaca;
  if (family.hints("vicuna")) return &kVicuna;
  if (family.is("gemmatokenizer") || family.model_type == "gemma" ||
      family.model_type == "gemma2") {
    return &kGemma;
  }
  if (family.is("chatglm")) return chatglm(family, files, config);
  if (family.is("baichuan")) {
    return family.vocabulary == kBaichuan1Vocabulary ? &kBaichuan1 : &kBaichuan2;
  }
  if (family.is("internlm2")) return &kInternLm2;
  if (family.is("internlm")) return &kInternLm1;
  return is_llama2(family, config) ? &kLlama2 : nullptr;
}

}  // namespace airllm::tokenizer
