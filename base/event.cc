#include "base/event.h"

namespace airllm::log {
namespace {

EventSink& event_sink() {
  static EventSink sink;
  return sink;
}

}  // namespace

void set_event_sink(EventSink sink) { event_sink() = std::move(sink); }

void write_event(const EventKind& kind, std::span<const Field> fields, std::string_view line) {
  if (!is_enabled(kind.level)) return;
  if (event_sink() && event_sink()(kind, line, fields)) return;
  write(kind.level, line);
}

}  // namespace airllm::log
