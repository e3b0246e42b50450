// Events: what an administrator may look for in the log, each with an id that never changes and
// with fields. In the journal they are MESSAGE_ID and fields of the entry (airllmd(8) lists them);
// elsewhere an event is one line like any other.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"

namespace airllm::log {

struct EventKind {
  std::string_view id;  // 128 bits as 32 hexadecimal digits
  Level level;
};

namespace event {
inline constexpr EventKind kStarted{"3a747d9506e6435eab65d8aa1584ae4b", Level::kInfo};
inline constexpr EventKind kStopping{"73b00f5738a341ef987267df94c84b20", Level::kInfo};
inline constexpr EventKind kJobAccepted{"785c42a6d6d34b52ad3e6d5a9977a8d2", Level::kInfo};
inline constexpr EventKind kJobFinished{"69277c56634840b981c89b2c98dd08d0", Level::kInfo};
inline constexpr EventKind kJobFailed{"a520c0a409f244d4b4807a74708e60a9", Level::kWarning};
inline constexpr EventKind kClientRefused{"6bfce554a1524f8090fdf0f2bceaf990", Level::kWarning};
inline constexpr EventKind kModelLoaded{"2bb8ad9f9c774bc2b4fc57c9fb18ebdc", Level::kInfo};
inline constexpr EventKind kModelReleased{"ef0f8315b36a4f3c9e6d98621a34f8a1", Level::kInfo};
inline constexpr EventKind kModelRefused{"76636b6946d8469aa33d1e7b3bfa4005", Level::kError};
inline constexpr EventKind kSettingsReloaded{"d421da920b9244e1b455c9adfe539265", Level::kInfo};
inline constexpr EventKind kSettingsWrong{"fd39199fd849484aa394fea9ccedd7b2", Level::kError};
inline constexpr EventKind kReadHangs{"2adebba24be3417cb72f84b8bac8d789", Level::kError};
}  // namespace event

// What an event may have besides its line.
struct Field {
  std::string_view name;
  std::string value;
};
inline constexpr std::string_view kJobField = "AIRLLM_JOB";
inline constexpr std::string_view kUserField = "AIRLLM_UID";
inline constexpr std::string_view kModelField = "AIRLLM_MODEL";
inline constexpr std::string_view kErrorField = "AIRLLM_ERROR";  // error_name()
inline constexpr std::string_view kKindField = "AIRLLM_KIND";    // of the job

// Where events go instead of write(); false when it could not take one. Call once at start.
using EventSink =
    std::function<bool(const EventKind&, std::string_view line, std::span<const Field> fields)>;
void set_event_sink(EventSink sink);

void write_event(const EventKind& kind, std::span<const Field> fields, std::string_view line);

template <typename... Args>
void event_happened(const EventKind& kind, std::initializer_list<Field> fields,
                    fmt::format_string<Args...> format, Args&&... args) {
  write_event(kind, {fields.begin(), fields.size()},
              fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace airllm::log
