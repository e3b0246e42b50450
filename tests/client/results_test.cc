// The subcommands that ask the daemon for one result: as JSON, and as text.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>

#include "base/json.h"
#include "client/progress.h"
#include "client/prompt.h"
#include "client/table.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

constexpr const char* kModels =
    R"([{"name":"demo","complete":true,"bundled":true,"bytes":8388608,"created":"2026-01-02T03:04:05Z","dtype":"bf16","layers":12,"owner":"ann","shared":true},)"
    R"({"name":"half","complete":false,"bytes":10,"created":null}])";

TEST(Results, ListIsATableOrTheArray) {
  const FakeDaemon daemon(replies(kModels));
  EXPECT_EQ(daemon.run({"list"}).out,
            "NAME               SIZE   LAYERS  DTYPE  OWNER  SHARED  CREATED\n"
            "demo               8 MiB  12      bf16   ann    yes     2026-01-02T03:04:05Z\n"
            "half (unfinished)  10 B   -       -      -      -       -\n");
  EXPECT_EQ(daemon.run({"list", "--json"}).out, std::string(kModels) + "\n");
}

TEST(Results, ShowIsLinesOfKeyAndValue) {
  const FakeDaemon daemon(
      replies(R"({"name":"demo","bytes":1024,"architecture":{"layers":2,"tied":true},"end":[1,2],)"
              R"("shards":[{"name":"a","bytes":2048},{"name":"b","bytes":1}]})"));
  EXPECT_EQ(daemon.run({"show", "demo"}).out,
            "name:                 demo\n"
            "bytes:                1 KiB\n"
            "architecture.layers:  2\n"
            "architecture.tied:    yes\n"
            "end:                  1, 2\n"
            "shards:               a, bytes 2 KiB\n"
            "shards:               b, bytes 1 B\n");
}

TEST(Results, PsShowsJobs) {
  const FakeDaemon daemon(replies(
      R"({"reader":"pread","jobs":[{"job":3,"kind":"split","model":"demo","state":"running",)"
      R"("user":"ann","done":1048576,"total":2097152,"unit":"bytes","age_seconds":2.4},)"
      R"({"job":4,"kind":"generate","state":"decode","user":"ben","age_seconds":1}]})"));
  EXPECT_EQ(daemon.run({"ps"}).out,
            "reader:  pread\n"
            "JOB  USER  KIND      MODEL  STATE    PROGRESS        AGE\n"
            "3    ann   split     demo   running  1 MiB of 2 MiB  2 s\n"
            "4    ben   generate  -      decode   -               1 s\n");
}

TEST(Results, OfPsTellWhenModelsGo) {
  const FakeDaemon daemon(
      replies(R"({"jobs":[],"models":[{"name":"a","ram_bytes":2097152,"resident_bytes":1048576,)"
              R"("in_use":false,"kept":false,"expires_seconds":90.4,"reader":"io_uring",)"
              R"("direct":true},{"name":"b","in_use":true,"reader":"threads","direct":false,)"
              R"("expires_seconds":1800},{"name":"c","expires_seconds":null},)"
              R"({"name":"d","kept":true,"expires_seconds":null}]})"));
  const std::string out = daemon.run({"ps"}).out;
  EXPECT_NE(out.find("\n\n"
                     "IN MEMORY  TAKES  RESIDENT  READ BY            GOES\n"
                     "a          2 MiB  1 MiB     io_uring           in 90 s\n"
                     "b          -      -         threads, buffered  30 min after its jobs\n"
                     "c          -      -         -                  never\n"
                     "d          -      -         -                  never (keep)\n"),
            std::string::npos)
      << out;
}

TEST(Results, OfPsTellWhatExpertsSave) {
  const FakeDaemon daemon(
      replies(R"({"jobs":[],"models":[{"name":"a","experts":null},{"name":"b","experts":)"
              R"({"count":256,"slots":96,"resident_bytes":2097152,"hits":3,"misses":1,)"
              R"("read_bytes":1024,"saved_bytes":3072}},{"name":"c","experts":{"count":8,)"
              R"("slots":0,"hits":0,"misses":0}},{"name":"d","experts":7}]})"));
  const std::string out = daemon.run({"ps"}).out;
  EXPECT_NE(out.find("\n\n"
                     "EXPERTS OF  ROOM FOR   RESIDENT  HITS    READ   SAVED\n"
                     "b           96 of 256  2 MiB     75.0 %  1 KiB  3 KiB\n"
                     "c           0 of 8     -         -       -      -\n"),
            std::string::npos)
      << out;
}

