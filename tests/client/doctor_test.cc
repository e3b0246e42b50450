// airllm doctor against daemons that follow a script, and without one.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/json.h"
#include "client/diagnosis.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

// Answers show, doctor and measure_disk; the latter two with these JSON texts.
FakeDaemon::Script healthy(const std::string& checks, const std::string& disk = "{}") {
  return [=](Peer& peer) {
    for (protocol::Request request = peer.read_request(); request.id != 0;
         request = peer.read_request()) {
      std::string result = R"({"name":"tiny"})";
      if (std::holds_alternative<protocol::DoctorParams>(request.params)) result = checks;
      if (std::holds_alternative<protocol::MeasureDiskParams>(request.params)) result = disk;
      peer.event(request.id, protocol::Done{result});
    }
  };
}

constexpr const char* kStoreIsFine =
    R"({"checks":[{"name":"store","status":"ok","message":"writable","remedy":""}]})";

// The check `name` of what `doctor --json` printed; null when there is none.
Json check_named(const Finished& finished, const std::string& name) {
  const Result<Json> report = parse_json(finished.out, "doctor");
  if (!report) return Json();
  for (const Json& check : report->at("checks")) {
    if (check.at("name") == Json(name)) return check;
  }
  return Json();
}

bool is_ok(const Finished& finished) {
  const Result<Json> report = parse_json(finished.out, "doctor");
  return report && report->at("ok") == Json(true);
}

RunOptions without_daemon(const TemporaryFolder& home) {
  RunOptions options;
  options.environment = {"HOME=" + home.path(), "XDG_RUNTIME_DIR=" + home.path()};
  return options;
}

TEST(Doctor, FindsNothingWrongWhereAskingWorks) {
  const FakeDaemon daemon(healthy(kStoreIsFine));
  const Finished finished = daemon.run({"doctor", "--json"});
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_TRUE(is_ok(finished));
  EXPECT_EQ(check_named(finished, "store")["status"], "ok");
  EXPECT_EQ(check_named(finished, "model")["message"], "tiny (the daemon's choice) can be asked");
  EXPECT_NE(check_named(finished, "socket")["message"].get<std::string>().find(
                daemon.socket() + " (from AIRLLM_SOCKET)"),
            std::string::npos);
  EXPECT_FALSE(check_named(finished, "disk").is_null());
  EXPECT_TRUE(check_named(daemon.run({"doctor", "--json", "--no-disk"}), "disk").is_null());
}

TEST(Doctor, OfAnotherReleaseIsAWarning) {
  const FakeDaemon daemon(healthy(kStoreIsFine));  // "airllmd test"
  const Json check = check_named(daemon.run({"doctor", "--json"}), "daemon");
  EXPECT_EQ(check["status"], "warning");
  EXPECT_NE(check["remedy"].get<std::string>().find("same release"), std::string::npos);
}

TEST(Doctor, MeasuresTheDisk) {
  const FakeDaemon quick(healthy(
      kStoreIsFine, R"({"path":"/s/shard","bytes":1000000000,"seconds":0.5,"direct":true})"));
  const Json check = check_named(quick.run({"doctor", "--json"}), "disk");
  EXPECT_EQ(check["status"], "ok");
  EXPECT_EQ(check["message"].get<std::string>().find("2.00 GB/s"), 0u) << check;
  const FakeDaemon slow(
      healthy(kStoreIsFine, R"({"path":"/s/shard","bytes":1000000,"seconds":1,"direct":false})"));
  const Finished finished = slow.run({"doctor", "--json"});
  EXPECT_EQ(finished.status, 0);  // slow, but it answers
  EXPECT_EQ(check_named(finished, "disk")["status"], "warning");
  const FakeDaemon strange(healthy(kStoreIsFine, "[]"));
  EXPECT_EQ(check_named(strange.run({"doctor", "--json"}), "disk")["status"], "warning");
}

