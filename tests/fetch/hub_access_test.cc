#include "fetch/hub_access.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

using Kind = Verdict::Kind;

HubAccess access(const std::string& endpoint = "https://hub.example",
                 const std::string& token = "hf_secret") {
  protocol::Repository from{endpoint, "acme/tiny", "main", "", false};
  auto hub = HubAccess::make(from, Secret(token));
  AIRLLM_CHECK(hub.has_value());
  return std::move(*hub);
}

Url url(std::string_view text) { return Url::parse(text, "test").value(); }

HttpEnd answer(int status, const std::vector<std::string>& lines = {}) {
  HttpEnd end;
  for (const std::string& line : lines) end.head.add_line(line);
  end.head.status = status;
  return end;
}

Verdict judged(const HttpEnd& end, const std::string& token = "hf_secret",
               const std::string& name = "", bool at_hub = true) {
  const HubAccess hub = access("https://hub.example", token);
  return judge(end, hub, url("https://hub.example/x?Signature=abc"), at_hub, name);
}

// CVE-2025-51471: a token that is sent to another host.
TEST(Token, GoesToTheEndpointsOriginAlone) {
  const HubAccess hub = access("https://hub.example/path");
  EXPECT_NE(hub.token_for(url("https://hub.example/anything")), nullptr);
  EXPECT_NE(hub.token_for(url("https://HUB.example:443/")), nullptr);
  for (const char* other : {"http://hub.example/", "https://hub.example:444/",
                            "https://cdn.example/", "https://hub.example.evil.org/",
                            "https://evil.org/hub.example", "https://sub.hub.example/"}) {
    EXPECT_EQ(hub.token_for(url(other)), nullptr) << other;
  }
  EXPECT_EQ(access("https://hub.example", "").token_for(url("https://hub.example/")), nullptr);
}

TEST(Token, GoesWithoutEncryptionToThisMachineAlone) {
  for (const char* endpoint : {"http://localhost:80", "http://127.0.0.1", "http://[::1]:8080"}) {
    protocol::Repository from{endpoint, "a/b", "main", "", false};
    EXPECT_TRUE(HubAccess::make(from, Secret("hf_x")).has_value()) << endpoint;
  }
  protocol::Repository from{"http://hub.example", "a/b", "main", "", false};
  const auto refused = HubAccess::make(from, Secret("hf_x"));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kConfig);
  EXPECT_EQ(refused.error().message.find("hf_x"), std::string::npos);
  protocol::Repository again{"http://hub.example", "a/b", "main", "", false};
  EXPECT_TRUE(HubAccess::make(again, Secret()).has_value());
}

TEST(Token, CannotBringFieldsOfItsOwn) {
  for (const std::string& token : {std::string("a\r\nX: y"), std::string("a b"), std::string("ü"),
                                   std::string("a\0b", 3), std::string(5000, 'x')}) {
    protocol::Repository from{"https://hub.example", "a/b", "main", "", false};
    const auto refused = HubAccess::make(from, Secret(token));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().message.find(token), std::string::npos);
  }
}

TEST(Secrets, AreMovedAndNotCopied) {
  Secret first("hf_secret");
  Secret second(std::move(first));
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.reveal(), "hf_secret");
  first = std::move(second);
  EXPECT_EQ(first.reveal(), "hf_secret");
}

TEST(Verdicts, SuccessIsGood) {
  EXPECT_EQ(judged(answer(200)).kind, Kind::kGood);
  EXPECT_EQ(judged(answer(206)).kind, Kind::kGood);
}

TEST(Verdicts, RedirectsHaveATarget) {
  const Verdict verdict = judged(answer(302, {"Location: https://cdn.example/y"}));
  ASSERT_EQ(verdict.kind, Kind::kRedirect);
  EXPECT_EQ(verdict.target->text(), "https://cdn.example/y");
  EXPECT_EQ(judged(answer(302, {"Location: http://hub.example/y"})).kind, Kind::kAgain);
  EXPECT_EQ(judged(answer(302)).kind, Kind::kFailed);
}

