// str() and repr() of values.
#include "engine/jinja/objects.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

class Printer {
 public:
  explicit Printer(Evaluator& evaluator) : evaluator_(evaluator) {}

  Result<text::MarkedText> print(const Value& value) {
    AIRLLM_TRY_VOID(add(value, 0));
    return std::move(out_);
  }

 private:
  Status put(std::string_view text) {
    out_.append(text, kTemplateOrigin);
    return evaluator_.charge(text.size());
  }

  Status add(const Value& value, int depth) {
    if (depth > kMaxNesting) return evaluator_.error("values are nested too deeply");
    AIRLLM_TRY_VOID(evaluator_.step());
    if (value.is_undefined()) return put("Undefined");
    if (value.is_none()) return put("None");
    if (const bool* flag = value.as_boolean()) return put(*flag ? "True" : "False");
    if (const int64_t* whole = value.as_integer()) return put(std::to_string(*whole));
    if (const double* real = value.as_real()) return put(print_real(*real));
    if (const text::MarkedText* text = value.as_string()) {
      AIRLLM_TRY_VOID(evaluator_.charge(text->size()));
      if (value.is_markup()) AIRLLM_TRY_VOID(put("Markup("));
      out_.append(quoted(*text));
      return value.is_markup() ? put(")") : Status();
    }
    if (const List* values = value.as_list()) {
      AIRLLM_TRY_VOID(put(value.is_tuple() ? "(" : "["));
      AIRLLM_TRY_VOID(add_all(*values, depth));
      if (value.is_tuple()) return put(values->size() == 1 ? ",)" : ")");
      return put("]");
    }
    if (const Dict* entries = value.as_dict()) return add_entries(entries->entries(), depth);
    return add_object(value, depth);
  }

  Status add_all(const List& values, int depth) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i != 0) AIRLLM_TRY_VOID(put(", "));
      AIRLLM_TRY_VOID(add(values[i], depth + 1));
    }
    return {};
  }

  Status add_entries(const std::vector<Dict::Entry>& entries, int depth) {
    AIRLLM_TRY_VOID(put("{"));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) AIRLLM_TRY_VOID(put(", "));
      AIRLLM_TRY_VOID(add(entries[i].key, depth + 1));
      AIRLLM_TRY_VOID(put(": "));
      AIRLLM_TRY_VOID(add(entries[i].value, depth + 1));
    }
    return put("}");
  }

  Status add_object(const Value& value, int depth) {
    if (const auto* space = value.as<Namespace>()) {
      AIRLLM_TRY_VOID(put("<Namespace "));
      AIRLLM_TRY_VOID(add_entries(space->attributes.entries(), depth + 1));
      return put(">");
    }
    if (const auto* macro = value.as<Macro>()) {
      return put(macro->code->name.empty() ? "<Macro anonymous>"
                                           : "<Macro '" + macro->code->name + "'>");
    }
    if (auto* loop = value.as<Loop>()) {
      AIRLLM_TRY_VOID(loop->has(kMaxSteps));
      return put("<LoopContext " + std::to_string(loop->next) + "/" +
                 std::to_string(loop->values.size()) + ">");
    }
    const auto* items = value.as<Items>();
    if (items != nullptr && items->kind == Items::Kind::kRange) return put(items->printed);
    if (items != nullptr && items->kind == Items::Kind::kView) {
      AIRLLM_TRY_VOID(put(items->name + "(["));
      AIRLLM_TRY_VOID(add_all(items->values, depth));
      return put("])");
    }
    return evaluator_.error("a value of type " + value.type_name() + " cannot be printed");
  }

  Evaluator& evaluator_;
  text::MarkedText out_;
};

}  // namespace

Result<text::MarkedText> Evaluator::repr(const Value& value) { return Printer(*this).print(value); }

Result<text::MarkedText> Evaluator::to_text(const Value& value) {
  if (const text::MarkedText* text = value.as_string()) return *text;
  if (value.is_undefined()) return text::MarkedText();
  return repr(value);
}

}  // namespace airllm::jinja