TEST(Results, NamesAreEscapedOnTerminals) {
  const FakeDaemon daemon(replies(R"([{"name":"a\u001b[2Jb\nc"}])"));
  RunOptions options;
  options.terminal = true;
  const Finished text = daemon.run({"list"}, options);
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos);
  EXPECT_NE(text.out.find("a\\x1b[2Jb\\nc"), std::string::npos) << text.out;
  EXPECT_NE(daemon.run({"list"}).out.find("a\x1b[2Jb"), std::string::npos);
}

TEST(Results, OfShare) {
  const char* const text = R"({"name":"demo","owner":"ann","shared":true,"unchanged":false})";
  const FakeDaemon daemon(replies(text));
  EXPECT_EQ(daemon.run({"share", "demo"}).out, "demo: shared\n");
  EXPECT_EQ(daemon.run({"share", "demo", "--json"}).out, std::string(text) + "\n");
  const FakeDaemon again(replies(R"({"name":"demo","shared":true,"unchanged":true})"));
  EXPECT_EQ(again.run({"share", "demo"}).out, "demo: shared already\n");
  EXPECT_EQ(again.run({"share"}).status, 64);
}

TEST(Results, OfStop) {
  const char* const text = R"({"name":"demo","was_in_memory":true,"freed_bytes":3145728})";
  const FakeDaemon daemon(replies(text));
  EXPECT_EQ(daemon.run({"stop", "a", "b"}).out, "a: 3 MiB given back\nb: 3 MiB given back\n");
  EXPECT_EQ(daemon.run({"stop", "demo", "--json"}).out,
            "{\"stopped\":[" + std::string(text) + "]}\n");
  const FakeDaemon idle(replies(R"({"name":"demo","was_in_memory":false,"freed_bytes":0})"));
  EXPECT_EQ(idle.run({"stop", "demo"}).out, "demo: was not in memory\n");
  EXPECT_EQ(idle.run({"stop"}).status, 64);
  const FakeDaemon busy(fails(ErrorCode::kTemporary, "in use by job 3 of user ann", "wait"));
  const Finished refused = busy.run({"stop", "demo"});
  EXPECT_EQ(refused.status, 75);
  EXPECT_NE(refused.err.find("job 3 of user ann"), std::string::npos) << refused.err;
}

TEST(Results, OfABenchAreOneScreen) {
  const char* const result =
      R"({"model":"tiny","sweeps":7,"cold_sweep_seconds":2.5,"sweep_seconds":2.0,)"
      R"("sweep_seconds_min":1.9,"sweep_seconds_max":2.25,"reading_seconds":1.9,)"
      R"("waiting_seconds":1.5,"computing_seconds":0.5,"bound":"disk","tiers":[)"
      R"({"name":"disk","bytes_per_sweep":1073741824,"bytes_per_second":1900000000,)"
      R"("ceiling_bytes_per_second":2000000000,"ratio":0.95,"ratio_min":0.9,"ratio_max":0.99,)"
      R"("ceiling_bytes":1073741824},{"name":"ram","bytes_per_sweep":2147483648,)"
      R"("bytes_per_second":4300000000,"ceiling_bytes_per_second":null,"ratio":null,)"
      R"("ratio_min":null,"ratio_max":null,"ceiling_bytes":0,"resident_bytes":0}],)"
      R"("reader":"io_uring","ceiling_reader":"io_uring","direct":true,"threads":2,)"
      R"("ram_bytes":1048576,"other_jobs":0,"lost_reads":0,"runs":[]})";
  const FakeDaemon daemon(replies(result));
  const std::string out = daemon.run({"bench", "stream", "tiny"}).out;
  for (const char* part :
       {"tiny: 7 sweeps; one before them filled the memory in 2.500 s\n",
        "TIER  A SWEEP  RATE       CEILING    RATIO\n"
        "disk  1 GiB    1.90 GB/s  2.00 GB/s  0.95 (0.90 to 0.99)\n"
        "ram   2 GiB    4.30 GB/s  -          -\n",
        "sweep         2.0000 s   (1.9000 to 2.2500)", "waiting       1.5000 s    75.0 %",
        "bound by the disk", "io_uring, past the page cache; 2 threads"}) {
    EXPECT_NE(out.find(part), std::string::npos) << part << "\n" << out;
  }
  EXPECT_EQ(out.find("not clean"), std::string::npos) << out;
  EXPECT_LT(std::count(out.begin(), out.end(), '\n'), 24);
  EXPECT_EQ(daemon.run({"bench", "stream", "tiny", "--json"}).out, std::string(result) + "\n");
}

TEST(Results, ABenchTellsWhatMakesItUnclean) {
  const FakeDaemon daemon(
      replies(R"({"direct":false,"other_jobs":2,"lost_reads":3,"tiers":[{"name":"ram",)"
              R"("ceiling_bytes":4096},7]})"));
  const std::string out = daemon.run({"bench", "stream", "tiny"}).out;
  for (const char* part : {"other jobs were at work meanwhile, 2 at once", "through the page cache",
                           "caches may hold the 4 KiB", "3 reads were too many"}) {
    EXPECT_NE(out.find(part), std::string::npos) << part << "\n" << out;
  }
}

