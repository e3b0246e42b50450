#include "engine/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "base/json.h"

namespace airllm::jinja {
namespace {

int deepest(const List& values) {
  int depth = 0;
  for (const Value& value : values) depth = std::max(depth, value.nesting());
  return depth;
}

size_t heaviness(const List& values) {
  size_t weight = 1;
  for (const Value& value : values) weight = std::min(weight + value.weight(), 2 * kMaxWeight);
  return weight;
}

// The whole number that a numeric value is, if it is one that int64_t holds.
bool whole(const Value& value, int64_t& out) {
  if (const bool* flag = value.as_boolean()) {
    out = *flag ? 1 : 0;
    return true;
  }
  if (const int64_t* integer = value.as_integer()) {
    out = *integer;
    return true;
  }
  const double real = *value.as_real();
  if (!(real >= -9223372036854775808.0 && real < 9223372036854775808.0)) return false;
  out = static_cast<int64_t>(real);
  return std::trunc(real) == real;
}

bool equal_numbers(const Value& a, const Value& b) {
  int64_t x = 0;
  int64_t y = 0;
  const bool whole_a = whole(a, x);
  const bool whole_b = whole(b, y);
  if (whole_a != whole_b) return false;
  return whole_a ? x == y : a.number() == b.number();
}

// A polynomial modulo a prime at a point that each process draws, so that no template can be
// written whose keys all fall together. What is printed does not depend on it.
class KeyedHash {
 public:
  void add(uint64_t part) {
    static const uint64_t point = draw();
    const unsigned __int128 product = static_cast<unsigned __int128>(state_) * point + part + 1;
    const uint64_t folded =
        static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> kBits);
    state_ = (folded & kPrime) + (folded >> kBits);
  }
  void add(std::string_view text) {
    for (; text.size() >= kPiece; text.remove_prefix(kPiece)) add(piece(text.substr(0, kPiece)));
    add(piece(text));
    add(text.size());
  }
  size_t value() const { return state_; }

 private:
  static constexpr int kBits = 61;
  static constexpr uint64_t kPrime = (uint64_t{1} << kBits) - 1;
  static constexpr size_t kPiece = 7;  // bytes, which are less than the prime

  static uint64_t draw() {
    std::random_device device;
    const uint64_t bits = (uint64_t{device()} << 32) | device();
    return (bits >> 4) | (uint64_t{1} << 32);
  }
  static uint64_t piece(std::string_view bytes) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

  uint64_t state_ = 0;
};

}  // namespace

Value Value::list(List values) {
  const int nesting = 1 + deepest(values);
  const size_t weight = heaviness(values);
  return Value(
      Data(std::make_shared<const Sequence>(Sequence{std::move(values), false, nesting, weight})));
}

Value Value::tuple(List values) {
  const int nesting = 1 + deepest(values);
  const size_t weight = heaviness(values);
  return Value(
      Data(std::make_shared<const Sequence>(Sequence{std::move(values), true, nesting, weight})));
}

Value Value::map(Map entries) {
  Dict dict;
  for (auto& entry : entries) dict.set(literal(entry.first), std::move(entry.second));
  return Value::dict(std::move(dict));
}

Value Value::dict(Dict entries) {
  return Value(Data(std::make_shared<const Dict>(std::move(entries))));
}

Value Value::from_json(const Json& json) {
  if (json.is_null()) return none();
  if (json.is_boolean()) return boolean(json.get<bool>());
  if (json.is_number_unsigned() &&
      json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return real(json.get<double>());
  }
  if (json.is_number_integer()) return integer(json.get<int64_t>());
  if (json.is_number()) return real(json.get<double>());
  if (json.is_string()) return literal(json.get_ref<const std::string&>());
  if (json.is_array()) {
    List values;
    for (const Json& element : json) values.push_back(from_json(element));
    return list(std::move(values));
  }
  Map entries;
  for (const auto& [key, element] : json.items()) entries.emplace_back(key, from_json(element));
  return map(std::move(entries));
}

bool Value::is_tuple() const {
  const auto* sequence = std::get_if<std::shared_ptr<const Sequence>>(&data_);
  return sequence != nullptr && (*sequence)->is_tuple;
}

bool Value::is_markup() const {
  const auto* text = std::get_if<String>(&data_);
  return text != nullptr && text->markup;
}

const text::MarkedText* Value::as_string() const {
  const auto* text = std::get_if<String>(&data_);
  return text == nullptr ? nullptr : text->text.get();
}

const List* Value::as_list() const {
  const auto* sequence = std::get_if<std::shared_ptr<const Sequence>>(&data_);
  return sequence == nullptr ? nullptr : &(*sequence)->values;
}

const Dict* Value::as_dict() const {
  const auto* dict = std::get_if<std::shared_ptr<const Dict>>(&data_);
  return dict == nullptr ? nullptr : dict->get();
}

std::string Value::undefined_message() const {
  const auto* undefined = std::get_if<Undefined>(&data_);
  if (undefined == nullptr) return {};
  return undefined->is_hint ? undefined->name : "'" + undefined->name + "' is undefined";
}

