#include "engine/jinja/pretty_print.h"

#include <algorithm>

#include "engine/jinja/json.h"
#include "engine/jinja/stack_guard.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Text = text::MarkedText;

constexpr int64_t kWidth = 80;
// Looking for the stack's end takes as long as many steps.
constexpr size_t kStepsToStart = 100;

int64_t width_of(const Text& text) { return static_cast<int64_t>(character_count(text)); }

class PrettyPrinter {
 public:
  explicit PrettyPrinter(Evaluator& ev) : ev_(ev) {}

  Result<Text> print(const Value& value) {
    AIRLLM_TRY_VOID(ev_.step(kStepsToStart));
    AIRLLM_TRY_VOID(format(value, 0, 0, 0));
    return std::move(out_);
  }

 private:
  // `allowance`: the columns that are needed behind the value. `level`: how deep it lies.
  Status format(const Value& value, int64_t indent, int64_t allowance, int level) {
    if (guard_.nearly_full()) return ev_.error("values are nested too deeply");
    AIRLLM_TRY(const Text whole, repr(value));
    if (width_of(whole) <= kWidth - indent - allowance) return put(whole);
    if (const Dict* entries = value.as_dict()) {
      AIRLLM_TRY_VOID(put("{"));
      AIRLLM_TRY_VOID(format_entries(*entries, indent + 1, allowance + 1, level + 1));
      return put("}");
    }
    if (const List* values = value.as_list()) {
      const std::string_view end = !value.is_tuple() ? "]" : values->size() == 1 ? ",)" : ")";
      AIRLLM_TRY_VOID(put(value.is_tuple() ? "(" : "["));
      AIRLLM_TRY_VOID(format_items(*values, indent + 1,
                                   allowance + static_cast<int64_t>(end.size()), level + 1));
      return put(end);
    }
    if (value.as_string() != nullptr && !value.is_markup() && !value.as_string()->empty()) {
      return format_string(*value.as_string(), indent, allowance, level == 0);
    }
    return put(whole);
  }