TEST(Verdicts, BusyServersAreAskedAgain) {
  for (const int status : {408, 425, 429, 500, 502, 503, 504, 599}) {
    EXPECT_EQ(judged(answer(status)).kind, Kind::kAgain) << status;
  }
  EXPECT_EQ(judged(answer(429, {"Retry-After: 7"})).asked, std::chrono::seconds(7));
}

TEST(Verdicts, BrokenConnectionsAreTriedAgainAndDistrustIsNot) {
  HttpEnd end;
  end.how = HttpEnd::How::kBroken;
  end.problem = "reset\x1b[2J";
  const Verdict again = judged(end);
  EXPECT_EQ(again.kind, Kind::kAgain);
  EXPECT_TRUE(again.failure.resumable);
  EXPECT_EQ(again.failure.error.message.find('\x1b'), std::string::npos);
  end.how = HttpEnd::How::kUntrusted;
  const Verdict never = judged(end);
  EXPECT_EQ(never.kind, Kind::kFailed);
  EXPECT_EQ(never.failure.reason, reason::kTls);
}

TEST(Verdicts, StoresForgetTheirAddresses) {
  for (const int status : {400, 401, 403, 404, 410}) {
    EXPECT_EQ(judged(answer(status), "hf_secret", "x", false).kind, Kind::kExpired) << status;
  }
}

struct Case {
  int status;
  std::vector<std::string> lines;
  std::string token;
  std::string_view reason;
  std::string remedy;  // a part of it
};

// docs/hub-protocol.md, "Refusals".
TEST(Refusals, SayWhatToDo) {
  const std::string gated = "X-Error-Code: GatedRepo";
  const std::vector<Case> cases = {
      {401, {gated}, "", reason::kGated, "accept them at https://hub.example/acme/tiny"},
      {401, {gated}, "", reason::kGated, "set HF_TOKEN"},
      {403,
       {gated, "X-Error-Message: you are not in the authorized list"},
       "t",
       reason::kGated,
       "accept its terms at https://hub.example/acme/tiny"},
      {403, {gated, "X-Error-Message: is awaiting a review"}, "t", reason::kGated, "wait"},
      {403,
       {"X-Error-Message: public gated repositories in your fine-grained token"},
       "t",
       reason::kGated,
       "https://hub.example/settings/tokens"},
      {401,
       {"X-Error-Message: Invalid username or password."},
       "",
       reason::kNoRepository,
       "check the spelling"},
      {404, {"X-Error-Code: RepoNotFound"}, "t", reason::kNoRepository, "owner may read it"},
      {404, {"X-Error-Code: RevisionNotFound"}, "", reason::kNoRevision, "branches"},
      {404, {"X-Error-Code: EntryNotFound"}, "", reason::kNoFile, "list it again"},
      {401,
       {"X-Error-Message: Invalid credentials in Authorization header"},
       "t",
       reason::kUnauthorized,
       "settings/tokens"},
      {403,
       {"X-Error-Message: Access to this resource is disabled."},
       "",
       reason::kServer,
       "browser"},
      {418, {}, "", reason::kServer, "browser"},
  };
  for (const Case& one : cases) {
    const Verdict verdict = judged(answer(one.status, one.lines), one.token, "f.bin");
    EXPECT_EQ(verdict.kind, Kind::kFailed);
    EXPECT_EQ(verdict.failure.reason, one.reason) << one.status << one.remedy;
    EXPECT_NE(verdict.failure.error.remedy.find(one.remedy), std::string::npos)
        << verdict.failure.error.remedy;
    EXPECT_NE(verdict.failure.error.message, "");
    EXPECT_FALSE(verdict.failure.resumable);
  }
}

TEST(Refusals, ShowNoSignatures) {
  EXPECT_EQ(judged(answer(503)).failure.error.message.find("Signature"), std::string::npos);
}

}  // namespace
}  // namespace airllm::fetch
