#include "daemon/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <filesystem>
#include <future>
#include <thread>

#include "base/json.h"
#include "daemon/listener.h"
#include "tests/daemon/fake_engine.h"
#include "tests/daemon/temporary_dir.h"
#include "tests/daemon/test_peer.h"

namespace airllm::daemon {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// A server on a fake engine, on a thread of its own.
class ServerTest : public ::testing::Test {
 protected:
  void start(std::vector<std::string> models = {"short", "endless", "silent", "flood", "deaf"}) {
    engine_ = std::make_unique<FakeEngine>(std::move(models));
    auto listener = Listener::reserve({dir_ / "s", false, false});
    ASSERT_TRUE(listener.has_value()) << listener.error().message;
    listener_.emplace(std::move(listener).value());
    ASSERT_TRUE(listener_->publish().has_value());
    auto default_model = DefaultModel::load(dir_.path(), "");
    ASSERT_TRUE(default_model.has_value());
    server_ = std::make_unique<Server>(io_, *engine_, std::move(default_model).value(), options_,
                                       [this] { io_.stop(); });
    ASSERT_TRUE(server_->start(listener_->fd()).has_value());
    thread_ = std::thread([this] { io_.run(); });
  }

  void TearDown() override {
    if (!thread_.joinable()) return;
    stop();
    stop();
    thread_.join();
    server_.reset();
    engine_.reset();
  }

  void stop() {
    asio::post(io_, [this] { server_->stop(); });
  }

  size_t connections() {
    std::promise<size_t> count;
    asio::post(io_, [&] { count.set_value(server_->connections()); });
    return count.get_future().get();
  }

  TestPeer connect() { return TestPeer::connect(dir_ / "s"); }
  TestPeer greeted() {
    TestPeer peer = connect();
    peer.hello();
    return peer;
  }

  TemporaryDir dir_;
  ServerOptions options_;
  asio::io_context io_;
  std::unique_ptr<FakeEngine> engine_;
  std::optional<Listener> listener_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// ---- answers -----------------------------------------------------------------------------------

TEST_F(ServerTest, AnswersHello) {
  start();
  TestPeer peer = connect();
  peer.send(protocol::Hello{});
  const auto answer = peer.receive();
  ASSERT_TRUE(answer.has_value());
  const auto& hello = std::get<protocol::Hello>(*answer);
  EXPECT_EQ(hello.version, protocol::kProtocolVersion);
  EXPECT_EQ(hello.pid, static_cast<uint64_t>(::getpid()));
}

TEST_F(ServerTest, RefusesAnotherVersionAndNamesBoth) {
  start();
  TestPeer peer = connect();
  protocol::Hello hello;
  hello.version = 7;
  peer.send(hello);
  const Error error = peer.failure(0);
  EXPECT_EQ(error.code, ErrorCode::kProtocol);
  EXPECT_NE(error.message.find('7'), std::string::npos);
  EXPECT_NE(error.message.find('1'), std::string::npos);
  EXPECT_FALSE(error.remedy.empty());
  EXPECT_TRUE(peer.reaches_end());
}

TEST_F(ServerTest, StreamsAnAnswerInOrder) {
  start();
  TestPeer peer = greeted();
  peer.generate(1, "short");
  std::string text;
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(1).has_value());
  for (int i = 0; i < 3; ++i) text += peer.wait_for<protocol::Token>(1).value().text;
  EXPECT_EQ(text, "t0t1t2");
  const auto end = peer.wait_for<protocol::Generated>(1);
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->finish_reason, "length");
  EXPECT_EQ(end->completion_tokens, 3u);
}

TEST_F(ServerTest, TextJobsAnswerWithTokensOrText) {
  start();
  TestPeer peer = greeted();
  peer.send(protocol::Request{1, protocol::TokenizeParams{"short", "ab"}});
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(1).value().model, "short");
  EXPECT_EQ(peer.wait_for<protocol::Tokens>(1).value().ids, (std::vector<int32_t>{'a', 'b'}));
  EXPECT_EQ(peer.wait_for<protocol::Done>(1).value().result_json, R"({"model":"short","count":2})");
  peer.send(protocol::Request{2, protocol::DetokenizeParams{"short", {'h', 'i'}}});
  EXPECT_EQ(peer.wait_for<protocol::Text>(2).value().text, "hi");
  EXPECT_TRUE(peer.wait_for<protocol::Done>(2).has_value());
  peer.send(protocol::Request{3, protocol::TemplateParams{"short", "[1]"}});
  EXPECT_EQ(peer.wait_for<protocol::Text>(3).value().text, "[1]");
  peer.send(protocol::Request{4, protocol::TokenizeParams{"unknown", "x"}});
  EXPECT_EQ(peer.wait_for<protocol::Failed>(4).value().error.code, ErrorCode::kNoInput);
}