TEST(Doctor, ProblemOfTheDaemonsOwnEndsIt) {
  const FakeDaemon daemon(healthy(
      R"({"checks":[{"name":"state","status":"problem","message":"stopping","remedy":"wait"},7,
          {"name":"new","status":"strange","message":"m","remedy":3}]})"));
  const Finished finished = daemon.run({"doctor", "--json"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_FALSE(is_ok(finished));
  EXPECT_EQ(check_named(finished, "new")["status"], "warning");
  EXPECT_EQ(check_named(finished, "new")["remedy"], "");
}

TEST(Doctor, ModelThatDoesNotResolveGivesItsStatus) {
  for (const auto& [code, status] :
       {std::pair{ErrorCode::kNoInput, 66}, std::pair{ErrorCode::kUsage, 64}}) {
    const FakeDaemon daemon([code = code](Peer& peer) {
      for (protocol::Request request = peer.read_request(); request.id != 0;
           request = peer.read_request()) {
        if (std::holds_alternative<protocol::DoctorParams>(request.params)) {
          peer.event(request.id, protocol::Done{kStoreIsFine});
        } else {
          peer.event(request.id, protocol::Failed{{code, "no such model", "make one"}});
        }
      }
    });
    const Finished finished = daemon.run({"doctor", "--json", "-m", "tiny"});
    EXPECT_EQ(finished.status, status);
    EXPECT_EQ(check_named(finished, "model")["message"], "no such model (from -m)");
    EXPECT_EQ(check_named(finished, "model")["remedy"], "make one");
  }
}

TEST(Doctor, DaemonThatKnowsNoChecksIsAWarning) {
  const FakeDaemon daemon([](Peer& peer) {
    for (protocol::Request request = peer.read_request(); request.id != 0;
         request = peer.read_request()) {
      if (std::holds_alternative<protocol::DoctorParams>(request.params)) {
        peer.event(request.id,
                   protocol::Failed{{ErrorCode::kProtocol, "unknown method", "update"}});
      } else {
        peer.event(request.id, protocol::Done{R"({"name":"tiny"})"});
      }
    }
  });
  const Finished finished = daemon.run({"doctor", "--json"});
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_EQ(check_named(finished, "checks")["status"], "warning");
}

TEST(Doctor, SilentDaemonIsAProblem) {
  const FakeDaemon daemon([](Peer& peer) {
    while (peer.read()) {
    }
  });
  const Finished finished = daemon.run({"doctor", "--json", "--connect-timeout", "0.2"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_EQ(check_named(finished, "daemon")["status"], "problem");
}

TEST(Doctor, WithoutADaemonSaysHowToStartOne) {
  const TemporaryFolder home;
  const RunOptions options = without_daemon(home);
  const Finished finished = run_airllm({"doctor", "--json", "--socket", home / "missing"}, options);
  EXPECT_EQ(finished.status, 69);
  EXPECT_FALSE(is_ok(finished));
  const Json socket = check_named(finished, "socket");
  EXPECT_EQ(socket["status"], "problem");
  EXPECT_EQ(socket["message"], (home / "missing") + " (from --socket) is not there");
  EXPECT_NE(socket["remedy"].get<std::string>().find("airllmd --foreground --socket"),
            std::string::npos);
  EXPECT_FALSE(check_named(finished, "program").is_null());
  EXPECT_TRUE(check_named(finished, "daemon").is_null());
}

TEST(Doctor, IsReadableAndWithoutColours) {
  const TemporaryFolder home;
  const Finished finished =
      run_airllm({"doctor", "--socket", home / "missing"}, without_daemon(home));
  EXPECT_EQ(finished.out.find('\x1b'), std::string::npos);
  EXPECT_EQ(finished.out.find("problem  socket"), 0u) << finished.out;
  EXPECT_NE(finished.out.find("\nasking does not work: 1 problem\n"), std::string::npos)
      << finished.out;
  const FakeDaemon daemon(healthy(kStoreIsFine));
  const Finished fine = daemon.run({"doctor"});
  EXPECT_TRUE(fine.out.ends_with("\nasking works\n")) << fine.out;
}

// A home whose user's service manager is a script.
RunOptions with_systemctl(const TemporaryFolder& home, const std::string& script) {
  home.write("systemd/private", "");
  home.write("bin/systemctl", "#!/bin/sh\n" + script);
  EXPECT_EQ(chmod((home / "bin/systemctl").c_str(), 0755), 0);
  RunOptions options = without_daemon(home);
  options.environment.push_back("PATH=" + (home / "bin") + ":/usr/bin:/bin");
  return options;
}

TEST(Doctor, TellsWhatTheServiceManagerSays) {
  const TemporaryFolder home;
  const std::string only_user = R"([ "$1" = --user ] || exit 1
[ "$2 $3 $4" = "is-active airllmd.socket airllmd.service" ] || exit 1
)";
  const Json stopped = check_named(
      run_airllm({"doctor", "--json"},
                 with_systemctl(home, only_user + "echo inactive; echo inactive; exit 3\n")),
      "user_service");
  EXPECT_EQ(stopped["status"], "warning");
  EXPECT_EQ(stopped["remedy"], "systemctl --user enable --now airllmd.socket");
  const Json failed = check_named(
      run_airllm({"doctor", "--json"},
                 with_systemctl(home, only_user + "echo active; echo failed; exit 3\n")),
      "user_service");
  EXPECT_EQ(failed["status"], "warning");
  EXPECT_NE(failed["remedy"].get<std::string>().find("journalctl --user -u airllmd"),
            std::string::npos);
  EXPECT_EQ(failed["message"], "airllmd.socket is active, airllmd.service is failed");
}

TEST(Doctor, ServiceManagerThatSaysNothingIsLeftOut) {
  const TemporaryFolder home;
  for (const char* script : {"exit 1\n", "echo one-word\n"}) {
    const Finished finished = run_airllm({"doctor", "--json"}, with_systemctl(home, script));
    EXPECT_TRUE(check_named(finished, "user_service").is_null()) << finished.out;
    EXPECT_EQ(finished.err, "");
  }
}

TEST(Diagnosis, ExitStatusIsOfTheFirstProblem) {
  Diagnosis diagnosis;
  diagnosis.warning("a", "m", "r");
  EXPECT_EQ(diagnosis.exit_status(), 0);
  EXPECT_TRUE(diagnosis.is_ok());
  diagnosis.problem("b", {ErrorCode::kNoPermission, "m", "r"});
  diagnosis.problem("c", {ErrorCode::kUnavailable, "m", "r"});
  EXPECT_EQ(diagnosis.exit_status(), 77);
  EXPECT_FALSE(diagnosis.is_ok());
}

}  // namespace
}  // namespace airllm::client
