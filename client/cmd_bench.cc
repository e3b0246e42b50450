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
  std::optional<uint64_t> rounds;
};

// One of the benches, by its name behind `airllm bench`.
struct Bench {
  std::string_view name;
  std::string_view summary;
  bool is_of_model;  // takes MODEL and --sweeps, else --rounds
  Result<int> (*run)(const BenchCall& call);
};

Result<int> print_bench(const BenchCall& call, const std::string& answer,
                        std::string (*text)(const Json& result)) {
  AIRLLM_TRY(const Json result, parse_result(answer));
  AIRLLM_TRY_VOID(call.globals.json ? print_result_json(answer) : print_out(text(result)));
  return 0;
}

Result<int> run_stream(const BenchCall& call) {
  protocol::BenchStreamParams params;
  if (call.chosen) params.model = call.chosen->name;
  params.sweeps = call.sweeps.value_or(0);
  params.opens_files = true;
  AIRLLM_TRY(Connection connection, Connection::open(call.globals));
  const Result<std::string> answer = simple_request(connection, params);
  if (!answer) return Unexpected(with_source_of_name(answer.error(), call.chosen));
  return print_bench(call, *answer, bench_stream_text);
}

Result<int> run_kernels(const BenchCall& call) {
  protocol::BenchKernelsParams params;
  params.rounds = call.rounds.value_or(0);
  AIRLLM_TRY(Connection connection, Connection::open(call.globals));
  AIRLLM_TRY(const std::string answer, simple_request(connection, params));
  return print_bench(call, answer, bench_kernels_text);
}

constexpr std::array kBenches{
    Bench{"stream", "Sweeps of a model, beside what disk and memory give at most", true,
          run_stream},
    Bench{"kernels", "The processor's operations, beside memory's rate and its peak", false,
          run_kernels},
};

std::string bench_list() {
  std::vector<std::vector<std::string>> rows;
  for (const Bench& bench : kBenches) {
    rows.push_back({"  " + std::string(bench.name), std::string(bench.summary)});
  }
  return "Benches:\n" + format_table(rows);
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

Status check_options(const Bench& bench, const BenchCall& call,
                     const std::optional<std::string>& model) {
  const char* stranger = nullptr;
  if (bench.is_of_model) {
    stranger = call.rounds ? "--rounds" : nullptr;
  } else {
    stranger = model ? "a model" : call.sweeps ? "--sweeps" : nullptr;
  }
  if (stranger == nullptr) return {};
  return Unexpected(ErrorCode::kUsage,
                    "bench " + std::string(bench.name) + " does not take " + stranger,
                    "see 'airllm bench --help'");
}

}  // namespace

Result<int> run_bench(const Invocation& invocation) {
  BenchCall call;
  call.globals = invocation.globals;
  std::vector<std::string> words;
  std::optional<std::string> model;
  ArgParser parser("airllm bench", "Measure what a model's speed is made of.");
  parser.usage("airllm bench stream [OPTIONS] [MODEL]\n       airllm bench kernels [OPTIONS]");
  parser.words("MODEL", words, 0, 2,
               "Of stream, behind its name; without it the one that 'ask' would take");
  parser.text("-m,--model", model, "MODEL", "The same");
  parser.integer("--sweeps", call.sweeps, uint64_t{1}, "Of stream: how many count; 7 without it");
  parser.integer("--rounds", call.rounds, uint64_t{1}, "Of kernels: how many; 7 without it");
  parser.add_globals(call.globals);
  parser.epilogue(bench_list());
  AIRLLM_TRY(const bool go, parser.parse(invocation));
  if (invocation.describe != nullptr) {
    for (const Bench& bench : kBenches) invocation.describe->first_words.emplace_back(bench.name);
  }
  if (!go) return 0;
  AIRLLM_TRY(const Bench* const bench, find_bench(words));
  if (words.size() > 1) model = words[1];
  AIRLLM_TRY_VOID(check_options(*bench, call, model));
  if (bench->is_of_model) {
    AIRLLM_TRY(call.chosen, choose_model(model));
  }
  return bench->run(call);
}

}  // namespace airllm::client
