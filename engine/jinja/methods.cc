// The methods of Python's str, list, tuple and dict that the immutable sandbox allows.
#include <algorithm>
#include <map>

#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Text = text::MarkedText;
using Method = Result<Value> (*)(Evaluator&, const Value&, Call);

Value number(size_t n) { return Value::integer(static_cast<int64_t>(n)); }

Result<Value> like(Evaluator& ev, const Value& self, Text text) {
  AIRLLM_TRY_VOID(ev.charge(text.size()));
  return self.is_markup() ? Value::markup(std::move(text)) : Value::string(std::move(text));
}

Result<Value> listed(Evaluator& ev, const Value& self, std::vector<Text> parts) {
  AIRLLM_TRY_VOID(ev.step(parts.size()));
  List values;
  for (Text& part : parts) {
    AIRLLM_TRY(Value value, like(ev, self, std::move(part)));
    values.push_back(std::move(value));
  }
  return Value::list(std::move(values));
}

Result<Text> text_argument(Evaluator& ev, const Value& value) {
  if (value.as_string() == nullptr) return ev.error("a string is needed, not " + value.type_name());
  return *value.as_string();
}

template <Case to>
Result<Value> change(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "this method", std::move(call), {}, 0));
  return like(ev, self, change_case(*self.as_string(), to));
}

template <bool left, bool right>
Result<Value> strip(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "strip", std::move(call), {"chars"}, 0));
  if (!given[0].has_value() || given[0]->is_none())
    return like(ev, self, trim(*self.as_string(), left, right));
  AIRLLM_TRY(const Text chars, text_argument(ev, *given[0]));
  AIRLLM_TRY_VOID(ev.charge((chars.size() / 64) * self.as_string()->size()));
  return like(ev, self, trim(*self.as_string(), left, right, chars.text()));
}

template <bool right>
Result<Value> split_method(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "split", std::move(call), {"sep", "maxsplit"}, 0));
  int64_t max = -1;
  if (given[1].has_value()) {
    AIRLLM_TRY(max, integer_argument(ev, *given[1]));
  }
  const Text& text = *self.as_string();
  if (!given[0].has_value() || given[0]->is_none()) {
    return listed(ev, self, right ? split_spaces_right(text, max) : split_spaces(text, max));
  }
  AIRLLM_TRY(const Text separator, text_argument(ev, *given[0]));
  if (separator.empty()) return ev.error("the separator is empty");
  if (right && separator.size() > 1)
    AIRLLM_TRY_VOID(ev.charge(text.size() / 64 * separator.size()));
  return listed(
      ev, self,
      right ? split_right(text, separator.text(), max) : split(text, separator.text(), max));
}

Result<Value> splitlines(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "splitlines", std::move(call), {"keepends"}, 0));
  return listed(ev, self,
                split_lines(*self.as_string(), given[0].has_value() && given[0]->truth()));
}

template <bool right>
Result<Value> partition(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "partition", std::move(call), {"sep"}, 1));
  AIRLLM_TRY(const Text separator, text_argument(ev, *given[0]));
  if (separator.empty()) return ev.error("the separator is empty");
  const Text& text = *self.as_string();
  if (right) AIRLLM_TRY_VOID(ev.charge(text.size() / 64 * separator.size()));
  const auto part = [&self](Text piece) {
    return self.is_markup() ? Value::markup(std::move(piece)) : Value::string(std::move(piece));
  };
  const size_t found =
      right ? text.text().rfind(separator.text()) : find_bytes(text.text(), separator.text(), 0);
  if (found == std::string::npos) {
    const Value nothing = part(Text());
    if (right) return Value::tuple({nothing, nothing, self});
    return Value::tuple({self, nothing, nothing});
  }
  const size_t end = found + separator.size();
  AIRLLM_TRY_VOID(ev.charge(text.size()));
  return Value::tuple({part(text.substr(0, found)), part(text.substr(found, end)),
                       part(text.substr(end, text.size()))});
}

