#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "base/json.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

using protocol::GenerateParams;

// What the daemon is asked for by `args`.
GenerateParams params_of(const std::vector<std::string>& args, const RunOptions& options = {}) {
  GenerateParams params;
  Finished finished;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      if (const auto* generate = std::get_if<GenerateParams>(&request.params)) params = *generate;
      peer.event(request.id, protocol::Generated{});
      peer.read();
    });
    finished = daemon.run(args, options);
  }
  EXPECT_EQ(finished.status, 0) << finished.err;
  return params;
}

std::string user_text(const std::vector<std::string>& args, const std::string& input = {}) {
  RunOptions options;
  options.input = input;
  const GenerateParams params = params_of(args, options);
  return params.messages.empty() ? "(none)" : params.messages.back().content;
}

TEST(AskPrompt, ComesFromArgumentsAndStdin) {
  EXPECT_EQ(user_text({"ask", "What", "is it?"}), "What is it?");
  EXPECT_EQ(user_text({"ask"}, "from a pipe\n"), "from a pipe");
  EXPECT_EQ(user_text({"ask", "Summarise."}, "line 1\nline 2\n"), "line 1\nline 2\n\nSummarise.");
  EXPECT_EQ(user_text({"ask", "Summarise."}, "\n"), "Summarise.");
  EXPECT_EQ(user_text({"ask", "--no-stdin", "x"}, "not read"), "x");
  EXPECT_EQ(user_text({"ask", "list", "status"}), "list status");
  EXPECT_EQ(user_text({"ask", "a", "-n", "5", "b"}), "a b");
  EXPECT_EQ(user_text({"ask", "--", "--json", "-x"}), "--json -x");
}

TEST(AskPrompt, BracketsAndBracesStayWhole) {
  EXPECT_EQ(user_text({"ask", "[a,b]"}), "[a,b]");
  EXPECT_EQ(user_text({"ask", "{}", "%%", "\x01[", "[]"}), "{} %% \x01[ []");
  const GenerateParams params = params_of({"ask", "x", "--stop", "[a,b]", "--stop", "{}"});
  EXPECT_EQ(params.stop, (std::vector<std::string>{"[a,b]", "{}"}));
}

TEST(AskPrompt, RawIsExact) {
  RunOptions options;
  options.input = "Once upon\n\n";
  EXPECT_EQ(params_of({"ask", "--raw"}, options).raw_text, "Once upon\n\n");
  EXPECT_EQ(params_of({"ask", "--raw", ""}).raw_text, "");
  EXPECT_TRUE(params_of({"ask", "--raw", "x"}).messages.empty());
}

TEST(AskPrompt, SpecialIsSentOnlyWhenAskedFor) {
  EXPECT_FALSE(params_of({"ask", "<s>"}).special);
  EXPECT_TRUE(params_of({"ask", "--special", "<s>"}).special);
  const FakeDaemon daemon(answers({"x"}));
  EXPECT_EQ(daemon.run({"ask", "--special", "--prompt-ids", "1"}).status, 64);
}

TEST(AskPrompt, IdsAreSentAlone) {
  RunOptions options;
  options.input = "not read";
  const GenerateParams params = params_of({"ask", "--prompt-ids", "1,20,300"}, options);
  EXPECT_EQ(params.prompt_ids, (std::vector<int32_t>{1, 20, 300}));
  EXPECT_TRUE(params.messages.empty());
  EXPECT_FALSE(params.raw_text.has_value());
}

TEST(AskPrompt, BinaryStdinExits65) {
  const FakeDaemon daemon(answers({"x"}));
  RunOptions options;
  options.input = std::string("abc\0def", 7);
  EXPECT_EQ(daemon.run({"ask", "x"}, options).status, 65);
  options.input = "abc\xff";
  const Finished finished = daemon.run({"ask", "x"}, options);
  EXPECT_EQ(finished.status, 65);
  EXPECT_NE(finished.err.find("byte offset 3"), std::string::npos);
}

