// Answers regex_fuzz.py: reads JSON Lines {"pattern","text"}, prints {"own","ranges"} with the
// matches as byte ranges, or {"error"}. With `time DIR FILE` it loads DIR/tokenizer.json and prints
// the seconds that each encoding of FILE takes, one for each line of input.
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "base/json.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/tokenizer.h"

namespace {

using airllm::Json;

// Patterns come many times in a row.
Json answer(const Json& request) {
  static std::string known;
  static auto pattern = airllm::tokenizer::Pattern::regex(known, "pattern");
  if (request.at("pattern") != known) {
    known = request.at("pattern").get_ref<const std::string&>();
    pattern = airllm::tokenizer::Pattern::regex(known, "pattern");
  }
  if (!pattern) return {{"error", pattern.error().message}};
  const auto matches = pattern->find_all(request.at("text").get_ref<const std::string&>());
  if (!matches) return {{"error", matches.error().message}};
  Json ranges = Json::array();
  for (const auto& match : *matches) ranges.push_back({match.begin, match.end});
  return {{"own", pattern->is_own()}, {"ranges", ranges}};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int time_encodings(const std::string& folder, const std::string& text_file) {
  const auto tokenizer = airllm::tokenizer::Tokenizer::from_json(
      read_file(folder + "/tokenizer.json"), "tokenizer.json");
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << '\n';
    return 1;
  }
  const airllm::tokenizer::TextPart part{read_file(text_file), false};
  for (std::string line; std::getline(std::cin, line);) {
    const auto begin = std::chrono::steady_clock::now();
    const auto ids = (*tokenizer)->encode({&part, 1}, {.add_special = false});
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (!ids) {
      std::cerr << ids.error().message << '\n';
      return 1;
    }
    uint64_t hash = 0xCBF29CE484222325U;
    for (const int32_t id : *ids) hash = (hash ^ static_cast<uint32_t>(id)) * 0x100000001B3U;
    std::cout << Json{{"seconds", taken.count()}, {"count", ids->size()}, {"hash", hash}}.dump()
              << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "time") return time_encodings(argv[2], argv[3]);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(Json::parse(line)).dump() << '\n';
  }
  return 0;
}