Result<Value> replace_method(Evaluator& ev, const Value& self, Call call) {
  if (!call.keywords.empty()) return ev.error("replace() takes no keyword arguments");
  AIRLLM_TRY(const auto given, bind(ev, "replace", std::move(call), {"old", "new", "count"}, 2));
  AIRLLM_TRY(const Text old, text_argument(ev, *given[0]));
  AIRLLM_TRY(const Text with, text_argument(ev, *given[1]));
  int64_t count = -1;
  if (given[2].has_value()) {
    AIRLLM_TRY(count, integer_argument(ev, *given[2]));
  }
  const Text& text = *self.as_string();
  const size_t most = old.empty() ? text.size() + 1 : text.size() / old.size();
  AIRLLM_TRY_VOID(ev.charge(text.size()));
  if (with.size() > kMaxOutputBytes / std::max<size_t>(most, 1)) {
    size_t places = 0;
    for (size_t at = 0; (at = find_bytes(text.text(), old.text(), at)) != std::string::npos;) {
      if (++places > kMaxStringBytes / with.size())
        return ev.error("the template makes too much text");
      at += std::max<size_t>(old.size(), 1);
    }
    AIRLLM_TRY_VOID(ev.charge(places * with.size()));
  }
  return like(ev, self,
              replace(text, old.text(), self.is_markup() ? escape_html(with) : with, count));
}

// The bytes of the characters [begin, end) that two optional arguments name, as slices do.
struct Window {
  size_t begin, end;
  size_t begin_index;
  bool valid;
};
Result<Window> window(Evaluator& ev, const Text& text, const std::optional<Value>& begin,
                      const std::optional<Value>& end) {
  const auto size = static_cast<int64_t>(character_count(text));
  int64_t first = 0;
  int64_t last = size;
  if (begin.has_value() && !begin->is_none()) {
    AIRLLM_TRY(first, integer_argument(ev, *begin));
  }
  if (end.has_value() && !end->is_none()) {
    AIRLLM_TRY(last, integer_argument(ev, *end));
  }
  if (first < 0) first = std::max<int64_t>(first < -size ? 0 : first + size, 0);
  if (last < 0) last = std::max<int64_t>(last < -size ? 0 : last + size, 0);
  last = std::min(last, size);
  AIRLLM_TRY_VOID(ev.charge(text.size() / 16));
  if (first > size || first > last) return Window{0, 0, 0, false};
  const size_t begin_byte = characters(text, 0, static_cast<size_t>(first)).size();
  const size_t end_byte = characters(text, 0, static_cast<size_t>(last)).size();
  return Window{begin_byte, end_byte, static_cast<size_t>(first), true};
}

enum class Find { kFirst, kLast, kCount };
template <Find how, bool must>
Result<Value> find_method_of(Evaluator& ev, const Value& self, Call call) {
  if (!call.keywords.empty()) return ev.error("this method takes no keyword arguments");
  AIRLLM_TRY(const auto given, bind(ev, "find", std::move(call), {"sub", "start", "end"}, 1));
  AIRLLM_TRY(const Text needle, text_argument(ev, *given[0]));
  AIRLLM_TRY(const Window part, window(ev, *self.as_string(), given[1], given[2]));
  const std::string_view text =
      std::string_view(self.as_string()->text()).substr(part.begin, part.end - part.begin);
  size_t found = std::string::npos;
  size_t count = 0;
  if (part.valid && how == Find::kFirst) found = find_bytes(text, needle.text(), 0);
  if (part.valid && how == Find::kLast) {
    AIRLLM_TRY_VOID(ev.charge(text.size() / 64 * needle.size()));
    found = text.rfind(needle.text());
  }
  if (how == Find::kCount) {
    if (needle.empty()) return number(part.valid ? character_count(Text(text, 0)) + 1 : 0);
    for (size_t at = 0;
         part.valid && (at = find_bytes(text, needle.text(), at)) != std::string::npos; ++count) {
      at += needle.size();
    }
    return number(count);
  }
  if (found == std::string::npos) {
    if (must) return ev.error("substring not found");
    return Value::integer(-1);
  }
  return number(part.begin_index + character_count(Text(text.substr(0, found), 0)));
}

template <bool at_end>
Result<Value> starts_with(Evaluator& ev, const Value& self, Call call) {
  if (!call.keywords.empty()) return ev.error("this method takes no keyword arguments");
  AIRLLM_TRY(const auto given,
             bind(ev, "startswith", std::move(call), {"prefix", "start", "end"}, 1));
  AIRLLM_TRY(const Window part, window(ev, *self.as_string(), given[1], given[2]));
  const std::string_view text =
      std::string_view(self.as_string()->text()).substr(part.begin, part.end - part.begin);
  List choices = {*given[0]};
  if (given[0]->is_tuple()) choices = *given[0]->as_list();
  bool result = false;
  for (const Value& choice : choices) {
    AIRLLM_TRY(const Text fix, text_argument(ev, choice));
    result = result ||
             (part.valid && (at_end ? text.ends_with(fix.text()) : text.starts_with(fix.text())));
    if (result) break;
  }
  return Value::boolean(result);
}

