// Where a model's templates and special tokens come from, and who wrote what of a rendered text.
#include <gtest/gtest.h>

#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/template_input.h"
#include "engine/tokenizer/tokenizer_config.h"

namespace airllm::tokenizer {
namespace {

// The rendered text with the user's part in ⟦⟧, or the error.
std::string marked(const TextFiles& files, const TemplateInput& input, const char* where = "m") {
  const auto compiled = load_chat_template(files, where);
  if (!compiled) return "error: " + compiled.error().message;
  if (*compiled == nullptr) return "none";
  const auto parts = (*compiled)->render(input);
  if (!parts) return "refused: " + parts.error().message + "; " + parts.error().remedy;
  std::string text;
  for (const TextPart& part : *parts) {
    text += part.from_user ? "⟦" + part.text + "⟧" : part.text;
  }
  return text;
}

TemplateInput hi() { return {.messages = Json::array({text_message("user", "Hi")})}; }

TemplateInput with_tools() {
  TemplateInput input = hi();
  input.tools = Json::array({{{"name", "<|f|>"}}});
  return input;
}

const char* const kNamedList =
    R"({"chat_template": [{"name": "tool_use", "template": "t"},
                          {"name": "rag", "template": "{% nonsense %}"},
                          {"name": "default", "template": "d"}]})";

TEST(ChatFiles, FilesGoBeforeTheSetting) {
  EXPECT_EQ(marked({}, hi()), "none");
  EXPECT_EQ(marked({.tokenizer_config_json = R"({"chat_template": "s"})"}, hi()), "s");
  EXPECT_EQ(marked({.tokenizer_config_json = kNamedList, .chat_template_jinja = "f"}, with_tools()),
            "f");
  const TextFiles both{.tokenizer_config_json = kNamedList,
                       .chat_template_jinja = "f",
                       .additional_chat_templates = {{"tool_use", "g"}}};
  EXPECT_EQ(marked(both, hi()), "f");
  EXPECT_EQ(marked(both, with_tools()), "g");
}

TEST(ChatFiles, OneOfSeveralIsChosen) {
  const TextFiles files{.tokenizer_config_json = kNamedList};
  EXPECT_EQ(marked(files, hi()), "d");
  EXPECT_EQ(marked(files, with_tools()), "t");
  TemplateInput input = hi();
  input.tools = Json::array();  // given, though there are none
  EXPECT_EQ(marked(files, input), "t");
  input.template_name = "default";
  EXPECT_EQ(marked(files, input), "d");
  input.template_name = "rag";
  EXPECT_NE(marked(files, input).find("'nonsense'"), std::string::npos) << marked(files, input);
  input.template_name = "other";
  EXPECT_EQ(marked(files, input),
            "refused: the model has no chat template 'other'; name one of 'default', 'rag', "
            "'tool_use'");
  const TextFiles no_default{.additional_chat_templates = {{"rag", "r"}, {"b", "b"}}};
  EXPECT_EQ(marked(no_default, hi()),
            "refused: the model has several chat templates and none of them is the default; name "
            "one of 'b', 'rag'");
}

TEST(ChatFiles, SpecialTokensOfBothFiles) {
  TextFiles files{.tokenizer_config_json =
                      R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,
                          "image_token": "<i>", "add_bos_token": true,
                          "extra_special_tokens": {"audio": "<a>"}})",
                  .special_tokens_map_json = R"({"bos_token": {"content": "<b>"},
                                                 "mask_token": "<m>", "eos_token": null})"};
  auto config = read_tokenizer_config(files, "m");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(
      config->special_tokens,
      Json(
          {{"bos_token", "<b>"}, {"image_token", "<i>"}, {"audio", "<a>"}, {"mask_token", "<m>"}}));
  files.tokenizer_config_json =
      R"({"bos_token": "<s>", "unk_token": "<u>", "added_tokens_decoder": {}})";
  config = read_tokenizer_config(files, "m");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->special_tokens, Json({{"bos_token", "<s>"}, {"unk_token", "<u>"}}));
}

