// The tojson filter: Python's json.dumps.
#include <algorithm>

#include "engine/jinja/json.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

class Dumper {
 public:
  Dumper(Evaluator& ev, const JsonStyle& style) : ev_(ev), style_(style) {}

  Result<text::MarkedText> dump(const Value& value) {
    AIRLLM_TRY_VOID(add(value, 0));
    return std::move(out_);
  }

 private:
  Status put(std::string_view text) {
    out_.append(text, kTemplateOrigin);
    return ev_.charge(text.size());
  }
  Status line(size_t depth) {
    if (!style_.indent.has_value()) return {};
    AIRLLM_TRY_VOID(put("\n"));
    for (size_t i = 0; i < depth; ++i) {
      AIRLLM_TRY_VOID(ev_.charge(style_.indent->size()));
      out_.append(*style_.indent);
    }
    return {};
  }
  Status text(const text::MarkedText& value) {
    AIRLLM_TRY_VOID(ev_.charge(value.size()));
    out_.append(json_string(value, style_.ascii));
    return {};
  }
  static std::string real(double value) {
    if (value != value) return "NaN";
    const std::string text = print_real(value);
    return text == "inf" ? "Infinity" : text == "-inf" ? "-Infinity" : text;
  }

  Status add(const Value& value, size_t depth) {
    AIRLLM_TRY_VOID(ev_.step());
    if (depth > kMaxNesting) return ev_.error("values are nested too deeply");
    if (value.is_none()) return put("null");
    if (const bool* flag = value.as_boolean()) return put(*flag ? "true" : "false");
    if (const int64_t* whole = value.as_integer()) return put(std::to_string(*whole));
    if (const double* number = value.as_real()) return put(real(*number));
    if (const text::MarkedText* string = value.as_string()) return text(*string);
    if (const List* values = value.as_list()) return add_list(*values, depth);
    if (const Dict* entries = value.as_dict()) return add_dict(*entries, depth);
    return ev_.error("a value of type " + value.type_name() + " is not JSON serializable");
  }

  Status add_list(const List& values, size_t depth) {
    if (values.empty()) return put("[]");
    AIRLLM_TRY_VOID(put("["));
    for (size_t i = 0; i < values.size(); ++i) {
      if (i != 0) out_.append(style_.item_separator);
      AIRLLM_TRY_VOID(line(depth + 1));
      AIRLLM_TRY_VOID(add(values[i], depth + 1));
    }
    AIRLLM_TRY_VOID(line(depth));
    return put("]");
  }

  Status key(const Value& key) {
    if (const text::MarkedText* string = key.as_string()) return text(*string);
    if (key.is_none()) return put("\"null\"");
    if (const bool* flag = key.as_boolean()) return put(*flag ? "\"true\"" : "\"false\"");
    if (const int64_t* whole = key.as_integer()) return put("\"" + std::to_string(*whole) + "\"");
    if (const double* number = key.as_real()) return put("\"" + real(*number) + "\"");
    return ev_.error("a key of type " + key.type_name() + " is not JSON serializable");
  }

  Status add_dict(const Dict& dict, size_t depth) {
    if (dict.size() == 0) return put("{}");
    std::vector<Dict::Entry> entries = dict.entries();
    if (style_.sort_keys) {
      List keys;
      for (const Dict::Entry& entry : entries) keys.push_back(entry.key);
      AIRLLM_TRY(const std::vector<size_t> order, sorted_order(ev_, keys, false));
      std::vector<Dict::Entry> sorted;
      for (const size_t i : order) sorted.push_back(entries[i]);
      entries = std::move(sorted);
    }
    AIRLLM_TRY_VOID(put("{"));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) out_.append(style_.item_separator);
      AIRLLM_TRY_VOID(line(depth + 1));
      AIRLLM_TRY_VOID(key(entries[i].key));
      out_.append(style_.key_separator);
      AIRLLM_TRY_VOID(add(entries[i].value, depth + 1));
    }
    AIRLLM_TRY_VOID(line(depth));
    return put("}");
  }

  Evaluator& ev_;
  const JsonStyle& style_;
  text::MarkedText out_;
};

}  // namespace

Result<text::MarkedText> dump(Evaluator& ev, const Value& value, const JsonStyle& style) {
  return Dumper(ev, style).dump(value);
}

Result<std::vector<size_t>> sorted_order(Evaluator& ev, const List& keys, bool reverse,
                                         Unordered unordered) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::optional<Error> problem;
  const auto before = [&](size_t a, size_t b) {
    if (problem.has_value()) return false;
    Result<bool> less = reverse ? ev.less(keys[b], keys[a]) : ev.less(keys[a], keys[b]);
    if (less.has_value()) return *less;
    // A limit that was reached stays so.
    const bool limited = !ev.step() || !ev.charge(0);
    if (unordered == Unordered::kByType && !limited) {
      return keys[a].type_name() < keys[b].type_name();
    }
    problem = less.error();
    return false;
  };
  // A merge sort by hand: comparisons that contradict each other (nan, errors) must do no harm.
  std::vector<size_t> merged(order.size());
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size());
      const size_t end = std::min(begin + 2 * width, order.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t i = begin; i < end; ++i) {
        const bool take_right =
            left == middle || (right < end && before(order[right], order[left]));
        merged[i] = take_right ? order[right++] : order[left++];
      }
    }
    order.swap(merged);
  }
  if (problem.has_value()) return Unexpected(*problem);
  return order;
}

}  // namespace airllm::jinja