TEST_F(ServerTest, AnIdMayBeUsedAgainAtOnce) {
  start();
  TestPeer peer = greeted();
  for (int i = 0; i < 50; ++i) {
    peer.generate(1, "short");
    ASSERT_TRUE(peer.wait_for<protocol::Generated>(1).has_value()) << i;
  }
}

TEST_F(ServerTest, TwoRequestsOnOneConnection) {
  start();
  TestPeer peer = greeted();
  peer.generate(1, "endless");
  ASSERT_TRUE(peer.wait_for<protocol::Token>(1).has_value());
  peer.generate(2, "short");
  ASSERT_TRUE(peer.wait_for<protocol::Generated>(2).has_value());
  ASSERT_TRUE(peer.wait_for<protocol::Token>(1).has_value());
  peer.send(protocol::Cancel{1});
  const auto end = peer.wait_for<protocol::Generated>(1);
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->finish_reason, "cancelled");
}

TEST_F(ServerTest, ARunningIdTwiceEndsTheConnection) {
  start();
  TestPeer peer = greeted();
  peer.generate(5, "silent");
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(5).has_value());
  peer.generate(5, "short");
  EXPECT_EQ(peer.failure(0).code, ErrorCode::kProtocol);
  EXPECT_TRUE(eventually([&] { return engine_->running() == 0; }));
}

TEST_F(ServerTest, ListShowPsStatusAndDefault) {
  start();
  TestPeer peer = greeted();
  peer.generate(9, "silent");
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(9).has_value());
  const auto result = [&](uint64_t id, protocol::Params params) {
    peer.request(id, std::move(params));
    const auto done = peer.wait_for<protocol::Done>(id);
    return done ? Json::parse(done->result_json) : Json();
  };
  EXPECT_EQ(result(1, protocol::ListParams{}).size(), 5u);
  protocol::ShowParams show;
  show.model = "short";
  EXPECT_EQ(result(2, show)["name"], "short");
  const Json rows = result(3, protocol::PsParams{});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0]["model"], "silent");
  EXPECT_EQ(result(4, protocol::StatusParams{})["pid"], ::getpid());
  EXPECT_EQ(result(5, protocol::DefaultParams{"short"})["model"], "short");
  EXPECT_EQ(result(6, protocol::DefaultParams{})["model"], "short");
  peer.generate(7, "");
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(7).value().model, "short");
  auto stored = DefaultModel::load(dir_.path(), "other");
  ASSERT_TRUE(stored.has_value());
  EXPECT_EQ(stored->get(), "short");
  EXPECT_EQ(result(8, protocol::DefaultParams{""})["model"], "");
  EXPECT_FALSE(fs::exists(dir_ / "default"));
}

TEST_F(ServerTest, DoctorAndTheDisksSpeed) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::DoctorParams{});
  const Json doctor = Json::parse(peer.wait_for<protocol::Done>(1).value().result_json);
  EXPECT_GT(doctor["checks"].size(), 5u);
  peer.request(2, protocol::MeasureDiskParams{});
  const Json speed = Json::parse(peer.wait_for<protocol::Done>(2).value().result_json);
  EXPECT_EQ(speed["path"], "shard");
}

TEST_F(ServerTest, ABenchTellsOfItsProgressAndEndsWithItsResult) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::BenchStreamParams{"short", 5});
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(1).value().model, "short");
  const auto progress = peer.wait_for<protocol::Progress>(1).value();
  EXPECT_EQ(progress.stage, "bench");
  EXPECT_EQ(progress.total, 5U);
  EXPECT_EQ(Json::parse(peer.wait_for<protocol::Done>(1).value().result_json)["sweeps"], 5U);
  peer.request(2, protocol::BenchStreamParams{"short"});
  EXPECT_EQ(Json::parse(peer.wait_for<protocol::Done>(2).value().result_json)["sweeps"],
            engine::kDefaultBenchSweeps);
}