template <bool suffix>
Result<Value> remove_fix(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "removeprefix", std::move(call), {"fix"}, 1));
  AIRLLM_TRY(const Text fix, text_argument(ev, *given[0]));
  const Text& text = *self.as_string();
  if (suffix && text.text().ends_with(fix.text()))
    return like(ev, self, text.substr(0, text.size() - fix.size()));
  if (!suffix && text.text().starts_with(fix.text()))
    return like(ev, self, text.substr(fix.size(), text.size()));
  return self;
}

Result<Value> join(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "join", std::move(call), {"iterable"}, 1));
  AIRLLM_TRY(const List values, ev.iterate(*given[0]));
  Text result;
  for (size_t i = 0; i < values.size(); ++i) {
    AIRLLM_TRY(const Text part, text_argument(ev, values[i]));
    AIRLLM_TRY_VOID(ev.charge(part.size() + self.as_string()->size()));
    if (i != 0) result.append(*self.as_string());
    result.append(self.is_markup() && !values[i].is_markup() ? escape_html(part) : part);
  }
  return like(ev, self, std::move(result));
}

// How a method pads: in front with `left` of `missing` fills.
template <typename Left>
Result<Value> pad(Evaluator& ev, const Value& self, Call call, Left left) {
  AIRLLM_TRY(const auto given, bind(ev, "this method", std::move(call), {"width", "fillchar"}, 1));
  AIRLLM_TRY(const int64_t width, integer_argument(ev, *given[0]));
  Text fill(" ", kTemplateOrigin);
  if (given[1].has_value()) {
    AIRLLM_TRY(fill, text_argument(ev, *given[1]));
  }
  if (character_count(fill) != 1) return ev.error("the fill is not one character");
  const auto size = static_cast<int64_t>(character_count(*self.as_string()));
  const int64_t missing = std::max<int64_t>(width - size, 0);
  AIRLLM_TRY_VOID(
      ev.charge(static_cast<size_t>(std::min<int64_t>(missing, kMaxStringBytes)) * fill.size()));
  Text result;
  const int64_t in_front = left(missing, width);
  for (int64_t i = 0; i < in_front; ++i) result.append(fill);
  result.append(*self.as_string());
  for (int64_t i = in_front; i < missing; ++i) result.append(fill);
  return like(ev, self, std::move(result));
}
Result<Value> center(Evaluator& ev, const Value& self, Call call) {
  return pad(ev, self, std::move(call),
             [](int64_t missing, int64_t width) { return missing / 2 + (missing & width & 1); });
}
Result<Value> ljust(Evaluator& ev, const Value& self, Call call) {
  return pad(ev, self, std::move(call), [](int64_t, int64_t) { return int64_t{0}; });
}
Result<Value> rjust(Evaluator& ev, const Value& self, Call call) {
  return pad(ev, self, std::move(call), [](int64_t missing, int64_t) { return missing; });
}

Result<Value> zfill(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "zfill", std::move(call), {"width"}, 1));
  AIRLLM_TRY(const int64_t width, integer_argument(ev, *given[0]));
  const Text& text = *self.as_string();
  const int64_t missing = std::max<int64_t>(width - static_cast<int64_t>(character_count(text)), 0);
  AIRLLM_TRY_VOID(ev.charge(static_cast<size_t>(missing)));
  const bool is_signed = text.text().starts_with('-') || text.text().starts_with('+');
  Text result = text.substr(0, is_signed ? 1 : 0);
  result.append(std::string(static_cast<size_t>(missing), '0'), kTemplateOrigin);
  result.append_range(text, is_signed ? 1 : 0, text.size());
  return like(ev, self, std::move(result));
}

Result<Value> expandtabs(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "expandtabs", std::move(call), {"tabsize"}, 0));
  int64_t size = 8;
  if (given[0].has_value()) {
    AIRLLM_TRY(size, integer_argument(ev, *given[0]));
  }
  const Text& text = *self.as_string();
  Text result;
  int64_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = text::next_code_point(text.text(), at);
    if (c != '\t') {
      result.append_range(text, begin, at);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
      continue;
    }
    if (size <= 0) continue;
    const int64_t spaces = size - column % size;
    AIRLLM_TRY_VOID(ev.charge(static_cast<size_t>(spaces)));
    result.append(std::string(static_cast<size_t>(spaces), ' '), text.origin_at(begin));
    column += spaces;
  }
  return like(ev, self, std::move(result));
}

