#include "engine/tokenizer/chat_template.h"

#include <gtest/gtest.h>

#include "engine/tokenizer/template_input.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

const Json kTokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};

using Messages = std::vector<std::pair<std::string, std::string>>;  // role, content

Result<std::vector<TextPart>> render(const std::string& source, const Messages& messages,
                                     bool add_generation_prompt = false) {
  AIRLLM_TRY(const auto compiled, ChatTemplate::parse(source, kTokens, "t"));
  TemplateInput input{.add_generation_prompt = add_generation_prompt};
  for (const auto& [role, content] : messages) {
    input.messages.push_back(text_message(role, content));
  }
  if (messages.empty()) input.messages.push_back(text_message("user", "x"));
  return compiled->render(input);
}

std::string joined(const std::vector<TextPart>& parts) {
  std::string text;
  for (const TextPart& part : parts) text += part.text;
  return text;
}

TEST(ChatTemplate, AgreesWithJinja) {
  const Json fixture = read_fixture("templates.json");
  Messages messages;
  for (const Json& message : fixture["messages"]) {
    messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
  }
  ASSERT_GT(fixture["cases"].size(), 80U);
  for (const Json& c : fixture["cases"]) {
    const auto source = c["source"].get<std::string>();
    const auto parts = render(source, messages, c["add_generation_prompt"].get<bool>());
    ASSERT_TRUE(parts) << source << "\n" << parts.error().message;
    EXPECT_EQ(joined(*parts), c["text"].get<std::string>()) << source;
  }
}

// What apply_chat_template() does before jinja2 sees a conversation.
TEST(ChatTemplate, ConversationsArePreparedAsByTransformers) {
  const auto prompt = [](const std::string& source, const Json& messages) -> std::string {
    const auto compiled = ChatTemplate::parse(source, kTokens, "t");
    if (!compiled) return compiled.error().message;
    TemplateInput input;
    input.messages = messages;
    const auto parts = (*compiled)->render(input);
    return parts ? joined(*parts) : "ERROR " + parts.error().message;
  };
  const auto one = [](Json fields) {
    fields["role"] = "assistant";
    return Json::array({fields});
  };
  // Keys that are null are not there.
  EXPECT_EQ(prompt("{{ messages[0].content is defined }}{{ 'content' in messages[0] }}",
                   one({{"content", nullptr}})),
            "FalseFalse");
  const std::string reasoning =
      "{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}/{{ messages[0].reasoning }}";
  EXPECT_EQ(prompt(reasoning, one({{"reasoning_content", "a"}})), "a/a/");
  EXPECT_EQ(prompt(reasoning, one({{"thinking", "a"}})), "a/a/");
  EXPECT_EQ(prompt(reasoning, one({{"reasoning", "a"}})), "a/a/a");
  const Json hi = one({{"content", "Hi"}});
  EXPECT_EQ(prompt("{{ tools is none }}{{ documents is none }}{{ tools is defined }}", hi),
            "TrueTrueTrue");
  EXPECT_EQ(prompt("{{ bos_token }}{{ pad_token is defined }}{{ pad_token }}", hi), "<s>False");
  EXPECT_EQ(prompt("{{ add_generation_prompt }}", hi), "False");
  EXPECT_TRUE(prompt("x", Json::array()).starts_with("ERROR the conversation is empty"));
}

TEST(ChatTemplate, TheTimeIsTheInputs) {
  using namespace std::chrono;
  const auto compiled = ChatTemplate::parse("{{ strftime_now('%d %b %Y %H:%M') }}", kTokens, "t");
  ASSERT_TRUE(compiled);
  TemplateInput input;
  input.messages = Json::array({text_message("user", "x")});
  input.now = local_days(year(2024) / February / 29) + hours(5);
  const auto parts = (*compiled)->render(input);
  ASSERT_TRUE(parts);
  EXPECT_EQ(joined(*parts), "29 Feb 2024 05:00");
  input.now.reset();
  EXPECT_TRUE((*compiled)->render(input).has_value());
}

TEST(ChatTemplate, ContentIsMarkedAndNothingElse) {
  const auto parts = render(
      "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m['content'] | trim + '.' }}"
      "{% endfor %}",
      {{"user", "  hi "}, {"assistant", ""}});
  ASSERT_TRUE(parts);
  ASSERT_EQ(parts->size(), 3U);
  EXPECT_EQ((*parts)[0].text, "<s><|user|>");
  EXPECT_FALSE((*parts)[0].from_user);
  EXPECT_EQ((*parts)[1].text, "hi");
  EXPECT_TRUE((*parts)[1].from_user);
  EXPECT_EQ((*parts)[2].text, ".<|assistant|>.");
  EXPECT_FALSE((*parts)[2].from_user);
}

TEST(ChatTemplate, OperationsKeepTheMark) {
  for (const std::string expression :
       {"m.content | upper", "m.content[2:]", "m.content ~ ''", "(m.content | string)",
        "m.content[0]", "m.content.strip()", "[m.content][0]", "m.content | lower | trim",
        "x | default(m.content)"}) {
    const auto parts =
        render("{% set m = messages[0] %}{{ " + expression + " }}", {{"user", "<|x|>"}});
    ASSERT_TRUE(parts) << expression << parts.error().message;
    ASSERT_EQ(parts->size(), 1U) << expression;
    EXPECT_TRUE((*parts)[0].from_user) << expression;
  }
}