TEST_F(ServerTest, ABenchOfAnUnknownModelOrOfTooManySweepsIsRefused) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::BenchStreamParams{"nonsense"});
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kNoInput);
  peer.request(2, protocol::BenchStreamParams{"short", engine::kMaxBenchSweeps + 1});
  EXPECT_EQ(peer.failure(2).code, ErrorCode::kUsage);
}

TEST_F(ServerTest, ABenchOfKernelsIsOfNoModel) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::BenchKernelsParams{3});
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(1).value().model, "");
  EXPECT_EQ(Json::parse(peer.wait_for<protocol::Done>(1).value().result_json)["rounds"], 3U);
  peer.request(2, protocol::BenchKernelsParams{});
  EXPECT_EQ(Json::parse(peer.wait_for<protocol::Done>(2).value().result_json)["rounds"],
            engine::kDefaultBenchRounds);
  peer.request(3, protocol::BenchKernelsParams{engine::kMaxBenchSweeps + 1});
  EXPECT_EQ(peer.failure(3).code, ErrorCode::kUsage);
}

TEST_F(ServerTest, ABenchIsCancelled) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::BenchStreamParams{"silent"});
  peer.wait_for<protocol::Progress>(1);
  peer.send(protocol::Cancel{1});
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kCancelled);
}

TEST_F(ServerTest, DefaultOfAnUnknownModelIsRefused) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::DefaultParams{"nonsense"});
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kNoInput);
}

TEST_F(ServerTest, WithoutAModelTheListIsTold) {
  start();
  TestPeer peer = greeted();
  peer.generate(1, "");
  const Error error = peer.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kUsage);
  EXPECT_NE(error.message.find("endless"), std::string::npos);
  EXPECT_NE(error.remedy.find("airllm default MODEL"), std::string::npos);
}

TEST_F(ServerTest, ABundledModelDoesNotCountBesideAnother) {
  start({"bundled", "short"});
  engine_->set_bundled("bundled");
  TestPeer peer = greeted();
  peer.generate(1, "");
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(1).value().model, "short");
}

TEST_F(ServerTest, AnUnknownMethodIsAnsweredAndTheConnectionLives) {
  start();
  TestPeer peer = greeted();
  peer.request(3, protocol::UnknownMethod{"dance"});
  EXPECT_NE(peer.failure(3).message.find("dance"), std::string::npos);
  peer.request(4, protocol::ListParams{});
  EXPECT_TRUE(peer.wait_for<protocol::Done>(4).has_value());
}

TEST_F(ServerTest, AGenerateRequestHasOnePrompt) {
  start();
  TestPeer peer = greeted();
  protocol::GenerateParams params;
  params.model = "short";
  peer.request(1, params);
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kUsage);
  params.raw_text = "a";
  params.prompt_ids = std::vector<int32_t>{1};
  peer.request(2, params);
  EXPECT_EQ(peer.failure(2).code, ErrorCode::kUsage);
}

TEST_F(ServerTest, AnyConnectionOfTheUserMayCancelAJob) {
  start();
  TestPeer peer = greeted();
  peer.generate(1, "silent");
  const uint64_t job = peer.wait_for<protocol::Accepted>(1).value().job;
  TestPeer other = greeted();
  other.request(1, protocol::JobParams{job});
  EXPECT_TRUE(other.wait_for<protocol::Done>(1).has_value());
  EXPECT_EQ(peer.wait_for<protocol::Generated>(1).value().finish_reason, "cancelled");
  other.request(2, protocol::JobParams{12345});
  EXPECT_EQ(other.failure(2).code, ErrorCode::kNoInput);
}

// ---- peers that go or misbehave ----------------------------------------------------------------

TEST_F(ServerTest, AnAbruptEndCancelsItsJobs) {
  start();
  TestPeer peer = greeted();
  peer.generate(1, "silent");
  peer.generate(2, "endless");
  peer.request(3, protocol::SplitParams{"x", "dir"});
  ASSERT_TRUE(peer.wait_for<protocol::OpenFiles>(3).has_value());
  peer.close();
  EXPECT_TRUE(eventually([&] { return engine_->running() == 0; }));
  EXPECT_TRUE(eventually([&] { return connections() == 0; }));
}

