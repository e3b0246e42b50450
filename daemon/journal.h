// The system's journal: events with their fields (base/event.h), where the journal is our log.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/event.h"

namespace airllm::daemon {

// Sends events to the journal from now on; one that it does not take is written as a line.
void send_events_to_journal();

// An event's fields as sd_journal_sendv(3) takes them, "NAME=value" each. Escaped, so that a name
// from outside cannot forge a line.
std::vector<std::string> journal_entry(const log::EventKind& kind, std::string_view line,
                                       std::span<const log::Field> fields);

}  // namespace airllm::daemon