TEST(AskPrompt, MillionCharactersArriveAndSeventeenMillionAreRefused) {
  EXPECT_EQ(user_text({"ask"}, std::string(1000000, 'x')).size(), 1000000U);
  const FakeDaemon daemon(answers({"x"}));
  RunOptions options;
  options.input = std::string(size_t{17} << 20, 'x');
  EXPECT_EQ(daemon.run({"ask"}, options).status, 64);
}

TEST(AskOptions, AreSentAsGiven) {
  const GenerateParams params = params_of(
      {"ask",     "-m", "tiny",         "--system", "Be brief.",  "--temp", "0.5",
       "--top-k", "4",  "--top-p",      "0.9",      "--min-p",    "0.05",   "--repeat-penalty",
       "1.1",     "-s", "12",           "-n",       "9",          "--stop", "a",
       "--stop",  "b",  "--ignore-eos", "--json",   "--logprobs", "3",      "--prompt-logprobs",
       "2",       "hi"});
  EXPECT_EQ(params.model, "tiny");
  ASSERT_EQ(params.messages.size(), 2U);
  EXPECT_EQ(params.messages[0].role, "system");
  EXPECT_EQ(params.messages[0].content, "Be brief.");
  EXPECT_EQ(params.messages[1].role, "user");
  EXPECT_EQ(params.sampling.temperature, 0.5);
  EXPECT_EQ(params.sampling.top_k, 4);
  EXPECT_EQ(params.sampling.top_p, 0.9);
  EXPECT_EQ(params.sampling.min_p, 0.05);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(params.sampling.seed, 12U);
  EXPECT_EQ(params.max_tokens, 9U);
  EXPECT_EQ(params.stop.size(), 2U);
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_EQ(params.logprobs, 3U);
  EXPECT_EQ(params.prompt_logprobs, 2U);
}

TEST(AskOptions, UnsetOnesAreLeftToTheDaemon) {
  const GenerateParams params = params_of({"ask", "hi"});
  EXPECT_TRUE(params.model.empty());
  EXPECT_FALSE(params.sampling.temperature.has_value());
  EXPECT_FALSE(params.sampling.seed.has_value());
  EXPECT_FALSE(params.max_tokens.has_value());
}

TEST(AskOptions, ModelComesFromTheEnvironment) {
  RunOptions options;
  options.environment = {"AIRLLM_MODEL=from-env"};
  EXPECT_EQ(params_of({"ask", "hi"}, options).model, "from-env");
  EXPECT_EQ(params_of({"ask", "-m", "mine", "hi"}, options).model, "mine");
}

TEST(AskText, PipesGetExactBytes) {
  const FakeDaemon daemon(answers({"Par", "is\x1b[31m", "\r"}));
  const Finished finished = daemon.run({"ask", "hi"});
  EXPECT_EQ(finished.status, 0);
  EXPECT_EQ(finished.out, "Paris\x1b[31m\r");
  EXPECT_TRUE(finished.err.empty());
}

TEST(AskText, TerminalSeesControlCharactersEscaped) {
  const FakeDaemon daemon(answers({"Par\tis\x1b[31m", "\x9b"}));
  RunOptions options;
  options.terminal = true;
  const Finished finished = daemon.run({"ask", "hi"}, options);
  EXPECT_EQ(finished.out.find('\x1b'), std::string::npos);
  EXPECT_NE(finished.out.find("Par\tis\\x1b[31m"), std::string::npos) << finished.out;
  EXPECT_TRUE(finished.out.ends_with("\n"));
}

TEST(AskText, TerminalWithoutPromptShowsUsage) {
  const FakeDaemon daemon(answers({"x"}));
  RunOptions options;
  options.terminal = true;
  const Finished finished = daemon.run({"ask"}, options);
  EXPECT_EQ(finished.status, 64);
  EXPECT_NE(finished.out.find("Usage: airllm ask"), std::string::npos);
}

TEST(AskText, ProgressIsShownOnTerminalsOnlyAndRemoved) {
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Progress{"load", 1 << 20, 4 << 20, "bytes"});
    peer.event(request.id, protocol::Token{1, "ok", {}});
    peer.event(request.id, protocol::Generated{});
    peer.read();
  });
  RunOptions options;
  options.terminal = true;
  const Finished shown = daemon.run({"ask", "hi"}, options);
  EXPECT_NE(shown.out.find("load 1 MiB of 4 MiB"), std::string::npos) << shown.out;
  EXPECT_NE(shown.out.find("\r\x1b[Kok"), std::string::npos) << shown.out;
  const Finished piped = daemon.run({"ask", "hi"});
  EXPECT_EQ(piped.out, "ok");
  EXPECT_TRUE(piped.err.empty());
}