TEST_F(ServerTest, GarbageIsAnsweredAndTheDaemonLives) {
  start();
  const std::string frames[] = {
      std::string("\0\0\0\0", 4),       "\xff\xff\xff\xff",
      std::string("\x01\0\0\0\xc1", 5), std::string("\x05\0\0\0\xdf\xff\xff\xff\xff", 9),
      "GET / HTTP/1.1\r\n\r\n",
  };
  for (const std::string& bytes : frames) {
    for (const bool hello : {false, true}) {
      TestPeer peer = connect();
      if (hello) peer.hello();
      peer.send_raw(bytes);
      EXPECT_EQ(peer.failure(0).code, ErrorCode::kProtocol);
      EXPECT_TRUE(peer.reaches_end());
    }
  }
  TestPeer peer = greeted();
  peer.generate(1, "short");
  EXPECT_TRUE(peer.wait_for<protocol::Generated>(1).has_value());
}

TEST_F(ServerTest, ARequestBeforeHelloIsRefused) {
  start();
  TestPeer peer = connect();
  peer.generate(1, "short");
  EXPECT_EQ(peer.failure(0).code, ErrorCode::kProtocol);
}

TEST_F(ServerTest, WithoutHelloTheConnectionIsDropped) {
  options_.hello_timeout = 50ms;
  start();
  TestPeer peer = connect();
  EXPECT_TRUE(peer.reaches_end());
}

// The time for it ends while the daemon is busy, and the hello waits to be read.
TEST_F(ServerTest, AHelloThatTheDaemonIsLateToReadIsInTime) {
  options_.hello_timeout = 50ms;
  start();
  TestPeer peer = connect();
  EXPECT_TRUE(eventually([&] { return connections() == 1; }));
  std::promise<void> busy;
  asio::post(io_, [&] {
    busy.set_value();
    std::this_thread::sleep_for(150ms);
  });
  busy.get_future().wait();
  peer.hello();
  peer.generate(1, "short");
  EXPECT_TRUE(peer.wait_for<protocol::Generated>(1).has_value());
}

TEST_F(ServerTest, HalfAFrameWaitsAndDisturbsNobody) {
  start();
  TestPeer half = greeted();
  half.send_raw(std::string("\xff\0\0\0\x84", 5));
  TestPeer peer = greeted();
  peer.generate(1, "short");
  EXPECT_TRUE(peer.wait_for<protocol::Generated>(1).has_value());
}

TEST_F(ServerTest, ASlowReaderLosesItsJobAndIsTold) {
  options_.send_buffer_bytes = uint64_t{1} << 20;
  start();
  TestPeer peer = greeted();
  peer.generate(1, "flood");
  EXPECT_TRUE(eventually([&] { return engine_->cancelled() == 1; }));
  EXPECT_TRUE(eventually([&] { return engine_->running() == 0; }));
  const Error error = peer.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kTemporary);
  peer.request(2, protocol::ListParams{});
  EXPECT_TRUE(peer.wait_for<protocol::Done>(2).has_value());
}

TEST_F(ServerTest, APeerThatNeverReadsIsDisconnected) {
  options_.send_buffer_bytes = uint64_t{1} << 20;
  options_.stuck_timeout = 100ms;
  start();
  TestPeer peer = greeted();
  peer.generate(1, "flood");
  EXPECT_TRUE(eventually([&] { return engine_->cancelled() == 1; }));
  EXPECT_TRUE(eventually([&] { return connections() == 0; }));
}

TEST_F(ServerTest, AnswersThatNobodyReadsAreBounded) {
  options_.send_buffer_bytes = uint64_t{1} << 20;
  options_.linger = 100ms;
  start();
  TestPeer peer = greeted();
  std::string frames;
  for (uint64_t id = 1; id <= 1000; ++id) {
    frames += protocol::encode(protocol::Request{id, protocol::ListParams{}}).value();
  }
  // The daemon closes once a longest frame more than the bound waits.
  bool sent = true;
  for (int i = 0; i < 10000 && sent; ++i) sent = peer.send_raw(frames);
  EXPECT_FALSE(sent);
  EXPECT_TRUE(eventually([&] { return connections() == 0; }));
}

TEST_F(ServerTest, TooManyConnectionsAreRefused) {
  options_.connections = {2, 2};
  start();
  TestPeer one = greeted();
  TestPeer two = greeted();
  TestPeer three = connect();
  EXPECT_EQ(three.failure(0).code, ErrorCode::kTemporary);
  EXPECT_TRUE(three.reaches_end());
  three.close();
  one.close();
  EXPECT_TRUE(eventually([&] { return connections() == 1; }));
  TestPeer four = greeted();
}

