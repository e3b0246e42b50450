// tokenize, detokenize and template: what is sent, and how the answer is printed.
#include <gtest/gtest.h>

#include <string>

#include "base/json.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

using protocol::DetokenizeParams;
using protocol::TemplateParams;
using protocol::TokenizeParams;

// What the daemon is asked for by `args`.
template <typename T>
T params_of(const std::vector<std::string>& args, const std::string& input = {}) {
  T params;
  Finished finished;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      if (const auto* found = std::get_if<T>(&request.params)) params = *found;
      peer.event(request.id, protocol::Done{R"({"model":"m","count":0})"});
      peer.read();
    });
    RunOptions options;
    options.input = input;
    finished = daemon.run(args, options);
  }
  EXPECT_EQ(finished.status, 0) << finished.err;
  return params;
}

// A daemon that answers one request with these events.
FakeDaemon::Script sends(std::vector<protocol::EventBody> events) {
  return [events = std::move(events)](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Accepted{1, "tiny", 0, 0, {}, {}});
    for (const protocol::EventBody& event : events) peer.event(request.id, event);
    peer.read();
  };
}

const protocol::EventBody kCounted = protocol::Done{R"({"model":"tiny","count":3})"};
const protocol::EventBody kDone = protocol::Done{R"({"model":"tiny"})"};

std::vector<protocol::EventBody> some_tokens() {
  return {protocol::Tokens{{5, 6}, {"a\n", "\\"}}, protocol::Tokens{{70000}, {"\xc4\xa0x"}},
          kCounted};
}

TEST(Tokenize, TheTextIsTheWordsOrAllOfStdin) {
  EXPECT_EQ(params_of<TokenizeParams>({"tokenize", "What", "is it?"}).text, "What is it?");
  EXPECT_EQ(params_of<TokenizeParams>({"tokenize", "x"}, "not read").text, "x");
  EXPECT_EQ(params_of<TokenizeParams>({"tokenize"}, "two\nlines\n\n").text, "two\nlines\n\n");
  EXPECT_EQ(params_of<TokenizeParams>({"tokenize"}, std::string("a\0b", 3)).text,
            std::string("a\0b", 3));
  EXPECT_EQ(params_of<TokenizeParams>({"tokenize"}, "").text, "");
}

TEST(Tokenize, OptionsAreSentAsGiven) {
  const TokenizeParams plain = params_of<TokenizeParams>({"tokenize", "x"});
  EXPECT_FALSE(plain.special || plain.no_add_special || plain.count_only || plain.pieces);
  const TokenizeParams all = params_of<TokenizeParams>(
      {"tokenize", "-m", "tiny", "--special", "--no-add-special", "--count", "x"});
  EXPECT_EQ(all.model, "tiny");
  EXPECT_TRUE(all.special && all.no_add_special && all.count_only && !all.pieces);
  EXPECT_TRUE(params_of<TokenizeParams>({"tokenize", "--pieces", "x"}).pieces);
  EXPECT_FALSE(params_of<TokenizeParams>({"tokenize", "--ids", "--json", "x"}).pieces);
  EXPECT_TRUE(params_of<TokenizeParams>({"tokenize", "--json", "x"}).pieces);
}

TEST(Tokenize, PrintsIdsPiecesOrTheCount) {
  const FakeDaemon daemon(sends(some_tokens()));
  EXPECT_EQ(daemon.run({"tokenize", "x"}).out, "5 6 70000\n");
  EXPECT_EQ(daemon.run({"tokenize", "--ids", "x"}).out, "5 6 70000\n");
  EXPECT_EQ(daemon.run({"tokenize", "--pieces", "x"}).out, "a\\n\n\\\\\n\xc4\xa0x\n");
  const FakeDaemon counting(sends({kCounted}));
  EXPECT_EQ(counting.run({"tokenize", "--count", "x"}).out, "3\n");
  EXPECT_EQ(counting.run({"tokenize", "x"}).out, "\n");
}

TEST(Tokenize, JsonHoldsWhatIsAskedFor) {
  const FakeDaemon daemon(sends(some_tokens()));
  EXPECT_EQ(daemon.run({"tokenize", "--json", "x"}).out,
            "{\"model\":\"tiny\",\"count\":3,\"ids\":[5,6,70000],"
            "\"pieces\":[\"a\\n\",\"\\\\\",\"\xc4\xa0x\"]}\n");
  EXPECT_EQ(daemon.run({"tokenize", "--json", "--ids", "x"}).out,
            "{\"model\":\"tiny\",\"count\":3,\"ids\":[5,6,70000]}\n");
  EXPECT_EQ(daemon.run({"tokenize", "--json", "--count", "x"}).out,
            "{\"model\":\"tiny\",\"count\":3}\n");
}

