// What the client prints: answers and results on stdout, all else on stderr.
//
// On a terminal, control characters of text that came from elsewhere are shown escaped; pipes and
// files get the exact bytes. Nothing here buffers: what was printed was written.
#pragma once

#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::client {

bool stdout_is_terminal();
bool stderr_is_terminal();
// Whether what is printed on stderr stands behind what was printed on stdout: a terminal, which
// shows what comes through a pipe as well, or the same file.
bool stderr_shows_stdout();

// Descriptors 0, 1 and 2 that are not open become /dev/null, so that no file or socket of ours can
// take their number and be written an answer. Call first.
void open_standard_descriptors();

// Writes all bytes to stdout. While it waits for a slow reader, a signal that cancels ends it with
// kCancelled, unless `ignore_signals`. A closed pipe ends the process by SIGPIPE; other failures
// are kIo.
Status print_out(std::string_view bytes, bool ignore_signals = false);
// To stderr, as it is; failures are ignored.
void print_err(std::string_view bytes);

// `text` as stdout (or stderr) may show it. A name is one line: newlines and tabs are escaped too.
std::string shown_on_stdout(std::string_view text);
std::string name_on_stdout(std::string_view name);
std::string shown_on_stderr(std::string_view text);

// "airllm: message" and the remedy on a second line, on stderr.
void print_error(const Error& error);

// JSON as text, without a newline. On a terminal only ASCII: what is not printable is escaped.
std::string json_for_stdout(const Json& value);
// {"code","message","remedy"}.
Json error_json(const Error& error);

// Ends the process by SIGPIPE when nobody can read stdout any more: `revents` is what poll() said
// about it.
void end_if_stdout_closed(short revents);

}  // namespace airllm::client