TEST(AskText, VerboseSummaryGoesToStderr) {
  const FakeDaemon daemon(answers({"a", "b"}));
  const Finished finished = daemon.run({"ask", "-v", "hi"});
  EXPECT_EQ(finished.out, "ab");
  EXPECT_NE(finished.err.find("first token after 1.2"), std::string::npos) << finished.err;
  EXPECT_NE(finished.err.find("1000 bytes read"), std::string::npos);
  EXPECT_NE(finished.err.find("2000 bytes from RAM"), std::string::npos);
}

TEST(AskJson, HasEveryField) {
  const FakeDaemon daemon(answers({"Par", "is"}));
  const Finished finished = daemon.run({"ask", "--json", "--logprobs", "2", "hi"});
  EXPECT_EQ(finished.status, 0);
  EXPECT_EQ(
      finished.out,
      "{\"model\":\"tiny\",\"text\":\"Paris\",\"token_ids\":[100,101],\"finish_reason\":\"stop\","
      "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2},\"seed\":18446744073709551615,"
      "\"options\":{\"temperature\":0.1,\"top_k\":0,\"top_p\":1.0,\"min_p\":0.0,"
      "\"repetition_penalty\":1.0,\"seed\":18446744073709551615,\"max_tokens\":null,\"stop\":[],"
      "\"ignore_eos\":false},\"timings_ms\":{\"queued\":0.5,\"first_token\":1.25,\"total\":2.0},"
      "\"io\":{\"sweeps\":4,\"read_bytes\":1000,\"cache_bytes\":2000},"
      "\"logprobs\":[[[5,-0.25],[6,-1.5]],[[5,-0.25],[6,-1.5]]]}\n");
}

TEST(AskJson, LargeLogprobsAreWhole) {
  constexpr int kPositions = 40;
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    protocol::PromptLogprobs logprobs;
    for (int i = 0; i < 32000; ++i) logprobs.logprobs.push_back({i, -1.0 / (i + 3)});
    for (; logprobs.position < kPositions; ++logprobs.position) peer.event(request.id, logprobs);
    peer.event(request.id, protocol::Generated{});
    peer.read();
  });
  const Finished finished = daemon.run({"ask", "--json", "--prompt-logprobs", "99999", "hi"});
  EXPECT_EQ(finished.status, 0);
  const Result<Json> json = parse_json(finished.out, "output");
  ASSERT_TRUE(json.has_value());
  const Json& positions = (*json)["prompt_logprobs"];
  ASSERT_EQ(positions.size(), static_cast<size_t>(kPositions));
  ASSERT_EQ(positions[39].size(), 32000U);
  EXPECT_EQ(positions[39][31999][0], 31999);
  EXPECT_EQ(positions[39][31999][1].get<double>(), -1.0 / 32002);
  EXPECT_FALSE(json->contains("logprobs"));
}

TEST(AskJson, StreamGivesOneObjectPerEvent) {
  const FakeDaemon daemon(answers({"a", "\n"}));
  const Finished finished = daemon.run({"ask", "--stream-json", "hi"});
  std::vector<Json> lines;
  std::string_view rest = finished.out;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    ASSERT_NE(end, std::string_view::npos);
    const Result<Json> line = parse_json(rest.substr(0, end), "line");
    ASSERT_TRUE(line.has_value());
    lines.push_back(*line);
    rest.remove_prefix(end + 1);
  }
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0]["type"], "accepted");
  EXPECT_EQ(lines[0]["job"], 7);
  EXPECT_EQ(lines[1]["type"], "token");
  EXPECT_EQ(lines[1]["id"], 100);
  EXPECT_EQ(lines[2]["text"], "\n");
  EXPECT_EQ(lines[3]["type"], "done");
  EXPECT_EQ(lines[3]["text"], "a\n");
}