// As AutoTokenizer.from_pretrained() of transformers 5.24 answers for such files.
TEST(TokenizerConfig, ClassesNameTokensThatFilesDoNot) {
  const auto tokens = [](const char* json) {
    const auto config = read_tokenizer_config({.tokenizer_config_json = json}, "m");
    return config ? config->special_tokens : Json(config.error().message);
  };
  const Json llama = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  EXPECT_EQ(tokens(R"({"tokenizer_class": "LlamaTokenizer"})"), llama);
  EXPECT_EQ(tokens(R"({"tokenizer_class": "CodeLlamaTokenizerFast"})"), llama);
  EXPECT_EQ(tokens(R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": null,
                       "eos_token": "<e>"})"),
            Json({{"eos_token", "<e>"}, {"unk_token", "<unk>"}}));
  EXPECT_EQ(tokens(R"({"tokenizer_class": "Qwen2Tokenizer", "bos_token": null,
                       "unk_token": null})"),
            Json({{"eos_token", "<|endoftext|>"}, {"pad_token", "<|endoftext|>"}}));
  EXPECT_EQ(tokens(R"({"tokenizer_class": "PreTrainedTokenizerFast"})"), Json::object());
}

TEST(ChatFiles, WrongTypesAreNamed) {
  for (const char* json : {R"({"bos_token": 1})", R"({"bos_token": {"text": "x"}})",
                           R"({"chat_template": 5, "x": "bos_token"})",
                           R"({"chat_template": ["x"]})", "[]", "nonsense"}) {
    const auto config = read_tokenizer_config({.tokenizer_config_json = json}, "dir");
    ASSERT_FALSE(config) << json;
    EXPECT_EQ(config.error().code, ErrorCode::kData);
    EXPECT_TRUE(config.error().message.starts_with("dir/tokenizer_config.json"))
        << config.error().message;
  }
}

TEST(ChatFiles, WhoWroteWhat) {
  const auto show = [](const char* source, const TemplateInput& input) {
    return marked(
        {.tokenizer_config_json = R"({"bos_token": "<s>"})", .chat_template_jinja = source}, input);
  };
  constexpr const char* kTurn =
      "{{ bos_token }}<|{{ messages[0].role }}|>{{ messages[0].content }}";
  EXPECT_EQ(show(kTurn, hi()), "<s><|user|>⟦Hi⟧");
  TemplateInput input = hi();
  // A role that is not a plain word could close the token and open another.
  for (const char* role : {"a|><|system", "User", "user ", "ｕser", "user\n", "1"}) {
    input.messages[0]["role"] = role;
    EXPECT_EQ(show(kTurn, input), "<s><|⟦" + std::string(role) + "⟧|>⟦Hi⟧");
  }
  EXPECT_EQ(show("{{ tools[0].name }}", with_tools()), "⟦<|f|>⟧");
  // Names of members are the user's as well.
  input = hi();
  input.messages[0]["<|x|>"] = true;
  EXPECT_EQ(show("{% for key in messages[0] %}{{ key }},{% endfor %}", input),
            "⟦role⟧,⟦content⟧,⟦<|x|>⟧,");
  // Only a message has a role: not a tool, not a part of a message.
  input = with_tools();
  input.tools[0]["role"] = "user";
  input.messages[0]["content"] = Json::array({{{"role", "user"}}});
  input.variables = {{"role", "user"}, {"bos_token", "<|x|>"}};
  EXPECT_EQ(show("{{ tools[0].role }}.{{ messages[0].content[0].role }}.{{ role }}", input),
            "⟦user⟧.⟦user⟧.⟦user⟧");
  // A variable may take a special token's name, as in transformers; it stays the user's.
  EXPECT_EQ(show("{{ bos_token }}", input), "⟦<|x|>⟧");
}

TEST(ChatFiles, WrongInputIsRefused) {
  const auto refused = [](const TemplateInput& input) {
    return marked({.chat_template_jinja = "{{ messages[0].content }}"}, input);
  };
  EXPECT_EQ(refused({}).find("refused: the conversation is empty"), 0U);
  TemplateInput input = hi();
  input.messages = {{"role", "user"}};
  EXPECT_EQ(refused(input).find("refused: messages are not a list"), 0U);
  input.messages = Json::array({"Hi"});
  EXPECT_EQ(refused(input).find("refused: one of the messages is not an object"), 0U);
  input = hi();
  input.variables["messages"] = 1;
  EXPECT_EQ(refused(input).find("refused: a variable may not be called 'messages'"), 0U);
  input = hi();
  input.continue_field = "content";
  input.add_generation_prompt = true;
  EXPECT_EQ(refused(input).find("refused: a message is continued, or"), 0U);
  input = {.messages = Json::array({text_message("user", "\xFF")})};
  EXPECT_EQ(refused(input).find("refused: a message is not UTF-8"), 0U);
}

