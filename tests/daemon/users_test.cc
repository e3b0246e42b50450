// Who may do what: several users at one daemon, on a fake engine and without sockets, so that a
// test can be any user.
#include "daemon/user.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <semaphore>

#include "base/json.h"
#include "daemon/requests.h"
#include "protocol/framing.h"
#include "tests/daemon/fake_engine.h"
#include "tests/daemon/temporary_dir.h"

namespace airllm::daemon {
namespace {

constexpr uid_t kAnn = 100001;
constexpr uid_t kBen = 100002;
constexpr uid_t kAdmin = 100003;
constexpr gid_t kAdmins = 200000;

// One user's connection.
class Client {
 public:
  Client(Context& context, const User& user)
      : outbox_(std::make_shared<Outbox>(uint64_t{1} << 24, context.sent, user.uid,
                                         [this] { woken_.release(); })),
        requests_(context, outbox_, user) {}
  ~Client() {
    requests_.abandon();
    outbox_->close();
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // The result, or the error, of a request that ends.
  Result<Json> ask(protocol::Params params) {
    const uint64_t id = send(std::move(params));
    while (std::optional<protocol::Event> event = next()) {
      if (event->id != id) continue;
      if (auto* failed = std::get_if<protocol::Failed>(&event->body)) {
        return Unexpected(failed->error);
      }
      if (auto* done = std::get_if<protocol::Done>(&event->body)) {
        return parse_json(done->result_json, "result");
      }
      if (std::holds_alternative<protocol::Generated>(event->body)) return Json("generated");
    }
    return Unexpected(ErrorCode::kInternal, "nothing came");
  }

  // The number of a job that goes on.
  uint64_t start(protocol::Params params) {
    const uint64_t id = send(std::move(params));
    while (std::optional<protocol::Event> event = next()) {
      const auto* accepted = std::get_if<protocol::Accepted>(&event->body);
      if (event->id == id && accepted != nullptr) return accepted->job;
      if (const auto* failed = std::get_if<protocol::Failed>(&event->body)) {
        ADD_FAILURE() << failed->error.message;
        return 0;
      }
    }
    ADD_FAILURE() << "the job was not accepted";
    return 0;
  }

 private:
  uint64_t send(protocol::Params params) {
    EXPECT_TRUE(requests_.handle({++last_id_, std::move(params)}).has_value());
    return last_id_;
  }

  std::optional<protocol::Event> next() {
    while (events_.empty()) {
      Outbox::Work work = outbox_->take(uint64_t{1} << 20);
      for (const Outbox::Entry& entry : work.entries) take(entry);
      if (events_.empty() && !woken_.try_acquire_for(std::chrono::seconds(10))) return {};
    }
    protocol::Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  // As a connection does it.
  void take(const Outbox::Entry& entry) {
    if (entry.ends_request != 0) requests_.ended(entry.ends_request);
    outbox_->written(entry.frame.size());
    protocol::FrameReader reader;
    reader.append(entry.frame);
    const auto payload = reader.next();
    ASSERT_TRUE(payload.has_value() && payload->has_value());
    auto message = protocol::decode_server_message(**payload);
    ASSERT_TRUE(message.has_value());
    events_.push_back(std::get<protocol::Event>(std::move(*message)));
  }

  std::counting_semaphore<> woken_{0};
  const std::shared_ptr<Outbox> outbox_;
  Requests requests_;
  std::deque<protocol::Event> events_;
  uint64_t last_id_ = 0;
};

protocol::GenerateParams generate(const std::string& model) {
  protocol::GenerateParams params;
  params.model = model;
  params.raw_text = "once";
  return params;
}

template <typename Params>
Params about(const std::string& model) {
  Params params;
  params.model = model;
  return params;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Users : public ::testing::Test {
 protected:
  Users() {
    engine_.add({{"silent", kAnn}, kAnn});
    engine_.add({{"hers", kAnn}, kAnn});
    engine_.add({{"his", kBen}, kBen});
    engine_.add({"given", kAnn});
  }

  static ServerOptions options() {
    ServerOptions options;
    options.admin_group = kAdmins;
    options.max_splits_per_user = 1;
    return options;
  }

  User user(uid_t uid, std::vector<gid_t> groups = {}) const {
    return user_of({uid, std::move(groups)}, options_.admin_group);
  }

  TemporaryDir dir_;
  FakeEngine engine_{{"short", "silent"}};
  JobTable jobs_{engine_};
  DefaultModel default_model_ = DefaultModel::load(dir_.path(), "").value();
  const ServerOptions options_ = options();
  Context context_{engine_,
                   jobs_,
                   default_model_,
                   options_,
                   std::chrono::steady_clock::now(),
                   {options_.received_bytes, options_.received_per_user_bytes},
                   std::make_shared<ByteBudget>(options_.sent_bytes, options_.sent_per_user_bytes)};
  Client ann_{context_, user(kAnn)};
  Client ben_{context_, user(kBen)};
  Client admin_{context_, user(kAdmin, {5, kAdmins})};
  Client root_{context_, user(0)};
};

TEST_F(Users, RightsComeFromUserAndGroups) {
  EXPECT_TRUE(user(0).is_operator);
  EXPECT_TRUE(user(::geteuid()).is_operator);
  EXPECT_TRUE(user(0).is_admin);
  EXPECT_FALSE(user(kAnn).is_operator);
  EXPECT_FALSE(user(kAnn, {0, 5}).is_admin);
  EXPECT_TRUE(user(kAnn, {5, kAdmins}).is_admin);
  EXPECT_FALSE(user(kAnn, {5, kAdmins}).is_operator);
  EXPECT_FALSE(user_of({kAnn, {kAdmins}}, std::nullopt).is_admin);
}

TEST_F(Users, PeersTellTheirGroups) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const UniqueFd first(ends[0]), second(ends[1]);
  const auto peer = peer_identity(first.get());
  ASSERT_TRUE(peer.has_value()) << peer.error().message;
  EXPECT_EQ(peer->user, ::geteuid());
  std::vector<gid_t> groups(static_cast<size_t>(::getgroups(0, nullptr)));
  ASSERT_GE(::getgroups(static_cast<int>(groups.size()), groups.data()), 0);
  groups.push_back(::getegid());
  for (const gid_t group : groups) {
    EXPECT_NE(std::find(peer->groups.begin(), peer->groups.end(), group), peer->groups.end());
  }
}

// ---- jobs --------------------------------------------------------------------------------------

TEST_F(Users, AJobIsItsUsersToCancel) {
  const uint64_t job = ann_.start(generate("silent"));
  const Error error = ben_.ask(protocol::JobParams{job}).error();
  EXPECT_EQ(error.code, ErrorCode::kNoPermission);
  EXPECT_TRUE(contains(error.message, "only that user, root")) << error.message;
  EXPECT_EQ(admin_.ask(protocol::JobParams{job}).error().code, ErrorCode::kNoPermission);
  EXPECT_TRUE(root_.ask(protocol::JobParams{job}).has_value());
  const uint64_t own = ann_.start(generate("silent"));
  EXPECT_TRUE(ann_.ask(protocol::JobParams{own}).has_value());
}

TEST_F(Users, PsTellsNothingOfOthersText) {
  ann_.start(generate("silent"));
  const Json hers = ann_.ask(protocol::PsParams{}).value();
  ASSERT_EQ(hers.size(), 1u);
  EXPECT_EQ(hers[0]["model"], "silent");
  EXPECT_EQ(hers[0]["user"], std::to_string(kAnn));
  EXPECT_TRUE(hers[0].contains("prompt_tokens"));
  const Json his = ben_.ask(protocol::PsParams{}).value();
  ASSERT_EQ(his.size(), 1u);
  std::vector<std::string> keys;
  for (const auto& item : his[0].items()) keys.push_back(item.key());
  EXPECT_EQ(keys, (std::vector<std::string>{"job", "kind", "user", "state", "age_seconds"}));
  // A shared model's name is no secret; how long the texts are still is.
  ben_.start(generate("silent"));
  const Json seen = ann_.ask(protocol::PsParams{}).value();
  for (const Json& row : seen) {
    if (row["user"] != std::to_string(kBen)) continue;
    EXPECT_EQ(row["model"], "silent");
    EXPECT_FALSE(row.contains("completion_tokens"));
    EXPECT_FALSE(row.contains("done"));
  }
  const Json all = root_.ask(protocol::PsParams{}).value();
  ASSERT_EQ(all.size(), 2u);
  for (const Json& row : all) EXPECT_TRUE(row.contains("prompt_tokens") && row.contains("model"));
}

TEST_F(Users, SplitsAtATimeAreLimitedPerUser) {
  ann_.start(protocol::SplitParams{"a", "dir"});
  for (const Error& error : {ann_.ask(protocol::SplitParams{"b", "dir"}).error(),
                             ann_.ask(about<protocol::VerifyParams>("short")).error(),
                             ann_.ask(protocol::BenchStreamParams{"short"}).error(),
                             ann_.ask(protocol::BenchKernelsParams{1}).error()}) {
    EXPECT_EQ(error.code, ErrorCode::kTemporary);
    EXPECT_TRUE(contains(error.message, "max-splits-per-user allows 1")) << error.message;
    EXPECT_TRUE(contains(error.message, std::to_string(kAnn))) << error.message;
  }
  ben_.start(protocol::SplitParams{"a", "dir"});
  root_.start(protocol::SplitParams{"a", "dir"});
  root_.start(protocol::SplitParams{"b", "dir"});
}

// ---- models ------------------------------------------------------------------------------------

TEST_F(Users, APrivateModelIsForItsUserAlone) {
  EXPECT_EQ(ben_.ask(generate("hers")).error().code, ErrorCode::kNoInput);
  EXPECT_EQ(ben_.ask(about<protocol::ShowParams>("hers")).error().code, ErrorCode::kNoInput);
  EXPECT_EQ(ben_.ask(about<protocol::RemoveParams>("hers")).error().code, ErrorCode::kNoInput);
  EXPECT_EQ(ben_.ask(about<protocol::ShareParams>("hers")).error().code, ErrorCode::kNoInput);
  // Administrators manage it, but do not ask it.
  EXPECT_EQ(root_.ask(generate("hers")).error().code, ErrorCode::kNoInput);
  EXPECT_TRUE(admin_.ask(about<protocol::ShowParams>("hers")).has_value());
  const auto names = [](const Json& rows) {
    std::vector<std::string> out;
    for (const Json& row : rows) out.push_back(row["name"].get<std::string>());
    return out;
  };
  EXPECT_EQ(names(ben_.ask(protocol::ListParams{}).value()),
            (std::vector<std::string>{"short", "silent", "his", "given"}));
  EXPECT_EQ(admin_.ask(protocol::ListParams{}).value().size(), 6u);
}

TEST_F(Users, ABenchIsForThoseWhoMayAsk) {
  EXPECT_EQ(ann_.ask(protocol::BenchStreamParams{"hers"}).value()["model"], "hers");
  EXPECT_EQ(ben_.ask(protocol::BenchStreamParams{"hers"}).error().code, ErrorCode::kNoInput);
  EXPECT_EQ(admin_.ask(protocol::BenchStreamParams{"hers"}).error().code, ErrorCode::kNoInput);
  const uint64_t job = ann_.start(protocol::BenchStreamParams{"silent"});
  EXPECT_EQ(ben_.ask(protocol::JobParams{job}).error().code, ErrorCode::kNoPermission);
  EXPECT_TRUE(ann_.ask(protocol::JobParams{job}).has_value());
}

TEST_F(Users, OwnersAndAdministratorsRemove) {
  const Error error = ben_.ask(about<protocol::RemoveParams>("given")).error();
  EXPECT_EQ(error.code, ErrorCode::kNoPermission);
  EXPECT_TRUE(contains(error.message, std::to_string(kAnn))) << error.message;
  EXPECT_TRUE(contains(error.message, "only its owner and administrators may remove it"));
  EXPECT_TRUE(contains(error.remedy, "admin-group"));
  EXPECT_TRUE(engine_.has("given"));
  EXPECT_TRUE(ann_.ask(about<protocol::RemoveParams>("given")).has_value());
  EXPECT_FALSE(engine_.has("given"));
  EXPECT_EQ(ann_.ask(about<protocol::RemoveParams>("short")).error().code,
            ErrorCode::kNoPermission);
  EXPECT_TRUE(admin_.ask(about<protocol::RemoveParams>("short")).has_value());
  EXPECT_TRUE(root_.ask(about<protocol::RemoveParams>("his")).has_value());
}

TEST_F(Users, OwnersAndAdministratorsShare) {
  EXPECT_EQ(ben_.ask(about<protocol::ShareParams>("given")).error().code, ErrorCode::kNoPermission);
  EXPECT_EQ(ann_.ask(about<protocol::ShareParams>("given")).value()["unchanged"], true);
  const Json shared = ann_.ask(about<protocol::ShareParams>("hers")).value();
  EXPECT_EQ(shared["unchanged"], false);
  EXPECT_EQ(shared["owner"], std::to_string(kAnn));
  EXPECT_TRUE(engine_.has("hers"));
  EXPECT_TRUE(admin_.ask(about<protocol::ShareParams>("his")).has_value());
  EXPECT_TRUE(engine_.has("his"));
}

TEST_F(Users, WhoeverSeesAModelMayGiveItsMemoryBack) {
  EXPECT_EQ(ben_.ask(about<protocol::StopParams>("short")).value()["name"], "short");
  EXPECT_EQ(ben_.ask(about<protocol::StopParams>("given")).value()["was_in_memory"], true);
  EXPECT_EQ(ben_.ask(about<protocol::StopParams>("hers")).error().code, ErrorCode::kNoInput);
  EXPECT_TRUE(ann_.ask(about<protocol::StopParams>("hers")).has_value());
  EXPECT_TRUE(admin_.ask(about<protocol::StopParams>("his")).has_value());
  EXPECT_EQ(ann_.ask(about<protocol::StopParams>("")).error().code, ErrorCode::kUsage);
}

TEST_F(Users, TheDefaultForAllIsASharedModelThatAnAdministratorChose) {
  const Error error = ann_.ask(protocol::DefaultParams{"short"}).error();
  EXPECT_EQ(error.code, ErrorCode::kNoPermission);
  EXPECT_TRUE(contains(error.message, "only administrators")) << error.message;
  EXPECT_TRUE(ann_.ask(protocol::DefaultParams{}).has_value());
  const Error hidden = admin_.ask(protocol::DefaultParams{"hers"}).error();
  EXPECT_EQ(hidden.code, ErrorCode::kUsage);
  EXPECT_TRUE(contains(hidden.remedy, "airllm share hers")) << hidden.remedy;
  EXPECT_TRUE(admin_.ask(protocol::DefaultParams{"short"}).has_value());
  EXPECT_EQ(ben_.ask(generate("")).value(), "generated");
}

TEST_F(Users, WithoutANameTheOnlyModelThatOneSeesIsMeant) {
  for (const char* name : {"short", "silent", "given"}) {
    ASSERT_TRUE(root_.ask(about<protocol::RemoveParams>(name)).has_value());
  }
  const Error several = ann_.ask(generate("")).error();
  EXPECT_TRUE(contains(several.message, "hers")) << several.message;
  EXPECT_FALSE(contains(several.message, "his")) << several.message;
  EXPECT_TRUE(ben_.ask(about<protocol::ShowParams>("")).value()["name"] == "his");
}

}  // namespace
}  // namespace airllm::daemon