TEST(Results, ABenchSendsWhatWasAsked) {
  std::optional<protocol::BenchStreamParams> asked;
  const FakeDaemon daemon([&](Peer& peer) {
    const protocol::Request request = peer.read_request();
    asked = std::get<protocol::BenchStreamParams>(request.params);
    peer.event(request.id, protocol::Done{"{}"});
  });
  EXPECT_EQ(daemon.run({"bench", "stream", "--sweeps", "3", "tiny"}).status, 0);
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->model, "tiny");
  EXPECT_EQ(asked->sweeps, 3U);
  EXPECT_TRUE(asked->opens_files);
}

TEST(Results, OfABenchOfKernelsAreATable) {
  const char* const result =
      R"({"backend":"avx2","threads":2,"rounds":7,"memory_bytes":536870912,)"
      R"("memory_bytes_per_second":20000000000,"peak_flop_per_second":150000000000,"other_jobs":1,)"
      R"("operations":[{"operation":"product","format":"q8","rows":1,"seconds":0.025,)"
      R"("bytes":536870912,"bytes_per_second":19000000000,"flop":1,"flop_per_second":36000000000,)"
      R"("of_memory":{"median":0.95,"min":0.9,"max":0.97},)"
      R"("of_peak":{"median":0.24,"min":0.2,"max":0.25}},{"operation":"attention","rows":64,)"
      R"("positions":4096,"seconds":0.0005,"format":null},7]})";
  const FakeDaemon daemon(replies(result));
  const std::string out = daemon.run({"bench", "kernels"}).out;
  for (const char* part :
       {"avx2, 2 threads: memory 20.00 GB/s, peak 150.0 GFLOP/s\n",
        "product                    q8      1     25.00 ms  19.00 GB/s  0.95 (0.90 to 0.97)  "
        "36.0 GFLOP/s  0.24 (0.20 to 0.25)\n",
        "attention, 4096 positions  -       64    500.0 us", "medians of 7 rounds",
        "not clean: other jobs were at work"}) {
    EXPECT_NE(out.find(part), std::string::npos) << part << "\n" << out;
  }
  EXPECT_EQ(daemon.run({"bench", "kernels", "--json"}).out, std::string(result) + "\n");
}

TEST(Results, ABenchOfKernelsSendsItsRounds) {
  std::optional<protocol::BenchKernelsParams> asked;
  const FakeDaemon daemon([&](Peer& peer) {
    const protocol::Request request = peer.read_request();
    asked = std::get<protocol::BenchKernelsParams>(request.params);
    peer.event(request.id, protocol::Done{"{}"});
  });
  EXPECT_EQ(daemon.run({"bench", "kernels", "--rounds", "3"}).status, 0);
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->rounds, 3U);
}

TEST(Results, OfRemoveCancelAndVerify) {
  const FakeDaemon daemon(replies(R"({"name":"demo","shards":14,"bytes":2048,"ok":true})"));
  EXPECT_EQ(daemon.run({"rm", "a", "b", "--json"}).out, "{\"removed\":[\"a\",\"b\"]}\n");
  EXPECT_EQ(daemon.run({"rm", "a"}).out, "");
  EXPECT_EQ(daemon.run({"cancel", "1", "2", "--json"}).out, "{\"cancelled\":[1,2]}\n");
  EXPECT_EQ(daemon.run({"verify", "demo"}).out,
            "demo: 14 shards, 2 KiB, every checksum is right\n");
}

TEST(Results, RemoveGoesOnAndTellsWhatItDid) {
  std::atomic<int> requests{0};
  const FakeDaemon daemon([&](Peer& peer) {
    for (;;) {
      const protocol::Request request = peer.read_request();
      if (request.id == 0) return;
      ++requests;  // before the answer, with which the client may end
      const auto& model = std::get<protocol::RemoveParams>(request.params).model;
      protocol::EventBody body = protocol::Done{"{}"};
      if (model.starts_with("no")) {
        body = protocol::Failed{{ErrorCode::kNoInput, "there is no model " + model, "look"}};
      }
      peer.event(request.id, body);
    }
  });
  const Finished finished = daemon.run({"rm", "a", "no1", "b", "no2", "--json"});
  EXPECT_EQ(finished.status, 66);
  const Json error = (*parse_json(finished.out, "output"))["error"];
  EXPECT_EQ(error["message"], "there is no model no1; there is no model no2; removed: a, b");
  EXPECT_EQ(error["remedy"], "look");
  EXPECT_EQ(requests, 4);
}