TEST(ChatTemplate, RaiseExceptionIsAUsageError) {
  const auto parts = render("{{ raise_exception('roles must ' + 'alternate') }}", {});
  ASSERT_FALSE(parts);
  EXPECT_EQ(parts.error().code, ErrorCode::kUsage);
  EXPECT_NE(parts.error().message.find("roles must alternate"), std::string::npos);
}

TEST(ChatTemplate, WhatIsNotKnownIsNamedWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n\n{% macro f() %}", "line 3: a block is not closed with {% endmacro %}"},
      {"{{ 'a' | nosuch }}", "unknown filter 'nosuch'"},
      {"{{ x is nosuch }}", "unknown test 'nosuch'"},
      {"{{ nosuch() }}", "'nosuch' is undefined"},
      {"{{ 'a'.nosuch() }}", "'str object' has no attribute 'nosuch'"},
      {"{% nosuch %}", "unknown tag 'nosuch'"},
      {"{% include 'x' %}", "the tag 'include' is not supported"},
      {"{{ 'a' | urlize }}", "the filter 'urlize' is not supported"},
      {"{{ x | tojson }}", "Undefined is not JSON serializable"},
      {"{{ x is divisibleby }}", "the test 'divisibleby' takes"},
      {"{% if true %}", "not closed with {% endif %}"},
      {"{{ 'a }}", "a string is not closed"},
      {"{{ a", "not closed"},
      {"{# a", "not closed"},
      {"{{ }}", "ends too early"},
      {"{{ 1 + }}", "ends too early"},
      {"{{ (1] }}", "unexpected ']'"},
      {"{{ ) }}", "unexpected ')'"},
      {"{% endfor %}", "unknown tag 'endfor'"},
      {"{{ 99999999999999999999 }}", "does not fit into 64 bits"},
      {"{{ 9223372036854775807 + 1 }}", "does not fit into 64 bits"},
      {"{{ 1 % 0 }}", "division by zero"},
      {"{{ x.y.z }}", "'x' is undefined"},
      {"{{ 1 + 'a' }}", "'+' does not work on int and str"},
      {"{{ messages.append(1) }}", "'append' of 'list' object is unsafe"},
      {"{% set messages.x = 1 %}", "'messages' is not a namespace"},
  };
  for (const auto& [source, problem] : cases) {
    const auto parts = render(source, {});
    ASSERT_FALSE(parts) << source;
    EXPECT_EQ(parts.error().code, ErrorCode::kData) << source;
    EXPECT_NE(parts.error().message.find(problem), std::string::npos) << source << "\n"
                                                                      << parts.error().message;
    EXPECT_TRUE(parts.error().message.starts_with("t: line ")) << parts.error().message;
  }
}

std::string repeated(const std::string& text, size_t count) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

TEST(ChatTemplate, DepthIsLimited) {
  for (const std::string& source :
       {"{{ " + repeated("(", 100000) + repeated(")", 100000) + " }}",
        "{{ " + repeated("-", 100000) + "1 }}",
        "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}",
        "{{ " + repeated("not ", 100000) + "1 }}", "{{ 1" + repeated(" + 1", 100000) + " }}",
        "{{ x" + repeated("[0]", 100000) + " }}", "{{ 'a'" + repeated(" | trim", 100000) + " }}",
        repeated("{% if true %}", 50000)}) {
    const auto parts = render(source, {});
    ASSERT_FALSE(parts) << source.substr(0, 20);
    EXPECT_NE(parts.error().message.find("deep"), std::string::npos) << parts.error().message;
  }
}

TEST(ChatTemplate, StepsAndTextAreLimited) {
  const std::string ten = "[1,2,3,4,5,6,7,8,9,0]";
  std::string loops = "x";
  for (int i = 0; i < 9; ++i) loops = "{% for v in " + ten + " %}" + loops + "{% endfor %}";
  const auto slow = render(loops, {});
  ASSERT_FALSE(slow);
  EXPECT_NE(slow.error().message.find("too long"), std::string::npos) << slow.error().message;
  // 2^40 bytes if it were let.
  const std::string doubling = "{% set ns = namespace(s='aaaaaaaaaa') %}{% for a in " + ten +
                               " %}{% for b in " + ten +
                               " %}{% set ns.s = ns.s + ns.s %}{% endfor %}{% endfor %}";
  const auto large = render(doubling, {});
  ASSERT_FALSE(large);
  EXPECT_NE(large.error().message.find("too much text"), std::string::npos);
}

TEST(ChatTemplate, BundledTemplateRenders) {
  TextFiles files;
  files.tokenizer_config_json = read_text(AIRLLM_SOURCE_DIR "/models/demo/tokenizer_config.json");
  if (!files.tokenizer_config_json) GTEST_SKIP() << "models/demo has no tokenizer_config.json";
  const auto compiled = load_chat_template(files, "demo");
  ASSERT_TRUE(compiled) << compiled.error().message;
  ASSERT_NE(*compiled, nullptr);
  const auto parts = (*compiled)->render(
      {.messages = {text_message("user", " Hello? ")}, .add_generation_prompt = true});
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_EQ(joined(*parts), "<|begin|><|user|>Hello?<|end|><|assistant|>");
}

}  // namespace
}  // namespace airllm::tokenizer