TEST(AskFailure, OfTheDaemonKeepsCodeAndRemedy) {
  const FakeDaemon daemon(fails(ErrorCode::kNoInput, "no model 'tyni'", "did you mean tiny?"));
  const Finished text = daemon.run({"ask", "hi"});
  EXPECT_EQ(text.status, 66);
  EXPECT_TRUE(text.out.empty());
  EXPECT_EQ(text.err, "airllm: no model 'tyni'\n  did you mean tiny?\n");
  const Finished json = daemon.run({"ask", "--json", "hi"});
  EXPECT_EQ(json.status, 66);
  EXPECT_TRUE(json.err.empty());
  EXPECT_EQ(json.out,
            "{\"error\":{\"code\":\"no_input\",\"message\":\"no model 'tyni'\",\"remedy\":\"did "
            "you mean tiny?\"}}\n");
}

TEST(AskFailure, DaemonThatGoesAwayExits69) {
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Token{1, "half an ans", {}});
  });
  const Finished finished = daemon.run({"ask", "hi"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_EQ(finished.out, "half an ans");
  EXPECT_NE(finished.err.find("went away"), std::string::npos);
  EXPECT_EQ(finished.err.find("journalctl"), std::string::npos) << finished.err;
}

TEST(AskFailure, FullOutputExits74) {
  const FakeDaemon daemon(answers({"a"}));
  RunOptions options;
  options.stdout_is_full = true;
  const Finished finished = daemon.run({"ask", "hi"}, options);
  EXPECT_EQ(finished.status, 74);
  EXPECT_NE(finished.err.find("standard output"), std::string::npos);
  EXPECT_NE(finished.err.find("make room where the output goes to"), std::string::npos);
  EXPECT_EQ(finished.err.find("store"), std::string::npos) << finished.err;
  const Finished json = daemon.run({"ask", "--json", "hi"}, options);
  EXPECT_EQ(json.status, 74);
  EXPECT_NE(json.err.find("standard output"), std::string::npos);
}

TEST(AskFailure, BrokenFramesExit76) {
  const std::vector<std::string> streams{
      std::string("\0\0\0\0", 4),                  // an empty frame
      std::string("\xff\xff\xff\xff", 4),          // 4 GiB
      std::string("\5\0\0\0hello", 9),             // no msgpack map
      std::string("\1\0\0\0\x80", 5),              // no type
      std::string("\4\0\0\0\xdf\xff\xff\xff", 8),  // four thousand million pairs, cut off
  };
  for (const std::string& bytes : streams) {
    const FakeDaemon daemon([&](Peer& peer) {
      peer.read_request();
      peer.send_raw(bytes);
      peer.read();
    });
    EXPECT_EQ(daemon.run({"ask", "hi"}).status, 76);
  }
}

TEST(AskFailure, EventsOfOthersExit76) {
  const std::vector<protocol::EventBody> bodies{protocol::Done{"{}"},
                                                protocol::OpenFiles{{"/etc/passwd"}}};
  for (const protocol::EventBody& body : bodies) {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      peer.event(request.id, body);
      peer.read();
      EXPECT_TRUE(peer.take_descriptors().empty());
    });
    EXPECT_EQ(daemon.run({"ask", "hi"}).status, 76);
  }
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id + 1, protocol::Token{1, "x", {}});
    peer.read();
  });
  EXPECT_EQ(daemon.run({"ask", "hi"}).status, 76);
}

TEST(AskFailure, OtherProtocolVersionExits76) {
  const FakeDaemon daemon([](Peer& peer) {
    protocol::Hello hello;
    hello.version = 99;
    peer.send(hello);
    while (peer.read()) {
    }
  });
  const Finished finished = daemon.run({"ask", "hi"});
  EXPECT_EQ(finished.status, 76);
  EXPECT_NE(finished.err.find("version 99"), std::string::npos);
}

TEST(AskFailure, WhatIsNoDaemonExits76) {
  const FakeDaemon daemon([](Peer& peer) {
    peer.event(1, protocol::Token{1, "x", {}});
    while (peer.read()) {
    }
  });
  const Finished finished = daemon.run({"ask", "hi"});
  EXPECT_EQ(finished.status, 76);
  EXPECT_TRUE(finished.out.empty());
}

