// Conversations against transformers' apply_chat_template(tokenize=False), as
// tools/tokenizer_fixtures/conversations.py recorded it.
#include <gtest/gtest.h>

#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/template_input.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

const Json& expected() {
  static const Json fixture = read_fixture("chat_expected.json");
  return fixture;
}

TemplateInput input_of(const Json& conversation, bool prompt) {
  TemplateInput input{.messages = conversation["messages"], .add_generation_prompt = prompt};
  if (conversation.contains("tools")) input.tools = conversation["tools"];
  if (conversation.contains("documents")) input.documents = conversation["documents"];
  if (conversation.contains("variables")) input.variables = conversation["variables"];
  if (conversation.contains("continue")) {
    input.continue_field = conversation["continue"].get<std::string>();
  }
  return input;
}

std::string shown(const Result<std::vector<TextPart>>& parts) {
  if (!parts) return "refused: " + parts.error().message;
  std::string text;
  for (const TextPart& part : *parts) text += part.text;
  return text;
}

void expect_all(const ChatTemplate& compiled, const Json& record, const std::string& name) {
  const Json& conversations = expected()["conversations"];
  EXPECT_GT(conversations.size(), 50U);
  EXPECT_EQ(record["results"].size(), conversations.size() * 2);
  for (size_t i = 0; i < record["results"].size(); ++i) {
    const Json& conversation = conversations[i / 2];
    const auto parts = compiled.render(input_of(conversation, i % 2 == 1));
    const Json& result = record["results"][i];
    if (result.is_null()) {
      EXPECT_FALSE(parts) << name << " " << i << " " << conversation << "\n" << shown(parts);
      continue;
    }
    EXPECT_EQ(shown(parts), record["texts"][result.get<size_t>()].get<std::string>())
        << name << " " << i << " " << conversation;
  }
}

TEST(ChatExpected, StressTemplates) {
  const Json tokens = {{"bos_token", "<s>"},
                       {"eos_token", "</s>"},
                       {"unk_token", "<unk>"},
                       {"image_token", "<image>"}};
  ASSERT_GT(expected()["stress"].size(), 5U);
  for (const auto& [name, record] : expected()["stress"].items()) {
    const auto compiled = ChatTemplate::parse(record["source"].get<std::string>(), tokens, name);
    ASSERT_TRUE(compiled) << compiled.error().message;
    expect_all(**compiled, record, name);
  }
}

class PublishedTemplate : public testing::TestWithParam<const char*> {};

TEST_P(PublishedTemplate, AgreesWithTheReference) {
  const std::string name = GetParam();
  const std::string folder = AIRLLM_SOURCE_DIR "/../shared/tokenizers/" + name;
  TextFiles files;
  files.tokenizer_config_json = read_text(folder + "/tokenizer_config.json");
  if (!files.tokenizer_config_json) GTEST_SKIP() << folder << " is not there";
  const auto compiled = load_chat_template(files, name);
  ASSERT_TRUE(compiled) << compiled.error().message;
  ASSERT_NE(*compiled, nullptr);
  expect_all(**compiled, expected()["real"][name], name);
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTemplate,
                         testing::Values("chatglm3", "deepseek_v3", "internlm2", "llama3_1",
                                         "mistral_nemo", "qwen2_5", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace airllm::tokenizer
