// Conversations against transformers' apply_chat_template(tokenize=False), as
// tools/tokenizer_fixtures/conversations.py recorded it.
#include <gtest/gtest.h>

#include "engine/tokenizer/chat_template.h"
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

// What the interpreter says of a part of the language that it does not know. Such a test is skipped
// visibly; any other difference fails.
bool is_gap(const Error& error) {
  return error.code == ErrorCode::kData && error.message.ends_with(" is not supported");
}

// How many results are out of the interpreter's reach.
size_t expect_all(const ChatTemplate& compiled, const Json& record, const std::string& name) {
  size_t gaps = 0;
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
    if (!parts && is_gap(parts.error())) {
      ++gaps;
      continue;
    }
    EXPECT_EQ(shown(parts), record["texts"][result.get<size_t>()].get<std::string>())
        << name << " " << i << " " << conversation;
  }
  return gaps;
}

TEST(ChatExpected, StressTemplates) {
  const Json tokens = {{"bos_token", "<s>"},
                       {"eos_token", "</s>"},
                       {"unk_token", "<unk>"},
                       {"image_token", "<image>"}};
  ASSERT_GT(expected()["stress"].size(), 5U);
  size_t gaps = 0;
  for (const auto& [name, record] : expected()["stress"].items()) {
    const auto compiled = ChatTemplate::parse(record["source"].get<std::string>(), tokens, name);
    ASSERT_TRUE(compiled) << compiled.error().message;
    gaps += expect_all(**compiled, record, name);
  }
  if (gaps != 0) GTEST_SKIP() << gaps << " results need more of the language";
}

class PublishedTemplate : public testing::TestWithParam<const char*> {};

TEST_P(PublishedTemplate, AgreesWithTheReference) {
  const std::string name = GetParam();
  const std::string folder = AIRLLM_SOURCE_DIR "/../shared/tokenizers/" + name;
  TextFiles files;
  files.tokenizer_config_json = read_text(folder + "/tokenizer_config.json");
  if (!files.tokenizer_config_json) GTEST_SKIP() << folder << " is not there";
  const auto compiled = load_chat_template(files, name);
  if (!compiled && is_gap(compiled.error())) GTEST_SKIP() << compiled.error().message;
  ASSERT_TRUE(compiled) << compiled.error().message;
  ASSERT_NE(*compiled, nullptr);
  const size_t gaps = expect_all(**compiled, expected()["real"][name], name);
  if (gaps != 0) GTEST_SKIP() << gaps << " results need more of the language";
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTemplate,
                         testing::Values("chatglm3", "deepseek_v3", "internlm2", "llama3_1",
                                         "mistral_nemo", "qwen2_5", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace airllm::tokenizer
