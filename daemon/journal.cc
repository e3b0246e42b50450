#include "daemon/journal.h"

#include <sys/uio.h>
#include <syslog.h>

// Otherwise it adds the place in our source as fields.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "base/utf8.h"

namespace airllm::daemon {
namespace {

int priority(log::Level level) {
  switch (level) {
    case log::Level::kDebug: return LOG_DEBUG;
    case log::Level::kInfo: return LOG_INFO;
    case log::Level::kWarning: return LOG_WARNING;
    case log::Level::kError: return LOG_ERR;
  }
  return LOG_INFO;
}

bool send(const log::EventKind& kind, std::string_view line, std::span<const log::Field> fields) {
  std::vector<std::string> entry = journal_entry(kind, line, fields);
  std::vector<iovec> pieces;
  for (std::string& text : entry) pieces.push_back({text.data(), text.size()});
  return ::sd_journal_sendv(pieces.data(), static_cast<int>(pieces.size())) >= 0;
}

}  // namespace

void send_events_to_journal() { log::set_event_sink(send); }

std::vector<std::string> journal_entry(const log::EventKind& kind, std::string_view line,
                                       std::span<const log::Field> fields) {
  std::vector<std::string> entry{
      "MESSAGE=" + escape_for_display(line, true), "MESSAGE_ID=" + std::string(kind.id),
      "PRIORITY=" + std::to_string(priority(kind.level)), "SYSLOG_IDENTIFIER=airllmd"};
  for (const log::Field& field : fields) {
    entry.push_back(std::string(field.name) + "=" + escape_for_display(field.value, true));
  }
  return entry;
}

}  // namespace airllm::daemon
