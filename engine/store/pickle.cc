#include "engine/store/pickle.h"

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "base/checked.h"
#include "base/little_endian.h"
#include "base/utf8.h"

namespace airllm::store {
namespace {

constexpr size_t kMaxObjects = 400'000;  // far above what one file of a checkpoint has
constexpr size_t kMaxDimensions = 16;

struct Object;

// What lies on the stack. Objects belong to the machine, so that a pickle may refer to one twice.
struct Value {
  enum class Kind : uint8_t {
    kMark,
    kNone,
    kBool,
    kInteger,
    kString,
    kTuple,
    kList,
    kDictionary,
    kGlobal,   // text: "module name"
    kStorage,  // text: its key; dtype; integer: its elements
    kTensor,   // tensor
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  Object* object = nullptr;

  bool is(Kind wanted) const { return kind == wanted; }
};

struct Object {
  std::string text;
  std::vector<Value> items;  // of a dictionary: keys and values in turns
  Dtype dtype = Dtype::kF32;
  PickledTensor tensor;
};

struct StorageType {
  std::string_view name;
  Dtype dtype;
};
constexpr StorageType kStorages[] = {
    {"torch FloatStorage", Dtype::kF32},     {"torch HalfStorage", Dtype::kF16},
    {"torch BFloat16Storage", Dtype::kBF16}, {"torch DoubleStorage", Dtype::kF64},
    {"torch LongStorage", Dtype::kI64},      {"torch IntStorage", Dtype::kI32},
    {"torch ShortStorage", Dtype::kI16},     {"torch CharStorage", Dtype::kI8},
    {"torch ByteStorage", Dtype::kU8},       {"torch BoolStorage", Dtype::kBool},
};
constexpr std::string_view kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils _rebuild_parameter";
constexpr std::string_view kOrderedDict = "collections OrderedDict";

const StorageType* find_storage(std::string_view name) {
  for (const StorageType& type : kStorages) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

bool is_known_global(std::string_view name) {
  return name == kRebuildTensor || name == kRebuildParameter || name == kOrderedDict ||
         find_storage(name) != nullptr;
}

class Machine {
 public:
  using Kind = Value::Kind;

  Machine(std::string_view pickle, const std::string& what) : rest_(pickle), what_(what) {}

  Result<std::vector<PickledTensor>> run() {
    while (!stopped_) AIRLLM_TRY_VOID(step());
    AIRLLM_TRY(const Value top, pop());
    if (!top.is(Kind::kDictionary)) return bad("it is no dictionary of tensors");
    std::vector<PickledTensor> tensors;
    const std::vector<Value>& items = top.object->items;
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (!items[i + 1].is(Kind::kTensor)) continue;  // what else there is says nothing of weights
      if (!items[i].is(Kind::kString)) return bad("a tensor's name is no string");
      tensors.push_back(items[i + 1].object->tensor);
      tensors.back().name = items[i].object->text;
    }
    return tensors;
  }

 private:
  Unexpected bad(const std::string& why) const {
    return Unexpected(ErrorCode::kData, what_ + ": " + why);
  }
  Unexpected damaged() const { return bad("the list of its tensors is damaged"); }

  // ---- input ----

  Result<std::string_view> take(uint64_t bytes) {
    if (bytes > rest_.size()) return bad("the list of its tensors is cut off");
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  Result<uint64_t> take_number(size_t bytes) {
    AIRLLM_TRY(const std::string_view taken, take(bytes));
    return from_little_endian(taken);
  }

  Result<std::string> take_line() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return damaged();
    std::string line(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return line;
  }

  // ---- the stack ----

  Result<Value> pop() {
    if (stack_.empty() || stack_.back().is(Kind::kMark)) return damaged();
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }

  // What lies above the last mark, which goes too.
  Result<std::vector<Value>> pop_to_mark() {
    size_t mark = stack_.size();
    while (mark > 0 && !stack_[mark - 1].is(Kind::kMark)) --mark;
    if (mark == 0) return damaged();
    std::vector<Value> values(stack_.begin() + static_cast<std::ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return values;
  }

  Result<Value> top() {
    if (stack_.empty() || stack_.back().is(Kind::kMark)) return damaged();
    return stack_.back();
  }

  Status push(Value value) {
    if (stack_.size() >= kMaxObjects) return bad("the list of its tensors is too long");
    stack_.push_back(value);
    return {};
  }
  Status push(Kind kind, int64_t integer = 0) { return push(Value{kind, integer, nullptr}); }

  Result<Object*> new_object() {
    if (objects_.size() >= kMaxObjects) return bad("the list of its tensors is too long");
    objects_.push_back(std::make_unique<Object>());
    return objects_.back().get();
  }
  Status push_object(Kind kind, std::vector<Value> items = {}) {
    AIRLLM_TRY(Object* const object, new_object());
    object->items = std::move(items);
    return push(Value{kind, 0, object});
  }
  Status push_text(Kind kind, std::string_view text) {
    AIRLLM_TRY(Object* const object, new_object());
    object->text = text;
    return push(Value{kind, 0, object});
  }

  // ---- one operation ----

  Status step() {
    AIRLLM_TRY(const uint64_t code, take_number(1));
    switch (code) {
      case 0x80: return skip(1);  // PROTO
      case 0x95: return skip(8);  // FRAME
      case '.': stopped_ = true; return {};
      case '(': return push(Kind::kMark);
      case 'N': return push(Kind::kNone);
      case 0x88: return push(Kind::kBool, 1);
      case 0x89: return push(Kind::kBool, 0);
      case 'K': return push_integer(1);
      case 'M': return push_integer(2);
      case 'J': return push_signed();
      case 0x8a: return push_long();
      case 'G': return push_real();
      case 'X': return push_string(4);
      case 0x8c: return push_string(1);
      case 'c': return push_global();
      case 0x93: return push_stacked_global();
      case '}': return push_object(Kind::kDictionary);
      case ']': return push_object(Kind::kList);
      case ')': return push_object(Kind::kTuple);
      case 't': return push_marked_tuple();
      case 0x85: return push_tuple(1);
      case 0x86: return push_tuple(2);
      case 0x87: return push_tuple(3);
      case 'q': return remember(1);
      case 'r': return remember(4);
      case 0x94: return remember_next();
      case 'h': return recall(1);
      case 'j': return recall(4);
      case 'a': return append_one();
      case 'e': return append_marked(Kind::kList);
      case 's': return set_item();
      case 'u': return append_marked(Kind::kDictionary);
      case 'Q': return push_storage();
      case 'R': return call();
      case 'b': return pop_state();
      default: break;
    }
    static constexpr char kDigits[] = "0123456789abcdef";
    return bad(std::string("the list of its tensors uses pickle's operation 0x") +
               kDigits[code >> 4] + kDigits[code & 15] + ", which no tensor needs");
  }

  Status skip(size_t bytes) {
    AIRLLM_TRY(const std::string_view skipped, take(bytes));
    (void)skipped;
    return {};
  }

  Status push_integer(size_t bytes) {
    AIRLLM_TRY(const uint64_t number, take_number(bytes));
    return push(Kind::kInteger, static_cast<int64_t>(number));
  }
  Status push_signed() {
    AIRLLM_TRY(const uint64_t number, take_number(4));
    return push(Kind::kInteger, static_cast<int32_t>(static_cast<uint32_t>(number)));
  }
  // Little-endian, two's complement, of a length that comes first.
  Status push_long() {
    AIRLLM_TRY(const uint64_t bytes, take_number(1));
    if (bytes > sizeof(int64_t)) return bad("a number in the list of its tensors is too large");
    AIRLLM_TRY(uint64_t number, take_number(bytes));
    if (bytes > 0 && bytes < sizeof(int64_t) && (number >> (8 * bytes - 1) & 1) != 0) {
      number |= ~uint64_t{0} << 8 * bytes;
    }
    return push(Kind::kInteger, static_cast<int64_t>(number));
  }
  // No tensor needs one; settings beside tensors may be there all the same.
  Status push_real() {
    AIRLLM_TRY_VOID(skip(8));
    return push(Kind::kNone);
  }
  Status push_string(size_t length_bytes) {
    AIRLLM_TRY(const uint64_t bytes, take_number(length_bytes));
    AIRLLM_TRY(const std::string_view text, take(bytes));
    if (find_invalid_utf8(text) != kValidUtf8) return damaged();
    return push_text(Kind::kString, text);
  }

  Status push_named(const std::string& name) {
    if (is_known_global(name)) return push_text(Kind::kGlobal, name);
    std::string shown = name.substr(0, 100);
    std::replace(shown.begin(), shown.end(), ' ', '.');
    return Unexpected(ErrorCode::kData,
                      what_ + ": it names " + escape_for_display(shown, true) +
                          ", which is no part of a tensor; such a file can run code",
                      "do not use this checkpoint unless you know where it comes from");
  }
  Status push_global() {
    AIRLLM_TRY(const std::string module, take_line());
    AIRLLM_TRY(const std::string name, take_line());
    return push_named(module + " " + name);
  }
  Status push_stacked_global() {
    AIRLLM_TRY(const Value name, pop());
    AIRLLM_TRY(const Value module, pop());
    if (!name.is(Kind::kString) || !module.is(Kind::kString)) return damaged();
    return push_named(module.object->text + " " + name.object->text);
  }

  Status push_marked_tuple() {
    AIRLLM_TRY(std::vector<Value> items, pop_to_mark());
    return push_object(Kind::kTuple, std::move(items));
  }
  Status push_tuple(size_t count) {
    std::vector<Value> items(count);
    for (size_t i = count; i > 0; --i) {
      AIRLLM_TRY(items[i - 1], pop());
    }
    return push_object(Kind::kTuple, std::move(items));
  }

  Status keep(uint64_t number) {
    AIRLLM_TRY(const Value value, top());
    if (memo_.size() >= kMaxObjects) return bad("the list of its tensors is too long");
    memo_[number] = value;
    return {};
  }
  Status remember(size_t bytes) {
    AIRLLM_TRY(const uint64_t number, take_number(bytes));
    return keep(number);
  }
  Status remember_next() { return keep(memo_.size()); }
  Status recall(size_t bytes) {
    AIRLLM_TRY(const uint64_t number, take_number(bytes));
    const auto at = memo_.find(number);
    if (at == memo_.end()) return damaged();
    return push(at->second);
  }

  Status append_one() {
    AIRLLM_TRY(const Value value, pop());
    AIRLLM_TRY(const Value list, top());
    if (!list.is(Kind::kList)) return damaged();
    return add_items(*list.object, {value});
  }
  Status set_item() {
    AIRLLM_TRY(const Value value, pop());
    AIRLLM_TRY(const Value key, pop());
    AIRLLM_TRY(const Value dictionary, top());
    if (!dictionary.is(Kind::kDictionary)) return damaged();
    return add_items(*dictionary.object, {key, value});
  }
  Status append_marked(Kind kind) {
    AIRLLM_TRY(const std::vector<Value> values, pop_to_mark());
    AIRLLM_TRY(const Value container, top());
    if (!container.is(kind)) return damaged();
    if (kind == Kind::kDictionary && values.size() % 2 != 0) return damaged();
    return add_items(*container.object, values);
  }
  Status add_items(Object& object, const std::vector<Value>& values) {
    items_ += values.size();
    if (items_ > kMaxObjects) return bad("the list of its tensors is too long");
    object.items.insert(object.items.end(), values.begin(), values.end());
    return {};
  }

  // ("storage", type, key, place, elements)
  Status push_storage() {
    AIRLLM_TRY(const Value id, pop());
    if (!id.is(Kind::kTuple) || id.object->items.size() != 5) return damaged();
    const std::vector<Value>& items = id.object->items;
    if (!items[0].is(Kind::kString) || items[0].object->text != "storage" ||
        !items[1].is(Kind::kGlobal) || !items[2].is(Kind::kString) ||
        !items[4].is(Kind::kInteger) || items[4].integer < 0) {
      return damaged();
    }
    const StorageType* const type = find_storage(items[1].object->text);
    if (type == nullptr) return damaged();
    AIRLLM_TRY(Object* const storage, new_object());
    storage->text = items[2].object->text;
    storage->dtype = type->dtype;
    return push(Value{Kind::kStorage, items[4].integer, storage});
  }

  Status call() {
    AIRLLM_TRY(const Value arguments, pop());
    AIRLLM_TRY(const Value function, pop());
    if (!arguments.is(Kind::kTuple) || !function.is(Kind::kGlobal)) return damaged();
    const std::vector<Value>& items = arguments.object->items;
    if (function.object->text == kRebuildTensor) return rebuild_tensor(items);
    if (function.object->text == kRebuildParameter) {
      if (items.empty() || !items[0].is(Kind::kTensor)) return damaged();
      return push(items[0]);
    }
    if (function.object->text != kOrderedDict || !items.empty()) return damaged();
    return push_object(Kind::kDictionary);
  }

  // (storage, offset, sizes, strides, …)
  Status rebuild_tensor(const std::vector<Value>& items) {
    if (items.size() < 4 || !items[0].is(Kind::kStorage) || !items[1].is(Kind::kInteger) ||
        !items[2].is(Kind::kTuple) || !items[3].is(Kind::kTuple)) {
      return damaged();
    }
    AIRLLM_TRY(Object* const object, new_object());
    PickledTensor& tensor = object->tensor;
    tensor.dtype = items[0].object->dtype;
    tensor.storage = items[0].object->text;
    AIRLLM_TRY(tensor.shape, numbers_of(items[2]));
    AIRLLM_TRY(const std::vector<uint64_t> strides, numbers_of(items[3]));
    if (strides.size() != tensor.shape.size() || tensor.shape.size() > kMaxDimensions) {
      return damaged();
    }
    uint64_t elements = 1;
    bool is_contiguous = true;
    for (size_t i = tensor.shape.size(); i > 0; --i) {
      if (tensor.shape[i - 1] > 1 && strides[i - 1] != elements) is_contiguous = false;
      const auto product = checked_mul(elements, tensor.shape[i - 1]);
      if (!product) return damaged();
      elements = *product;
    }
    if (!is_contiguous && elements > 0) {
      return bad("one of its tensors is not contiguous, and cannot be read");
    }
    const auto storage_elements = static_cast<uint64_t>(items[0].integer);
    if (items[1].integer < 0 || static_cast<uint64_t>(items[1].integer) > storage_elements ||
        elements > storage_elements - static_cast<uint64_t>(items[1].integer)) {
      return bad("one of its tensors lies outside its storage");
    }
    tensor.first_element = static_cast<uint64_t>(items[1].integer);
    tensor.elements = elements;
    return push(Value{Kind::kTensor, 0, object});
  }

  Result<std::vector<uint64_t>> numbers_of(const Value& tuple) const {
    std::vector<uint64_t> numbers;
    for (const Value& item : tuple.object->items) {
      if (!item.is(Kind::kInteger) || item.integer < 0) return damaged();
      numbers.push_back(static_cast<uint64_t>(item.integer));
    }
    return numbers;
  }

  // Attributes of a dictionary, such as _metadata.
  Status pop_state() {
    AIRLLM_TRY(const Value state, pop());
    (void)state;
    AIRLLM_TRY(const Value object, top());
    (void)object;
    return {};
  }

  std::string_view rest_;
  const std::string& what_;
  bool stopped_ = false;
  std::vector<Value> stack_;
  std::unordered_map<uint64_t, Value> memo_;
  std::vector<std::unique_ptr<Object>> objects_;
  size_t items_ = 0;
};

}  // namespace

Result<std::vector<PickledTensor>> read_pickled_tensors(std::string_view pickle,
                                                        const std::string& what) {
  return Machine(pickle, what).run();
}

}  // namespace airllm::store