double Value::number() const {
  if (const bool* flag = as_boolean()) return *flag ? 1 : 0;
  if (const int64_t* integer = as_integer()) return static_cast<double>(*integer);
  if (const double* value = as_real()) return *value;
  return 0;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const text::MarkedText* text = as_string()) return !text->empty();
  if (const List* values = as_list()) return !values->empty();
  if (const Dict* entries = as_dict()) return entries->size() != 0;
  if (const auto* object = as_object()) return (*object)->truth();
  return number() != 0;
}

std::string Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (as_boolean() != nullptr) return "bool";
  if (as_integer() != nullptr) return "int";
  if (as_real() != nullptr) return "float";
  if (as_string() != nullptr) return is_markup() ? "Markup" : "str";
  if (as_list() != nullptr) return is_tuple() ? "tuple" : "list";
  if (as_dict() != nullptr) return "dict";
  return (*as_object())->type_name();
}

int Value::nesting() const {
  if (const auto* sequence = std::get_if<std::shared_ptr<const Sequence>>(&data_)) {
    return (*sequence)->nesting;
  }
  if (const Dict* entries = as_dict()) return entries->nesting();
  if (const auto* object = as_object()) return (*object)->nesting();
  return 0;
}

size_t Value::weight() const {
  if (const auto* sequence = std::get_if<std::shared_ptr<const Sequence>>(&data_)) {
    return (*sequence)->weight;
  }
  if (const Dict* entries = as_dict()) return entries->weight();
  if (const auto* object = as_object()) return (*object)->weight();
  return 1;
}

bool Value::is(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_none()) return true;
  if (const List* values = as_list()) {
    return values == other.as_list() ||
           (is_tuple() && other.is_tuple() && values->empty() && other.as_list()->empty());
  }
  if (const Dict* entries = as_dict()) return entries == other.as_dict();
  if (const auto* object = as_object()) return *object == *other.as_object();
  if (const double* real = as_real()) return *real == *other.as_real();
  return !is_undefined() && *this == other;
}

bool Value::equal(const Value& a, const Value& b, int depth) {
  if (depth > 2 * kMaxNesting) return false;
  if (a.as_string() != nullptr && b.as_string() != nullptr) {
    return a.as_string()->text() == b.as_string()->text();
  }
  if (a.is_arithmetic() && b.is_arithmetic()) return equal_numbers(a, b);
  const List* x = a.as_list();
  const List* y = b.as_list();
  if (x != nullptr && y != nullptr) {
    return x == y ||
           (a.is_tuple() == b.is_tuple() && std::equal(x->begin(), x->end(), y->begin(), y->end(),
                                                       [&](const Value& v, const Value& w) {
                                                         return v.is(w) || equal(v, w, depth + 1);
                                                       }));
  }
  if (a.as_dict() != nullptr && b.as_dict() != nullptr) {
    const Dict& left = *a.as_dict();
    const Dict& right = *b.as_dict();
    if (&left == &right) return true;
    if (left.size() != right.size()) return false;
    return std::all_of(left.entries().begin(), left.entries().end(), [&](const Dict::Entry& entry) {
      const Value* other = right.find(entry.key);
      return other != nullptr && (entry.value.is(*other) || equal(entry.value, *other, depth + 1));
    });
  }
  if (a.as_object() != nullptr && b.as_object() != nullptr) return *a.as_object() == *b.as_object();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool is_hashable(const Value& value) {
  if (value.as_dict() != nullptr) return false;
  const List* values = value.as_list();
  if (values == nullptr) return true;
  return value.is_tuple() && std::all_of(values->begin(), values->end(), is_hashable);
}

size_t hash_of(const Value& value) {
  KeyedHash hash;
  if (const text::MarkedText* text = value.as_string()) {
    hash.add(std::string_view(text->text()));
  } else if (value.is_arithmetic()) {
    int64_t integer = 0;
    const bool is_whole = whole(value, integer);
    const auto bits = is_whole ? static_cast<uint64_t>(integer)
                               : static_cast<uint64_t>(std::hash<double>()(value.number()));
    hash.add(bits >> 32);
    hash.add(bits & 0xFFFFFFFFU);
  } else if (const List* values = value.as_list()) {
    for (const Value& element : *values) hash.add(hash_of(element));
  } else if (const auto* object = value.as_object()) {
    hash.add(std::hash<const Object*>()(object->get()) >> 4);
  }
  return hash.value();
}

void Dict::set(Value key, Value value) {
  nesting_ = std::max({nesting_, 1 + key.nesting(), 1 + value.nesting()});
  weight_ = std::min(weight_ + key.weight() + value.weight(), 2 * kMaxWeight);
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);  // entries_ is ours to change
    return;
  }
  places_.emplace(hash_of(key), entries_.size());
  entries_.push_back({std::move(key), std::move(value)});
}

const Value* Dict::find(const Value& key) const {
  const auto [first, last] = places_.equal_range(hash_of(key));
  for (auto place = first; place != last; ++place) {
    const Entry& entry = entries_[place->second];
    if (entry.key.is(key) || entry.key == key) return &entry.value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const { return find(Value::literal(key)); }

}  // namespace airllm::jinja