TEST_F(ServerTest, ASilentConnectionGivesWayToANewOne) {
  options_.connections = {2, 2};
  options_.hello_timeout = 1h;
  start();
  TestPeer silent = connect();
  TestPeer greeting = greeted();
  EXPECT_TRUE(eventually([&] { return connections() == 2; }));
  TestPeer late = greeted();
  EXPECT_TRUE(silent.reaches_end());
  late.request(1, protocol::ListParams{});
  EXPECT_TRUE(late.wait_for<protocol::Done>(1).has_value());
  greeting.request(1, protocol::ListParams{});
  EXPECT_TRUE(greeting.wait_for<protocol::Done>(1).has_value());
}

TEST_F(ServerTest, HalvesOfFramesAreCountedForTheUser) {
  options_.received_per_user_bytes = 1 << 20;
  start();
  const auto half_a_frame = [this](size_t bytes) {
    TestPeer peer = greeted();
    peer.send_raw(std::string("\0\0\xff\0", 4) + std::string(bytes, 'x'));
    return peer;
  };
  std::vector<TestPeer> halves;
  halves.push_back(half_a_frame(700 << 10));
  halves.back().request(1, protocol::ListParams{});  // no more than the frame's middle
  halves.push_back(half_a_frame(700 << 10));
  const Error error = halves[1].failure(0);
  EXPECT_EQ(error.code, ErrorCode::kTemporary);
  EXPECT_NE(error.remedy.find("max-prompts-per-user"), std::string::npos) << error.remedy;
  halves.clear();
  EXPECT_TRUE(eventually([&] { return connections() == 0; }));
  TestPeer peer = half_a_frame(700 << 10);
  peer.send_raw(std::string((0xff0000 - (700 << 10)), 'x'));
  EXPECT_EQ(peer.failure(0).code, ErrorCode::kTemporary);
}

TEST_F(ServerTest, AFrameBeforeHelloIsShort) {
  start();
  TestPeer peer = connect();
  peer.send_raw(std::string("\x01\0\x01\0", 4));
  EXPECT_EQ(peer.failure(0).code, ErrorCode::kProtocol);
}

TEST_F(ServerTest, RefusedConnectionsThatLingerGiveWay) {
  options_.connections = {1, 1};
  options_.linger = 1h;
  start();
  TestPeer one = greeted();
  std::vector<TestPeer> refused;
  for (int i = 0; i < 20; ++i) {
    refused.push_back(connect());
    EXPECT_EQ(refused.back().failure(0).code, ErrorCode::kTemporary) << i;
  }
  EXPECT_LE(connections(), 3u);
}

// ---- files -------------------------------------------------------------------------------------

UniqueFd file_of(size_t bytes) {
  UniqueFd fd(::memfd_create("file", MFD_CLOEXEC));
  AIRLLM_CHECK(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST_F(ServerTest, ASplitReadsFilesOverTheConnection) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::SplitParams{"", "some/dir/mymodel/"});
  EXPECT_EQ(peer.wait_for<protocol::Accepted>(1).value().model, "mymodel");
  const auto asked = peer.wait_for<protocol::OpenFiles>(1);
  ASSERT_TRUE(asked.has_value());
  ASSERT_EQ(asked->names.size(), 2u);
  const UniqueFd file = file_of(123);
  const int fd = file.get();
  peer.send(protocol::Files{1, asked->names, {"ok", "missing"}}, {&fd, 1});
  const auto done = peer.wait_for<protocol::Done>(1);
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->result_json, R"({"sizes":[123,null]})");
}

TEST_F(ServerTest, ARefusedFileEndsTheSplit) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::SplitParams{"x", "dir"});
  const auto asked = peer.wait_for<protocol::OpenFiles>(1);
  peer.send(protocol::Files{1, asked.value().names, {"not a plain file", "missing"}});
  const Error error = peer.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kNoInput);
  EXPECT_NE(error.message.find("config.json: not a plain file"), std::string::npos);
}

TEST_F(ServerTest, CancelEndsASplitThatWaitsForFiles) {
  start();
  TestPeer peer = greeted();
  peer.request(1, protocol::SplitParams{"x", "dir"});
  ASSERT_TRUE(peer.wait_for<protocol::OpenFiles>(1).has_value());
  peer.send(protocol::Cancel{1});
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kCancelled);
}

