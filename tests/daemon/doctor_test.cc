#include "daemon/doctor.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "base/json.h"
#include "tests/daemon/fake_engine.h"
#include "tests/daemon/temporary_dir.h"

namespace airllm::daemon {
namespace {

namespace fs = std::filesystem;

class DaemonDoctorTest : public ::testing::Test {
 protected:
  DaemonDoctorTest() {
    options_.store_dir = dir_.path();
    fs::create_directory(dir_ / "models");
    fs::create_directory(dir_ / "incoming");
  }

  Json checks(const std::string& configured_default = "", bool stopping = false) {
    auto default_model = DefaultModel::load(dir_.path(), configured_default);
    EXPECT_TRUE(default_model.has_value());
    JobTable jobs(engine_);
    Context context{engine_,
                    jobs,
                    *default_model,
                    options_,
                    std::chrono::steady_clock::now(),
                    {options_.received_bytes, options_.received_per_user_bytes},
                    std::make_shared<ByteBudget>(options_.sent_bytes, options_.sent_per_user_bytes),
                    stopping};
    return doctor_checks(context, {});
  }

  static Json named(const Json& checks, const std::string& name) {
    for (const Json& check : checks) {
      if (check["name"] == Json(name)) return check;
    }
    return Json();
  }

  TemporaryDir dir_;
  ServerOptions options_;
  FakeEngine engine_{{"short", "endless"}};
};

TEST_F(DaemonDoctorTest, EveryCheckSaysWhatWasSeenAndWhatToDo) {
  const Json all = checks();
  std::set<std::string> names;
  for (const Json& check : all) {
    const std::string status = check["status"].get<std::string>();
    EXPECT_TRUE(names.insert(check["name"].get<std::string>()).second) << check;
    EXPECT_TRUE(status == "ok" || status == "warning") << check;
    EXPECT_NE(check["message"], "") << check;
    EXPECT_EQ(check["remedy"] == "", status == "ok") << check;
  }
  for (const char* name :
       {"state", "store", "room", "models", "memlock", "huge_pages", "io_uring", "cpu", "gpu"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST_F(DaemonDoctorTest, StoreThatCanBeWrittenIsFine) {
  const Json check = named(checks(), "store");
  EXPECT_EQ(check["status"], "ok") << check;
  EXPECT_NE(check["message"].get<std::string>().find(dir_.path()), std::string::npos);
}

TEST_F(DaemonDoctorTest, StoreThatMayNotBeWrittenNamesTheCommand) {
  ASSERT_EQ(::chmod(dir_.path().c_str(), 0555), 0);
  const bool is_root = ::geteuid() == 0;
  if (is_root) {
    ASSERT_EQ(::seteuid(65534), 0);  // root may write all
  }
  const Json check = named(checks(), "store");
  if (is_root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  ::chmod(dir_.path().c_str(), 0755);
  EXPECT_EQ(check["status"], "warning") << check;
  EXPECT_NE(check["remedy"].get<std::string>().find("chown -R"), std::string::npos) << check;
  EXPECT_NE(check["remedy"].get<std::string>().find(dir_.path()), std::string::npos) << check;
}

TEST_F(DaemonDoctorTest, StoreWithoutItsFoldersIsAWarning) {
  fs::remove(dir_ / "incoming");
  const Json check = named(checks(), "store");
  EXPECT_EQ(check["status"], "warning");
  EXPECT_NE(check["message"].get<std::string>().find(dir_ / "incoming"), std::string::npos);
}

TEST_F(DaemonDoctorTest, CountsModelsAndKnowsTheDefault) {
  EXPECT_EQ(named(checks(), "models")["message"], "2 models, no default model");
  EXPECT_EQ(named(checks("short"), "models")["message"], "2 models, default short");
  const Json gone = named(checks("gone"), "models");
  EXPECT_EQ(gone["status"], "warning");
  EXPECT_EQ(gone["remedy"], "airllm default --daemon MODEL");
}

TEST_F(DaemonDoctorTest, DaemonThatStopsIsAProblem) {
  EXPECT_EQ(named(checks("", true), "state")["status"], "problem");
}

}  // namespace
}  // namespace airllm::daemon