  Status format_items(const List& values, int64_t indent, int64_t allowance, int level) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i != 0) AIRLLM_TRY_VOID(next_line(",", indent));
      AIRLLM_TRY_VOID(format(values[i], indent, i + 1 == values.size() ? allowance : 1, level));
    }
    return {};
  }

  Status format_entries(const Dict& dict, int64_t indent, int64_t allowance, int level) {
    AIRLLM_TRY(const std::vector<size_t> order, sorted(dict));
    for (size_t i = 0; i < order.size(); ++i) {
      const Dict::Entry& entry = dict.entries()[order[i]];
      AIRLLM_TRY(const Text key, repr(entry.key));
      if (i != 0) AIRLLM_TRY_VOID(next_line(",", indent));
      AIRLLM_TRY_VOID(put(key));
      AIRLLM_TRY_VOID(put(": "));
      AIRLLM_TRY_VOID(format(entry.value, indent + width_of(key) + 2,
                             i + 1 == order.size() ? allowance : 1, level));
    }
    return {};
  }

  // A long string is cut into several that stand one below the other.
  Status format_string(const Text& text, int64_t indent, int64_t allowance, bool outermost) {
    if (outermost) {
      ++indent;
      ++allowance;
    }
    std::vector<Text> rows;
    const std::vector<Text> lines = split_lines(text, true);
    Text printed;  // of the last line, which is all there is when there is one row
    for (size_t i = 0; i < lines.size(); ++i) {
      const bool last = i + 1 == lines.size();
      AIRLLM_TRY(printed, quote(lines[i]));
      if (width_of(printed) <= kWidth - indent - (last ? allowance : 0)) {
        rows.push_back(printed);
      } else {
        AIRLLM_TRY_VOID(cut_line(lines[i], kWidth - indent, last ? allowance : 0, rows));
      }
    }
    if (rows.size() == 1) return put(printed);
    if (outermost) AIRLLM_TRY_VOID(put("("));
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i != 0) AIRLLM_TRY_VOID(next_line("", indent));
      AIRLLM_TRY_VOID(put(rows[i]));
    }
    return outermost ? put(")") : Status();
  }

  // Words with the white space behind them, as many in a row as fit.
  Status cut_line(const Text& line, int64_t width, int64_t allowance, std::vector<Text>& rows) {
    Text current;
    for (size_t at = 0; at < line.size();) {
      const size_t begin = at;
      at = skip(line.text(), at, false);
      at = skip(line.text(), at, true);
      Text candidate = current;
      candidate.append_range(line, begin, at);
      if (at == line.size()) width -= allowance;
      AIRLLM_TRY(const Text printed, quote(candidate));
      if (width_of(printed) <= width) {
        current = std::move(candidate);
        continue;
      }
      if (!current.empty()) {
        AIRLLM_TRY(Text row, quote(current));
        rows.push_back(std::move(row));
      }
      current = line.substr(begin, at);
    }
    if (current.empty()) return {};
    AIRLLM_TRY(Text row, quote(current));
    rows.push_back(std::move(row));
    return {};
  }

  static size_t skip(std::string_view text, size_t at, bool spaces) {
    while (at < text.size()) {
      size_t next = at;
      if (is_space(text::next_code_point(text, next)) != spaces) break;
      at = next;
    }
    return at;
  }

  // As repr(), but mappings are sorted.
  Result<Text> repr(const Value& value) {
    AIRLLM_TRY_VOID(ev_.step());
    if (guard_.nearly_full()) return ev_.error("values are nested too deeply");
    Text text;
    if (const Dict* dict = value.as_dict()) {
      AIRLLM_TRY(const std::vector<size_t> order, sorted(*dict));
      text.append("{", kTemplateOrigin);
      for (size_t i = 0; i < order.size(); ++i) {
        AIRLLM_TRY(const Text key, repr(dict->entries()[order[i]].key));
        AIRLLM_TRY(const Text content, repr(dict->entries()[order[i]].value));
        AIRLLM_TRY_VOID(ev_.charge(key.size() + content.size() + 4));
        if (i != 0) text.append(", ", kTemplateOrigin);
        text.append(key);
        text.append(": ", kTemplateOrigin);
        text.append(content);
      }
      text.append("}", kTemplateOrigin);
      return text;
    }
    const List* values = value.as_list();
    if (values == nullptr) return ev_.repr(value);
    text.append(value.is_tuple() ? "(" : "[", kTemplateOrigin);
    for (size_t i = 0; i < values->size(); ++i) {
      AIRLLM_TRY(const Text part, repr((*values)[i]));
      AIRLLM_TRY_VOID(ev_.charge(part.size() + 2));
      if (i != 0) text.append(", ", kTemplateOrigin);
      text.append(part);
    }
    text.append(!value.is_tuple() ? "]" : values->size() == 1 ? ",)" : ")", kTemplateOrigin);
    return text;
  }

  Result<std::vector<size_t>> sorted(const Dict& dict) {
    List keys;
    for (const Dict::Entry& entry : dict.entries()) keys.push_back(entry.key);
    AIRLLM_TRY_VOID(ev_.step(keys.size()));
    return sorted_order(ev_, keys, false, Unordered::kByType);
  }

  Result<Text> quote(const Text& text) {
    AIRLLM_TRY_VOID(ev_.charge(text.size() + 2));
    return quoted(text);
  }
  Status put(std::string_view text) {
    out_.append(text, kTemplateOrigin);
    return ev_.charge(text.size());
  }
  Status put(const Text& text) {
    out_.append(text);
    return ev_.charge(text.size());
  }
  Status next_line(const char* end, int64_t indent) {
    AIRLLM_TRY_VOID(ev_.charge(static_cast<size_t>(indent)));
    return put(end + ("\n" + std::string(static_cast<size_t>(indent), ' ')));
  }

  Evaluator& ev_;
  StackGuard guard_;
  Text out_;
};

}  // namespace

Result<Text> pretty(Evaluator& ev, const Value& value) { return PrettyPrinter(ev).print(value); }

}  // namespace airllm::jinja