template <bool (*holds)(char32_t)>
Result<Value> all_are(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "this method", std::move(call), {}, 0));
  const std::string& text = self.as_string()->text();
  for (size_t at = 0; at < text.size();) {
    if (!holds(text::next_code_point(text, at))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}
bool is_ascii(char32_t c) { return c < 0x80; }

template <bool upper>
Result<Value> is_case(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "this method", std::move(call), {}, 0));
  const std::string& text = self.as_string()->text();
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = text::next_code_point(text, at);
    if (is_title(c) || (upper ? is_lower(c) : is_upper(c))) return Value::boolean(false);
    cased = cased || (upper ? is_upper(c) : is_lower(c));
  }
  return Value::boolean(cased);
}

Result<Value> is_title_case(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "istitle", std::move(call), {}, 0));
  const std::string& text = self.as_string()->text();
  bool cased = false;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = text::next_code_point(text, at);
    const bool big = is_upper(c) || is_title(c);
    if ((big && in_word) || (!big && is_lower(c) && !in_word)) return Value::boolean(false);
    in_word = big || is_lower(c);
    cased = cased || in_word;
  }
  return Value::boolean(cased);
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): as all methods of the table.
Result<Value> format_method(Evaluator& ev, const Value& self, Call call) {
  if (self.is_markup()) return ev.error("formatting escaped text is not supported");
  return format_braces(ev, *self.as_string(), call);
}

Result<Value> list_index(Evaluator& ev, const Value& self, Call call) {
  if (call.positional.empty() || call.positional.size() > 3)
    return ev.error("index() takes one to three arguments");
  const List& values = *self.as_list();
  std::vector<int64_t> bounds = {0, static_cast<int64_t>(values.size())};
  for (size_t i = 1; i < call.positional.size(); ++i) {
    AIRLLM_TRY(bounds[i - 1], integer_argument(ev, call.positional[i]));
    if (bounds[i - 1] < 0)
      bounds[i - 1] = std::max<int64_t>(bounds[i - 1] + static_cast<int64_t>(values.size()), 0);
  }
  const int64_t end = std::min(bounds[1], static_cast<int64_t>(values.size()));
  for (int64_t i = bounds[0]; i < end; ++i) {
    const Value& value = values[static_cast<size_t>(i)];
    AIRLLM_TRY(const bool same, ev.equal(value, call.positional[0]));
    if (same || value.is(call.positional[0])) return Value::integer(i);
  }
  return ev.error("the value is not in the list");
}

Result<Value> list_count(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "count", std::move(call), {"value"}, 1));
  size_t count = 0;
  for (const Value& value : *self.as_list()) {
    AIRLLM_TRY(const bool same, ev.equal(value, *given[0]));
    count += same || value.is(*given[0]) ? 1 : 0;
  }
  return number(count);
}

Result<Value> copy(Evaluator& ev, const Value& self, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "copy", std::move(call), {}, 0));
  if (self.as_dict() != nullptr) {
    AIRLLM_TRY_VOID(ev.step(self.as_dict()->size()));
    return Value::dict(*self.as_dict());
  }
  AIRLLM_TRY_VOID(ev.step(self.as_list()->size()));
  return Value::list(*self.as_list());
}

enum class View { kKeys, kValues, kItems };
template <View kind>
Result<Value> view(Evaluator& ev, const Value& self, Call call) {
  static constexpr std::string_view kNames[] = {"dict_keys", "dict_values", "dict_items"};
  AIRLLM_TRY(const auto given, bind(ev, "this method", std::move(call), {}, 0));
  AIRLLM_TRY_VOID(ev.step(self.as_dict()->size()));
  List values;
  for (const Dict::Entry& entry : self.as_dict()->entries()) {
    if (kind == View::kItems) {
      values.push_back(Value::tuple({entry.key, entry.value}));
    } else {
      values.push_back(kind == View::kKeys ? entry.key : entry.value);
    }
  }
  return make_items(Items::Kind::kView, std::string(kNames[static_cast<size_t>(kind)]),
                    std::move(values));
}

Result<Value> get(Evaluator& ev, const Value& self, Call call) {
  if (!call.keywords.empty()) return ev.error("get() takes no keyword arguments");
  AIRLLM_TRY(const auto given, bind(ev, "get", std::move(call), {"key", "default"}, 1));
  AIRLLM_TRY_VOID(charge_for_key(ev, *given[0]));
  if (!is_hashable(*given[0])) return ev.error("a " + given[0]->type_name() + " cannot be a key");
  const Value* value = self.as_dict()->find(*given[0]);
  return value != nullptr ? *value : given[1].value_or(Value::none());
}