TEST(Results, DamagedModelIsMarkedInTheList) {
  const FakeDaemon daemon(replies(R"([{"name":"m","complete":true,"problem":"broken"}])"));
  EXPECT_NE(daemon.run({"list"}).out.find("m (damaged)"), std::string::npos);
}

TEST(Results, UnknownDefaultIsSetWithAWarning) {
  const TemporaryFolder home;
  const FakeDaemon daemon(
      fails(ErrorCode::kNoInput, "there is no model tyni", "did you mean tiny?"));
  RunOptions options;
  options.environment = {"XDG_CONFIG_HOME=" + home.path()};
  const Finished set = daemon.run({"default", "tyni"}, options);
  EXPECT_EQ(set.status, 0);
  EXPECT_EQ(set.out, "");
  EXPECT_NE(set.err.find("your default is set, but there is no model tyni"), std::string::npos);
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"ask", "hi"}, {"show"}, {"verify"}}) {
    const Finished used = daemon.run(args, options);
    EXPECT_EQ(used.status, 66);
    EXPECT_NE(
        used.err.find("did you mean tiny? The name 'tyni' comes from " + (home / "airllm/default")),
        std::string::npos)
        << used.err;
  }
  EXPECT_EQ(daemon.run({"ask", "-m", "tyni", "hi"}, options).err.find("comes from"),
            std::string::npos);
}

TEST(Results, WhatIsNoJsonExits76) {
  const FakeDaemon daemon(replies("{\"a\":"));
  for (const char* command : {"list", "status", "ps", "show", "verify"}) {
    EXPECT_EQ(daemon.run({command}).status, 76) << command;
    EXPECT_EQ(daemon.run({command, "--json"}).status, 76) << command;
  }
}

TEST(Results, OddShapesAreShownNotTrusted) {
  for (const char* json : {"null", "3", "[1,null,[]]", "{\"jobs\":3}", "{\"a\":{}}", "\"x\"",
                           R"([{"name":{"x":1},"bytes":-1,"complete":"no"}])",
                           R"({"jobs":[{"done":-1,"total":"x","unit":7,"age_seconds":"old"}]})"}) {
    const FakeDaemon daemon(replies(json));
    for (const char* command : {"list", "status", "ps", "show", "verify", "default"}) {
      const Finished finished = daemon.run({command});
      EXPECT_EQ(finished.signal, 0) << command << ' ' << json;
      EXPECT_TRUE(finished.status == 0 || finished.status == 76) << command << ' ' << json;
    }
  }
}

TEST(Results, DefaultOfTheDaemon) {
  std::vector<std::optional<std::string>> models;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      if (request.id == 0) return;
      models.push_back(std::get<protocol::DefaultParams>(request.params).model);
      peer.event(request.id, protocol::Done{R"({"model":"demo"})"});
      peer.read();
    });
    EXPECT_EQ(daemon.run({"default", "--daemon", "demo"}).status, 0);
    EXPECT_EQ(daemon.run({"default"}).out, "demo (from the daemon at " + daemon.socket() + ")\n");
    EXPECT_EQ(daemon.run({"default", "--daemon", "--unset"}).status, 0);
  }
  EXPECT_EQ(models, (std::vector<std::optional<std::string>>{"demo", std::nullopt, ""}));
}

TEST(ProgressText, HasStageRateAndTimeLeft) {
  const protocol::Progress progress{"split", uint64_t{1} << 30, uint64_t{3} << 30, "bytes"};
  EXPECT_EQ(progress_text(progress, 1 << 30, 79), "split 1 GiB of 3 GiB, 1.07 GB/s, 2 s left");
  EXPECT_EQ(progress_text({"prefill", 5, 20, "tokens"}, 0, 79), "prefill 5 of 20 tokens");
  EXPECT_EQ(progress_text({"queued", 0, 0, ""}, 0, 79), "queued");
  EXPECT_EQ(progress_text({"a\x1b[2J", 0, 0, ""}, 0, 79), "a\\x1b[2J");
  EXPECT_EQ(progress_text(progress, 0, 10).size(), 10U);
}

TEST(JoinPrompt, DocumentBlankLineQuestion) {
  EXPECT_EQ(join_prompt("", "q", false), "q");
  EXPECT_EQ(join_prompt("d\n\n", "q", false), "d\n\nq");
  EXPECT_EQ(join_prompt("d\r\n", "q", false), "d\n\nq");
  EXPECT_EQ(join_prompt("d\n\n", "", false), "d\n");
  EXPECT_EQ(join_prompt("d\n", "", true), "d\n");
  EXPECT_EQ(join_prompt("\n", "q", true), "q");
}

}  // namespace
}  // namespace airllm::client
