// Runs templates in bulk for tools/jinja_fuzz: JSON lines {"source", "variables"} in, {"text"} or
// {"error"} out.
#include <iostream>
#include <string>

#include "base/json.h"
#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace airllm::jinja {
namespace {

Result<std::string> render(const std::string& line) {
  AIRLLM_TRY(const Json request, parse_json(line, "the request"));
  AIRLLM_TRY(const Block block, parse(request.at("source").get<std::string>(), "template"));
  Map variables;
  for (const auto& [name, value] : request.at("variables").items()) {
    variables.emplace_back(name, Value::from_json(value));
  }
  AIRLLM_TRY(const text::MarkedText text, Evaluator("template", variables).run(block));
  return text.text();
}

}  // namespace
}  // namespace airllm::jinja

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto result = airllm::jinja::render(line);
    airllm::Json reply;
    if (result.has_value()) {
      reply["text"] = *result;
    } else {
      reply["error"] = result.error().message;
    }
    std::cout << airllm::dump_json(reply) << '\n' << std::flush;
  }
}