using Table = std::map<std::string_view, Method>;

const Table& string_methods() {
  static const Table table = {
      {"upper", change<Case::kUpper>},
      {"lower", change<Case::kLower>},
      {"title", change<Case::kTitle>},
      {"capitalize", change<Case::kCapitalize>},
      {"swapcase", change<Case::kSwap>},
      {"casefold", change<Case::kFold>},
      {"strip", strip<true, true>},
      {"lstrip", strip<true, false>},
      {"rstrip", strip<false, true>},
      {"split", split_method<false>},
      {"rsplit", split_method<true>},
      {"splitlines", splitlines},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"replace", replace_method},
      {"find", find_method_of<Find::kFirst, false>},
      {"index", find_method_of<Find::kFirst, true>},
      {"rfind", find_method_of<Find::kLast, false>},
      {"rindex", find_method_of<Find::kLast, true>},
      {"count", find_method_of<Find::kCount, false>},
      {"startswith", starts_with<false>},
      {"endswith", starts_with<true>},
      {"removeprefix", remove_fix<false>},
      {"removesuffix", remove_fix<true>},
      {"join", join},
      {"center", center},
      {"ljust", ljust},
      {"rjust", rjust},
      {"zfill", zfill},
      {"expandtabs", expandtabs},
      {"isspace", all_are<is_space>},
      {"isalpha", all_are<is_alpha>},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isnumeric", all_are<is_numeric>},
      {"isalnum", all_are<is_alphanumeric>},
      {"islower", is_case<false>},
      {"isupper", is_case<true>},
      {"istitle", is_title_case},
      {"format", format_method},
      {"isascii",
       [](Evaluator& ev, const Value& self, Call call) -> Result<Value> {
         if (self.as_string()->empty()) return Value::boolean(true);
         return all_are<is_ascii>(ev, self, std::move(call));
       }},
      {"isprintable", [](Evaluator& ev, const Value& self, Call call) -> Result<Value> {
         if (self.as_string()->empty()) return Value::boolean(true);
         return all_are<is_printable>(ev, self, std::move(call));
       }}};
  return table;
}

const Table& list_methods() {
  static const Table table = {{"index", list_index}, {"count", list_count}, {"copy", copy}};
  return table;
}

const Table& dict_methods() {
  static const Table table = {{"keys", view<View::kKeys>},
                              {"values", view<View::kValues>},
                              {"items", view<View::kItems>},
                              {"get", get},
                              {"copy", copy}};
  return table;
}

// Methods that Python has but templates cannot use; the sandbox, too, makes an undefined of most.
bool is_refused(const Value& object, std::string_view name) {
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kDict[] = {"clear",      "pop",    "popitem",
                                               "setdefault", "update", "fromkeys"};
  static constexpr std::string_view kString[] = {"encode", "translate", "maketrans", "format_map",
                                                 "isidentifier"};
  const auto holds = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (object.as_string() != nullptr) return holds(kString);
  return object.as_dict() != nullptr ? holds(kDict) : !object.is_tuple() && holds(kList);
}

}  // namespace

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  const auto add = [&names](const char* type, const Table& table) {
    for (const auto& [name, method] : table) names.push_back(type + std::string(name));
  };
  add("str.", string_methods());
  add("list.", list_methods());
  add("dict.", dict_methods());
  return names;
}

std::optional<Value> find_method(const Value& object, std::string_view name) {
  const Table* table = object.as_string() != nullptr ? &string_methods()
                       : object.as_list() != nullptr ? &list_methods()
                       : object.as_dict() != nullptr ? &dict_methods()
                                                     : nullptr;
  if (table == nullptr) return std::nullopt;
  if (is_refused(object, name)) {
    return Value::undefined_because("access to attribute '" + std::string(name) + "' of '" +
                                    object.type_name() + "' object is unsafe.");
  }
  const auto method = table->find(name);
  if (method == table->end() || (object.is_tuple() && name == "copy")) return std::nullopt;
  const Method body = method->second;
  return make_function(
      std::string(name),
      [object, body](Evaluator& ev, Call call) -> Result<Value> {
        AIRLLM_TRY_VOID(charge_for_reading(ev, object));
        return body(ev, object, std::move(call));
      },
      object.nesting() + 1);
}

}  // namespace airllm::jinja
