#include "base/event.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace airllm::log {
namespace {

struct Taken {
  std::string id;
  std::string line;
  std::vector<Field> fields;
};

TEST(Event, GoesToTheSinkWithItsFieldsWhenItsLevelIsLogged) {
  init(Level::kInfo, false);
  std::vector<Taken> taken;
  set_event_sink([&](const EventKind& kind, std::string_view line, std::span<const Field> fields) {
    taken.push_back({std::string(kind.id), std::string(line), {fields.begin(), fields.end()}});
    return true;
  });
  event_happened(event::kJobAccepted, {{kJobField, "7"}}, "job {}", 7);
  set_level(Level::kError);
  event_happened(event::kJobAccepted, {}, "not this one");
  event_happened(event::kReadHangs, {}, "this one");
  set_event_sink({});
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].id, event::kJobAccepted.id);
  EXPECT_EQ(taken[0].line, "job 7");
  ASSERT_EQ(taken[0].fields.size(), 1U);
  EXPECT_EQ(taken[0].fields[0].value, "7");
  EXPECT_EQ(taken[1].line, "this one");
}

TEST(Event, IdsAreDifferentAndOf128Bits) {
  std::set<std::string_view> ids;
  for (const EventKind& kind :
       {event::kStarted, event::kStopping, event::kJobAccepted, event::kJobFinished,
        event::kJobFailed, event::kClientRefused, event::kModelLoaded, event::kModelReleased,
        event::kModelRefused, event::kSettingsReloaded, event::kSettingsWrong, event::kReadHangs}) {
    EXPECT_EQ(kind.id.size(), 32U);
    EXPECT_EQ(kind.id.find_first_not_of("0123456789abcdef"), std::string_view::npos);
    EXPECT_TRUE(ids.insert(kind.id).second) << kind.id;
  }
}

}  // namespace
}  // namespace airllm::log
