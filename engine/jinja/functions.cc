// The global functions of templates, and how functions read their arguments.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/jinja/objects.h"

namespace airllm::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;
constexpr size_t kMaxTimeFormat = 4096;

Result<Value> range(Evaluator& ev, const Call& call) {
  if (!call.keywords.empty() || call.positional.empty() || call.positional.size() > 3) {
    return ev.error("range() takes one to three numbers");
  }
  std::array<int64_t, 3> numbers = {0, 0, 1};
  for (size_t i = 0; i < call.positional.size(); ++i) {
    AIRLLM_TRY(numbers[i], integer_argument(ev, call.positional[i]));
  }
  if (call.positional.size() == 1) std::swap(numbers[0], numbers[1]);
  const auto [begin, end, step] = numbers;
  if (step == 0) return ev.error("range() cannot step by zero");
  const auto distance =
      step > 0 ? static_cast<__int128>(end) - begin : static_cast<__int128>(begin) - end;
  const auto stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  const __int128 count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (count > kMaxRange) return ev.error("range() is limited to 100000 elements");
  AIRLLM_TRY_VOID(ev.step(static_cast<size_t>(count)));
  List values;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i)
    values.push_back(Value::integer(begin + i * step));
  Value result = make_items(Items::Kind::kRange, "range", std::move(values));
  std::string printed = "range(" + std::to_string(begin) + ", " + std::to_string(end);
  if (step != 1) printed += ", " + std::to_string(step);
  result.as<Items>()->printed = printed + ")";
  return result;
}

Result<Dict> make_dict(Evaluator& ev, const Call& call) {
  if (call.positional.size() > 1) return ev.error("dict() takes one positional argument");
  Dict entries;
  if (!call.positional.empty()) {
    const Value& source = call.positional[0];
    if (source.as_dict() != nullptr) {
      AIRLLM_TRY_VOID(ev.step(source.as_dict()->size()));
      entries = *source.as_dict();
    } else {
      if (source.is_undefined()) return ev.error(source.undefined_message());
      AIRLLM_TRY(const List pairs, ev.iterate(source));
      for (const Value& pair : pairs) {
        AIRLLM_TRY(const List parts, ev.iterate(pair));
        if (!parts.empty()) AIRLLM_TRY_VOID(charge_for_key(ev, parts[0]));
        if (parts.size() != 2 || !is_hashable(parts[0])) return ev.error("dict() needs pairs");
        entries.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : call.keywords) entries.set(Value::string(name), value);
  return entries;
}

Result<Value> make_namespace(Evaluator& ev, const Call& call) {
  AIRLLM_TRY(const Dict entries, make_dict(ev, call));
  auto space = std::make_shared<Namespace>();
  for (const Dict::Entry& entry : entries.entries()) {
    if (entry.key.as_string() == nullptr) return ev.error("a namespace's names are strings");
    const std::string& name = entry.key.as_string()->text();
    if (name.starts_with('_')) return ev.error("a namespace cannot have the name '" + name + "'");
  }
  space->attributes = entries;
  return ev.keep(std::move(space));
}

Result<Value> raise_exception(Evaluator& ev, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "raise_exception", std::move(call), {"message"}, 1));
  AIRLLM_TRY(const text::MarkedText text, ev.to_text(*given[0]));
  return Unexpected(ErrorCode::kUsage, text.text());
}

Result<Value> strftime_now(Evaluator& ev, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "strftime_now", std::move(call), {"format"}, 1));
  if (given[0]->as_string() == nullptr) return ev.error("strftime_now() needs a string");
  const text::MarkedText& format = *given[0]->as_string();
  if (format.size() > kMaxTimeFormat)
    return ev.error("strftime_now() has a format that is too long");
  AIRLLM_TRY_VOID(ev.charge(1024 * format.size()));
  // Who wrote a part of the format may have written any part of what it gives.
  return ev.make_text({format_time(ev.now(), format.text()), format.origin_of(0, format.size())});
}

Result<Value> make_cycler(Evaluator& ev, Call call) {
  if (call.positional.empty() || !call.keywords.empty()) return ev.error("cycler() needs values");
  auto cycler = std::make_shared<Cycler>();
  cycler->values = std::move(call.positional);
  return ev.keep(std::move(cycler));
}

Result<Value> make_joiner(Evaluator& ev, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "joiner", std::move(call), {"sep"}, 0));
  auto joiner = std::make_shared<Joiner>();
  joiner->separator = given[0].value_or(Value::literal(", "));
  return Value::object(std::move(joiner));
}

}  // namespace

Value keywords_dict(std::vector<Keyword> keywords) {
  Dict entries;
  for (Keyword& keyword : keywords) {
    entries.set(Value::string(std::move(keyword.name)), std::move(keyword.value));
  }
  return Value::dict(std::move(entries));
}

Map global_functions() {
  const auto function = [](const char* name, Function::Body body) {
    return std::pair<std::string, Value>(name, make_function(name, std::move(body)));
  };
  return {function("range", range),
          function("dict",
                   [](Evaluator& ev, const Call& call) -> Result<Value> {
                     AIRLLM_TRY(Dict entries, make_dict(ev, call));
                     return Value::dict(std::move(entries));
                   }),
          function("namespace", make_namespace),
          function("raise_exception", raise_exception),
          function("strftime_now", strftime_now),
          function("cycler", make_cycler),
          function("joiner", make_joiner),
          function("lipsum", [](Evaluator& ev, const Call&) -> Result<Value> {
            return ev.error("lipsum() is random, which is not supported");
          })};
}

Result<std::vector<std::optional<Value>>> bind(Evaluator& ev, std::string_view function, Call call,
                                               std::initializer_list<std::string_view> parameters,
                                               size_t required) {
  const std::string name(function);
  std::vector<std::optional<Value>> values(parameters.size());
  if (call.positional.size() > parameters.size()) return ev.error(name + " has too many arguments");
  for (size_t i = 0; i < call.positional.size(); ++i) values[i] = std::move(call.positional[i]);
  for (auto& [keyword, value] : call.keywords) {
    const auto* place = std::find(parameters.begin(), parameters.end(), keyword.text());
    if (place == parameters.end()) {
      return ev.error(name + " has no argument '" + keyword.text() + "'");
    }
    auto& slot = values[static_cast<size_t>(place - parameters.begin())];
    if (slot.has_value())
      return ev.error(name + " has the argument '" + keyword.text() + "' twice");
    slot = std::move(value);
  }
  for (size_t i = 0; i < required; ++i) {
    if (!values[i].has_value()) return ev.error(name + " lacks an argument");
  }
  return values;
}

Result<int64_t> integer_argument(Evaluator& ev, const Value& value) {
  if (value.as_integer() != nullptr) return *value.as_integer();
  if (value.as_boolean() != nullptr) return int64_t{*value.as_boolean()};
  return ev.error("a whole number is needed, not " + value.type_name());
}

}  // namespace airllm::jinja
