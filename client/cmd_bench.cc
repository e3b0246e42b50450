#include <array>

#include "base/json.h"
#include "base/utf8.h"
#include "client/bench_summary.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

struct BenchCall {
  Globals globals;
  std::optional<ChosenModel> chosen;  // nothing: the daemon chooses
  std::optional<uint64_t> sweeps;
};

// One of the benches, by its name behind `airllm bench`.
struct Bench {
  std::string_view name;
  std::string_view summary;
  Result<int> (*run)(const BenchCall& call);
};

Result<int> run_stream(const BenchCall& call) {
  protocol::BenchStreamParams params;
  if (call.chosen) params.model = call.chosen->name;
  params.sweeps = call.sweeps.value_or(0);
  params.opens_files = true;
  AIRLLM_TRY(Connection connection, Connection::open(call.globals));
  const Result<std::string> answer = simple_request(connection, params);
  if (!answer) return Unexpected(with_source_of_name(answer.error(), call.chosen));
  AIRLLM_TRY(const Json result, parse_result(*answer));
  AIRLLM_TRY_VOID(call.globals.json ? print_result_json(*answer)
                                    : print_out(bench_stream_text(result)));
  return 0;
}

constexpr std::array kBenches{
    Bench{"stream", "Sweeps of a model, beside what disk and memory give at most", run_stream},
};

std::string bench_list() {
  std::string text = "Benches:\n";
  for (const Bench& bench : kBenches) {
    text += "  " + std::string(bench.name) + "  " + std::string(bench.summary) + "\n";
  }
  return text;
}

Result<const Bench*> find_bench(const std::vector<std::string>& words) {
  constexpr const char* kExample = "airllm bench stream MODEL";
  if (words.empty()) return Unexpected(ErrorCode::kUsage, "no bench is named", kExample);
  for (const Bench& bench : kBenches) {
    if (bench.name == words.front()) return &bench;
  }
  return Unexpected(ErrorCode::kUsage,
                    "there is no bench '" + escape_for_display(words.front(), true) + "'",
                    std::string(kExample) + "; see 'airllm bench --help'");
}

}  // namespace

Result<int> run_bench(const Invocation& invocation) {
  BenchCall call;
  call.globals = invocation.globals;
  std::vector<std::string> words;
  std::optional<std::string> model;
  ArgParser parser("airllm bench", "Measure what a model's speed is made of.");
  parser.usage("airllm bench stream [OPTIONS] [MODEL]");
  parser.words("MODEL", words, 0, 2,
               "Behind the bench's name; without it the one that 'ask' would take");
  parser.text("-m,--model", model, "MODEL", "The same");
  parser.integer("--sweeps", call.sweeps, uint64_t{1}, "How many sweeps count; 7 without it");
  parser.add_globals(call.globals);
  parser.epilogue(bench_list());
  AIRLLM_TRY(const bool go, parser.parse(invocation));
  if (invocation.describe != nullptr) {
    for (const Bench& bench : kBenches) invocation.describe->first_words.emplace_back(bench.name);
  }
  if (!go) return 0;
  AIRLLM_TRY(const Bench* const bench, find_bench(words));
  if (words.size() > 1) model = words[1];
  AIRLLM_TRY(call.chosen, choose_model(model));
  return bench->run(call);
}

}  // namespace airllm::client