TEST(AskFailure, DaemonThatTalksBeforeItReadsBlocksNobody) {
  const FakeDaemon daemon([](Peer& peer) {
    peer.send(protocol::Hello{});
    const protocol::Event event{1, protocol::Progress{"load", 0, 0, std::string(60000, 'b')}};
    for (int i = 0; i < 100; ++i) peer.send(event);
    peer.read_request();
    peer.event(1, protocol::Generated{});
    peer.read();
  });
  RunOptions options;
  options.input = std::string(size_t{10} << 20, 'x');
  EXPECT_EQ(daemon.run({"ask"}, options).status, 0);
}

// ---- signals -----------------------------------------------------------------------------------

// Sends one token, waits for the cancel, and ends as the daemon does.
FakeDaemon::Script cancellable(std::atomic<bool>& cancelled) {
  return [&cancelled](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Token{1, "begun", {}});
    const auto cancel = peer.read_as<protocol::Cancel>();
    if (!cancel) return;
    cancelled = cancel->id == request.id;
    protocol::Generated end;
    end.finish_reason = "cancelled";
    peer.event(request.id, end);
    peer.read();
  };
}

TEST(AskSignals, CancelAndExitAsShellsCount) {
  const std::vector<std::pair<int, int>> cases{{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 129}};
  for (const auto& [number, status] : cases) {
    std::atomic<bool> cancelled{false};
    const FakeDaemon daemon(cancellable(cancelled));
    Running running({"ask", "hi"}, daemon.with_socket({}));
    ASSERT_TRUE(running.wait_for_output("begun"));
    running.send_signal(number);
    const Finished finished = running.finish();
    EXPECT_EQ(finished.status, status);
    EXPECT_TRUE(cancelled);
  }
}

TEST(AskSignals, CancelledJsonIsWhole) {
  std::atomic<bool> cancelled{false};
  const FakeDaemon daemon(cancellable(cancelled));
  Running running({"ask", "--stream-json", "hi"}, daemon.with_socket({}));
  ASSERT_TRUE(running.wait_for_output("begun"));
  running.send_signal(SIGINT);
  const Finished finished = running.finish();
  EXPECT_EQ(finished.status, 130);
  EXPECT_NE(finished.out.find("\"finish_reason\":\"cancelled\""), std::string::npos);
}

TEST(AskSignals, SecondSignalEndsAtOnce) {
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Token{1, "begun", {}});
    while (peer.read()) {  // hears the cancel and does nothing
    }
  });
  Running running({"ask", "hi"}, daemon.with_socket({}));
  ASSERT_TRUE(running.wait_for_output("begun"));
  running.send_signal(SIGINT);
  usleep(50000);
  running.send_signal(SIGINT);
  EXPECT_EQ(running.finish().status, 130);
}

TEST(AskSignals, ClosedStdoutEndsBySigpipeWhileWaiting) {
  std::atomic<bool> gone{false};
  const FakeDaemon daemon([&](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Token{1, "begun", {}});
    while (peer.read()) {
    }
    gone = true;
  });
  Running running({"ask", "hi"}, daemon.with_socket({}));
  ASSERT_TRUE(running.wait_for_output("begun"));
  running.close_stdout();
  const Finished finished = running.finish();
  EXPECT_EQ(finished.signal, SIGPIPE);
  EXPECT_TRUE(finished.err.empty());
}

TEST(AskSignals, CancelReachesAClientThatIsBlockedOnItsReader) {
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Token{1, "begun", {}});
    for (int i = 0; i < 100; ++i) {
      peer.event(request.id, protocol::Token{1, std::string(10000, 'x'), {}});
    }
    while (peer.read()) {
    }
  });
  Running running({"ask", "hi"}, daemon.with_socket({}));
  ASSERT_TRUE(running.wait_for_output("begun"));
  usleep(100000);  // the pipe is full now, and nobody reads it
  running.send_signal(SIGINT);
  EXPECT_TRUE(running.ends_unread(3000));
  EXPECT_EQ(running.finish().status, 130);
}

}  // namespace
}  // namespace airllm::client