TEST(Tokenize, RefusesWhatItCannotDo) {
  const FakeDaemon daemon(sends(some_tokens()));
  EXPECT_EQ(daemon.run({"tokenize", "--ids", "--count", "x"}).status, 64);
  RunOptions options;
  options.input = "ab\xff";
  const Finished bad = daemon.run({"tokenize"}, options);
  EXPECT_EQ(bad.status, 65);
  EXPECT_NE(bad.err.find("byte offset 2"), std::string::npos) << bad.err;
  options.input = std::string(size_t{17} << 20, 'x');
  EXPECT_EQ(daemon.run({"tokenize"}, options).status, 64);
  const FakeDaemon wrong(sends({protocol::Text{"x"}}));
  EXPECT_EQ(wrong.run({"tokenize", "x"}).status, 76);
  const FakeDaemon uncounted(sends({kDone}));
  EXPECT_EQ(uncounted.run({"tokenize", "--count", "x"}).status, 76);
}

TEST(Detokenize, IdsAreWordsOrStdin) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(params_of<DetokenizeParams>({"detokenize", "1", "2,3", "4"}).ids, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(params_of<DetokenizeParams>({"detokenize"}, " 1 2\n3 ,\t4\n").ids, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(params_of<DetokenizeParams>({"detokenize"}, "[1, 2]\n").ids, (Ids{1, 2}));
  EXPECT_EQ(params_of<DetokenizeParams>({"detokenize"}, "[]").ids, Ids());
  EXPECT_EQ(params_of<DetokenizeParams>({"detokenize"}, "").ids, Ids());
  EXPECT_TRUE(params_of<DetokenizeParams>({"detokenize", "--skip-special", "1"}).skip_special);
  const FakeDaemon daemon(sends({kDone}));
  for (const char* const wrong : {"x", "1,,2", ",1", "1,", "-1", "2147483648", "[1", "1]", "1.5"}) {
    EXPECT_EQ(daemon.run({"detokenize", "--", wrong}).status, 64) << wrong;
  }
}

TEST(Detokenize, PrintsTheTextExactly) {
  const FakeDaemon daemon(sends({protocol::Text{"a\x1b"}, protocol::Text{"\"\n\nb"}, kDone}));
  EXPECT_EQ(daemon.run({"detokenize", "1"}).out, "a\x1b\"\n\nb");
  EXPECT_EQ(parse_json(daemon.run({"detokenize", "--json", "1"}).out, "out").value(),
            (Json{{"model", "tiny"}, {"text", "a\x1b\"\n\nb"}}));
  RunOptions options;
  options.terminal = true;
  const Finished shown = daemon.run({"detokenize", "1"}, options);
  EXPECT_EQ(shown.out.find('\x1b'), std::string::npos);
  EXPECT_TRUE(shown.out.ends_with("b\n") || shown.out.ends_with("b\r\n")) << shown.out;
}

TEST(Template, SendsTheJsonAsItIs) {
  const std::string chat = R"([{"role":"user","content":"Hi"}])";
  EXPECT_EQ(params_of<TemplateParams>({"template", chat}).input_json, chat);
  const TemplateParams piped =
      params_of<TemplateParams>({"template", "--no-generation-prompt"}, chat + "\n");
  EXPECT_EQ(piped.input_json, chat + "\n");
  EXPECT_TRUE(piped.no_generation_prompt);
  const FakeDaemon daemon(sends({protocol::Text{"<|user|>Hi"}, kDone}));
  EXPECT_EQ(daemon.run({"template", chat}).out, "<|user|>Hi");
  EXPECT_EQ(daemon.run({"template", "{]"}).status, 65);
  EXPECT_EQ(daemon.run({"template", "[]", "[]"}).status, 64);
}

TEST(TextCommands, NeedAnInput) {
  const FakeDaemon daemon(sends({kDone}));
  RunOptions options;
  options.terminal = true;
  for (const char* const command : {"tokenize", "detokenize", "template"}) {
    const Finished finished = daemon.run({command}, options);
    EXPECT_EQ(finished.status, 64) << command;
    EXPECT_NE(finished.out.find("there is no input"), std::string::npos) << finished.out;
  }
}

}  // namespace
}  // namespace airllm::client