TEST_F(ServerTest, WrongFilesEndTheConnection) {
  start();
  const std::vector<std::string> names(kSplitNames.begin(), kSplitNames.end());
  const UniqueFd file = file_of(1);
  const std::vector<int> fds(3, file.get());
  const protocol::Files answers[] = {
      {1, names, {"ok", "ok"}},            // three descriptors come, two are said
      {1, {"a", "b"}, {"ok", "missing"}},  // not what was asked
      {1, {"config.json"}, {"ok"}},
  };
  for (const protocol::Files& files : answers) {
    TestPeer peer = greeted();
    peer.request(1, protocol::SplitParams{"x", "dir"});
    ASSERT_TRUE(peer.wait_for<protocol::OpenFiles>(1).has_value());
    peer.send(files, fds);
    EXPECT_EQ(peer.failure(0).code, ErrorCode::kProtocol);
  }
  EXPECT_TRUE(eventually([&] { return engine_->running() == 0; }));
}

TEST_F(ServerTest, DescriptorsElsewhereAreClosed) {
  start();
  TestPeer peer = greeted();
  const UniqueFd file = file_of(1);
  const std::vector<int> fds(protocol::kMaxDescriptors, file.get());
  const size_t before = open_descriptors();
  for (uint64_t id = 1; id <= 20; ++id) {
    peer.send(protocol::Request{id, protocol::ListParams{}}, fds);
    ASSERT_TRUE(peer.wait_for<protocol::Done>(id).has_value());
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ServerTest, MoreDescriptorsThanAMessageMayCarryAreRefused) {
  start();
  const UniqueFd file = file_of(1);
  const std::vector<int> fds(protocol::kMaxDescriptors + 1, file.get());
  TestPeer at_once = greeted();
  at_once.send(protocol::Request{1, protocol::ListParams{}}, fds);
  EXPECT_EQ(at_once.failure(0).code, ErrorCode::kProtocol);
  // The same within a frame that never ends.
  TestPeer in_parts = greeted();
  const std::span<const int> half = std::span(fds).first(40);
  in_parts.send_raw(std::string("\xff\0\0\0\x84", 5), half);
  in_parts.send_raw("a", half);
  EXPECT_EQ(in_parts.failure(0).code, ErrorCode::kProtocol);
}

// ---- stopping ----------------------------------------------------------------------------------

TEST_F(ServerTest, StopWithoutJobsIsImmediate) {
  start();
  TestPeer peer = greeted();
  stop();
  EXPECT_TRUE(peer.reaches_end());
  peer.close();
  thread_.join();
}

TEST_F(ServerTest, StopLetsAJobFinishAndRefusesNewOnes) {
  options_.stop_timeout = 60s;
  start();
  TestPeer peer = greeted();
  peer.generate(1, "endless");
  ASSERT_TRUE(peer.wait_for<protocol::Token>(1).has_value());
  stop();
  TestPeer late = greeted();
  late.generate(1, "short");
  const Error error = late.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
  ASSERT_TRUE(peer.wait_for<protocol::Token>(1).has_value());
  peer.send(protocol::Cancel{1});
  EXPECT_TRUE(peer.wait_for<protocol::Generated>(1).has_value());
  peer.close();
  late.close();
  thread_.join();
}

TEST_F(ServerTest, StopEndsJobsAtTheDeadline) {
  options_.stop_timeout = 100ms;
  start();
  TestPeer peer = greeted();
  peer.generate(1, "deaf");
  peer.request(2, protocol::SplitParams{"x", "dir"});
  ASSERT_TRUE(peer.wait_for<protocol::OpenFiles>(2).has_value());
  stop();
  const Error error = peer.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
  EXPECT_EQ(error.message, "the daemon is being stopped or restarted, ask again");
  EXPECT_EQ(peer.failure(2).code, ErrorCode::kUnavailable);
  EXPECT_TRUE(peer.reaches_end());
  peer.close();
  thread_.join();
  EXPECT_TRUE(eventually([&] { return engine_->running() == 0; }));
}

TEST_F(ServerTest, ASecondStopDoesNotWait) {
  options_.stop_timeout = 3600s;
  start();
  TestPeer peer = greeted();
  peer.generate(1, "silent");
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(1).has_value());
  stop();
  stop();
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kUnavailable);
  peer.close();
  thread_.join();
}

}  // namespace
}  // namespace airllm::daemon