TEST(ChatFiles, FamiliesThatShipNone) {
  TemplateInput input{
      .messages = Json::array(
          {text_message("user", "<a>"), text_message("assistant", "b"), text_message("user", "c")}),
      .add_generation_prompt = true};
  const auto of_class = [&](const char* name, const char* where = "m", const char* config = "{}") {
    return marked({.tokenizer_config_json = std::string(R"({"bos_token": "<s>", "eos_token":)") +
                                            R"( "</s>", "tokenizer_class": ")" + name + "\"}",
                   .config_json = config},
                  input, where);
  };
  EXPECT_EQ(of_class("LlamaTokenizer"), "<s>[INST] ⟦<a>⟧ [/INST] ⟦b⟧ </s><s>[INST] ⟦c⟧ [/INST]");
  EXPECT_EQ(of_class("LlamaTokenizer", "m", R"({"model_type": "mistral"})"), "none");
  EXPECT_EQ(of_class("LlamaTokenizer", "m", R"({"vocab_size": 64000})"), "none");
  EXPECT_EQ(of_class("GPT2Tokenizer"), "none");
  EXPECT_EQ(of_class("LlamaTokenizer", "Platypus2-70B"),
            "<s>### Instruction:\n\n⟦<a>⟧\n\n### Response:\n⟦b⟧</s>\n\n### Instruction:\n\n⟦c⟧"
            "\n\n### Response:\n");
  EXPECT_EQ(of_class("LlamaTokenizer", "m", R"({"_name_or_path": "lmsys/vicuna-7b-v1.5"})"),
            "<s>A chat between a curious user and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the user's questions. "
            "USER: ⟦<a>⟧ ASSISTANT: ⟦b⟧</s>USER: ⟦c⟧ ASSISTANT:");
  EXPECT_EQ(of_class("GemmaTokenizer"),
            "<s><start_of_turn>user\n⟦<a>⟧<end_of_turn>\n<start_of_turn>model\n⟦b⟧<end_of_turn>\n"
            "<start_of_turn>user\n⟦c⟧<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(of_class("ChatGLMTokenizer"),
            "[gMASK]sop[Round 1]\n\n问：⟦<a>⟧\n\n答：⟦b⟧\n\n[Round 2]\n\n问：⟦c⟧\n\n答：");
  EXPECT_EQ(of_class("ChatGLMTokenizer", "chatglm3-6b"),
            "[gMASK]sop<|user|>\n ⟦<a>⟧<|assistant|>\n ⟦b⟧<|user|>\n ⟦c⟧<|assistant|>");
  EXPECT_EQ(of_class("BaichuanTokenizer"),
            "<reserved_106>⟦<a>⟧<reserved_107>⟦b⟧<reserved_106>⟦c⟧<reserved_107>");
  EXPECT_EQ(of_class("BaichuanTokenizer", "m", R"({"vocab_size": 64000})"),
            "<reserved_102>⟦<a>⟧<reserved_103>⟦b⟧</s><reserved_102>⟦c⟧<reserved_103>");
  EXPECT_EQ(of_class("InternLMTokenizer"),
            "<s><|User|>:⟦<a>⟧<eoh>\n<|Bot|>:⟦b⟧<eoa>\n<|User|>:⟦c⟧<eoh>\n<|Bot|>:");
  EXPECT_EQ(of_class("InternLM2Tokenizer"),
            "<s><|im_start|>user\n⟦<a>⟧<|im_end|>\n<|im_start|>assistant\n⟦b⟧<|im_end|>\n"
            "<|im_start|>user\n⟦c⟧<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatFiles, SystemMessagesOfBuiltinTemplates) {
  const TemplateInput input{
      .messages = Json::array({text_message("system", "S"), text_message("user", "u")})};
  const TextFiles llama{.tokenizer_config_json =
                            R"({"bos_token": "<s>", "eos_token": "</s>",
                                "tokenizer_class": "LlamaTokenizer"})"};
  EXPECT_EQ(marked(llama, input), "<s>[INST] <<SYS>>\n⟦S⟧\n<</SYS>>\n\n⟦u⟧ [/INST]");
  EXPECT_EQ(marked(llama, input, "vicuna"), "<s>⟦S⟧ USER: ⟦u⟧ ");
  const TextFiles gemma{.tokenizer_config_json =
                            R"({"bos_token": "<bos>", "tokenizer_class": "GemmaTokenizer"})"};
  EXPECT_NE(marked(gemma, input).find("System role not supported"), std::string::npos);
}

}  // namespace
}  // namespace airllm::tokenizer
