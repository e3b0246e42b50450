#include <limits>

#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/session.h"

namespace airllm::client {

Result<int> run_cancel(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> words;
  ArgParser parser("airllm cancel", "Cancel jobs, by the numbers that 'airllm ps' shows.");
  parser.usage("airllm cancel [OPTIONS] JOB...");
  parser.words("JOB", words, 1, std::numeric_limits<size_t>::max(), "The job's number");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  std::vector<uint64_t> jobs;
  for (const std::string& word : words) {
    AIRLLM_TRY(const uint64_t job, with_remedy(parse_unsigned(word, "JOB"),
                                               "'airllm ps' shows the numbers of the jobs"));
    jobs.push_back(job);
  }
  // A daemon that restarts has other jobs by these numbers.
  if (!globals.connect_timeout_seconds) globals.connect_timeout_seconds = 0;
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  const Status cancelled = run_each(words, "cancelled", [&](const std::string& word) -> Status {
    AIRLLM_TRY(const uint64_t job, parse_unsigned(word, "JOB"));
    AIRLLM_TRY_VOID(simple_request(connection, protocol::JobParams{job}));
    return {};
  });
  AIRLLM_TRY_VOID(cancelled);
  if (globals.json) {
    AIRLLM_TRY_VOID(print_out(json_for_stdout(Json{{"cancelled", jobs}}) + "\n"));
  }
  return 0;
}

}  // namespace airllm::client
