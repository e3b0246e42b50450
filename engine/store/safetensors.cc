#include "engine/store/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/checked.h"
#include "base/json.h"
#include "base/little_endian.h"
#include "base/utf8.h"
#include "engine/store/hash.h"

namespace airllm::store {
namespace {

constexpr uint64_t kLengthBytes = 8;
// No tensor of any model has more; it bounds what a hostile shape can take.
constexpr size_t kMaxDimensions = 16;

struct DtypeInfo {
  Dtype dtype;
  const char* name;
  uint64_t bytes;
};
constexpr DtypeInfo kDtypes[] = {
    {Dtype::kBool, "BOOL", 1},      {Dtype::kU8, "U8", 1},          {Dtype::kI8, "I8", 1},
    {Dtype::kF8E5M2, "F8_E5M2", 1}, {Dtype::kF8E4M3, "F8_E4M3", 1}, {Dtype::kF8E8M0, "F8_E8M0", 1},
    {Dtype::kI16, "I16", 2},        {Dtype::kU16, "U16", 2},        {Dtype::kF16, "F16", 2},
    {Dtype::kBF16, "BF16", 2},      {Dtype::kI32, "I32", 4},        {Dtype::kU32, "U32", 4},
    {Dtype::kF32, "F32", 4},        {Dtype::kI64, "I64", 8},        {Dtype::kU64, "U64", 8},
    {Dtype::kF64, "F64", 8},        {Dtype::kC64, "C64", 8},
};

const DtypeInfo& info(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

std::string quote(std::string_view name) {
  return "'" + escape_for_display(name.substr(0, 120), true) + "'";
}

// Reads the header straight into records: a tree of a 100 MB header would take gigabytes.
class HeaderSax : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderSax(SafetensorsHeader& out) : out_(out) {}

  bool null() override { return wrong_value(); }
  bool boolean(bool /*v*/) override { return wrong_value(); }
  bool number_integer(number_integer_t /*v*/) override { return wrong_value(); }
  bool number_float(number_float_t /*v*/, const string_t& /*s*/) override { return wrong_value(); }
  bool binary(binary_t& /*v*/) override { return wrong_value(); }

  bool number_unsigned(number_unsigned_t v) override {
    if (state_ == State::kShape) {
      if (tensor_.shape.size() == kMaxDimensions) return fail("has too many dimensions");
      tensor_.shape.push_back(v);
      return true;
    }
    if (state_ == State::kOffsets) {
      if (offsets_ == range_.size()) return fail("has more than two data_offsets");
      range_[offsets_++] = v;
      return true;
    }
    return wrong_value();
  }

  bool string(string_t& v) override {
    if (state_ == State::kMetadata && have_key_) {
      have_key_ = false;
      if (!out_.metadata.emplace(key_, v).second) {
        return problem("duplicate key " + quote(key_) + " in __metadata__");
      }
      return true;
    }
    if (state_ != State::kTensor || key_ != "dtype") return wrong_value();
    const auto* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                     [&](const DtypeInfo& d) { return v == d.name; });
    if (found == std::end(kDtypes)) return fail("has the unknown dtype " + quote(v));
    tensor_.dtype = found->dtype;
    return true;
  }

  bool start_object(size_t /*elements*/) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
      return true;
    }
    if (state_ != State::kTop) return wrong_value();
    if (tensor_.name == "__metadata__") {
      state_ = State::kMetadata;
      return true;
    }
    state_ = State::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    if (state_ == State::kTop) return begin_entry(name);
    key_ = name;
    have_key_ = true;
    if (state_ == State::kMetadata) return true;
    unsigned* const seen = name == "dtype"          ? &seen_dtype_
                           : name == "shape"        ? &seen_shape_
                           : name == "data_offsets" ? &seen_offsets_
                                                    : nullptr;
    if (seen == nullptr) return fail("has the unknown key " + quote(name));
    if (++*seen > 1) return fail("has the key " + quote(name) + " twice");
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTop) {
      state_ = State::kEnd;
      return true;
    }
    const bool was_tensor = state_ == State::kTensor;
    state_ = State::kTop;
    return !was_tensor || finish_tensor();
  }

  bool start_array(size_t /*elements*/) override {
    if (state_ != State::kTensor || key_ == "dtype") return wrong_value();
    state_ = key_ == "shape" ? State::kShape : State::kOffsets;
    return true;
  }
  bool end_array() override {
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return problem("not valid JSON at byte " + std::to_string(position));
  }

  const std::string& problem() const { return problem_; }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool problem(std::string text) {
    problem_ = std::move(text);
    return false;
  }
  bool fail(const std::string& why) { return problem("tensor " + quote(tensor_.name) + " " + why); }
  bool wrong_value() {
    if (state_ == State::kStart || state_ == State::kEnd) return problem("not a JSON object");
    if (state_ == State::kMetadata) {
      return problem("__metadata__ has a value that is not a string at " + quote(key_));
    }
    if (state_ == State::kTop) return fail("is not an object");
    return fail("has a value of the wrong kind for " + quote(key_));
  }

  bool begin_entry(const std::string& name) {
    if (name == "__metadata__" && seen_metadata_) return problem("duplicate key '__metadata__'");
    seen_metadata_ = seen_metadata_ || name == "__metadata__";
    tensor_ = TensorRecord{};
    tensor_.name = name;
    seen_dtype_ = seen_shape_ = seen_offsets_ = 0;
    offsets_ = 0;
    have_key_ = false;
    return true;
  }

  bool finish_tensor() {
    if (seen_dtype_ == 0) return fail("has no dtype");
    if (seen_shape_ == 0) return fail("has no shape");
    if (offsets_ != range_.size()) return fail("has no pair of data_offsets");
    tensor_.begin = range_[0];
    tensor_.end = range_[1];
    out_.tensors.push_back(std::move(tensor_));
    tensor_ = TensorRecord{};
    return true;
  }

  SafetensorsHeader& out_;
  State state_ = State::kStart;
  TensorRecord tensor_;  // the entry being read
  std::string key_;      // the last key inside it
  bool have_key_ = false;
  unsigned seen_dtype_ = 0, seen_shape_ = 0, seen_offsets_ = 0;
  bool seen_metadata_ = false;
  std::array<uint64_t, 2> range_{};
  size_t offsets_ = 0;
  std::string problem_;
};

Status check_size(const TensorRecord& tensor, const std::string& what) {
  const auto fail = [&](const std::string& why) {
    return Unexpected(ErrorCode::kData, what + ": tensor " + quote(tensor.name) + " " + why);
  };
  if (tensor.begin > tensor.end) return fail("ends before it begins");
  const auto elements = checked_product(tensor.shape);
  const auto bytes = elements ? checked_mul(*elements, dtype_bytes(tensor.dtype)) : std::nullopt;
  if (!bytes) return fail("has a shape that is too large");
  if (*bytes != tensor.end - tensor.begin) {
    return fail("has " + std::to_string(tensor.end - tensor.begin) +
                " bytes, but its shape and dtype make " + std::to_string(*bytes));
  }
  return {};
}

Status check_ranges(const std::vector<TensorRecord>& tensors, uint64_t data_bytes,
                    const std::string& what) {
  uint64_t at = 0;
  for (const TensorRecord& tensor : tensors) {
    if (tensor.begin != at) {
      return Unexpected(
          ErrorCode::kData,
          what + ": tensor " + quote(tensor.name) + " begins at " + std::to_string(tensor.begin) +
              ", " + (tensor.begin > at ? "leaving a gap after " : "overlapping what ends at ") +
              std::to_string(at));
    }
    at = tensor.end;
  }
  if (at == data_bytes) return {};
  const bool short_file = at > data_bytes;
  return Unexpected(ErrorCode::kData,
                    what +
                        (short_file ? ": truncated: the tensors need " : ": the tensors end at ") +
                        std::to_string(at) + " bytes after the header, but the file has " +
                        std::to_string(data_bytes),
                    short_file ? "copy or download the file again" : "");
}

Status check_duplicates(const std::vector<TensorRecord>& tensors, const std::string& what) {
  std::vector<const std::string*> names;
  names.reserve(tensors.size());
  for (const TensorRecord& tensor : tensors) names.push_back(&tensor.name);
  std::sort(names.begin(), names.end(),
            [](const std::string* a, const std::string* b) { return *a < *b; });
  for (size_t i = 1; i < names.size(); ++i) {
    if (*names[i - 1] == *names[i]) {
      return Unexpected(ErrorCode::kData, what + ": duplicate tensor " + quote(*names[i]));
    }
  }
  return {};
}

}  // namespace

const char* dtype_name(Dtype dtype) { return info(dtype).name; }
uint64_t dtype_bytes(Dtype dtype) { return info(dtype).bytes; }

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                                   const std::string& what) {
  const auto fail = [&](const std::string& why) {
    return Unexpected(ErrorCode::kData, what + ": header: " + why);
  };
  if (json.empty() || json.front() != '{') return fail("does not begin with '{'");
  if (const size_t bad = find_invalid_utf8(json); bad != kValidUtf8) {
    return fail("not UTF-8 at byte " + std::to_string(bad));
  }
  // The JSON library takes a zero byte for the end of the text.
  if (const size_t zero = json.find('\0'); zero != json.npos) {
    return fail("byte " + std::to_string(zero) + " is zero");
  }
  SafetensorsHeader out;
  HeaderSax sax(out);
  if (!Json::sax_parse(json.begin(), json.end(), &sax)) return fail(sax.problem());
  std::sort(out.tensors.begin(), out.tensors.end(),
            [](const TensorRecord& a, const TensorRecord& b) {
              return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
            });
  AIRLLM_TRY_VOID(check_duplicates(out.tensors, what));
  for (const TensorRecord& tensor : out.tensors) AIRLLM_TRY_VOID(check_size(tensor, what));
  AIRLLM_TRY_VOID(check_ranges(out.tensors, data_bytes, what));
  return out;
}

Result<SafetensorsHeader> read_safetensors_header(const DiskFile& file) {
  AIRLLM_TRY(const uint64_t file_bytes, file.size_bytes());
  if (file_bytes < kLengthBytes) {
    return Unexpected(ErrorCode::kData, file.path() + ": " + std::to_string(file_bytes) +
                                            " bytes are too few for a safetensors file");
  }
  AIRLLM_TRY(const std::string prefix, read_bytes(file, 0, kLengthBytes));
  const uint64_t length = from_little_endian(prefix);
  if (length > kMaxHeaderBytes || length > file_bytes - kLengthBytes) {
    return Unexpected(ErrorCode::kData,
                      file.path() + ": its header would be " + std::to_string(length) +
                          " bytes long, but the file has " + std::to_string(file_bytes) +
                          " and headers end at " + std::to_string(kMaxHeaderBytes));
  }
  AIRLLM_TRY(const std::string json, read_bytes(file, kLengthBytes, length));
  const uint64_t data_offset = kLengthBytes + length;
  AIRLLM_TRY(SafetensorsHeader header,
             parse_safetensors_header(json, file_bytes - data_offset, file.path()));
  header.data_offset = data_offset;
  Hasher hasher;
  hasher.update(prefix);
  hasher.update(json);
  header.hash = hasher.digest();
  return header;
}

std::string write_safetensors_header(const std::map<std::string, std::string>& metadata,
                                     const std::vector<TensorRecord>& tensors, uint64_t alignment) {
  Json root = Json::object();
  if (!metadata.empty()) root["__metadata__"] = metadata;
  for (const TensorRecord& tensor : tensors) {
    root[tensor.name] = Json{{"dtype", dtype_name(tensor.dtype)},
                             {"shape", tensor.shape},
                             {"data_offsets", {tensor.begin, tensor.end}}};
  }
  const std::string json = dump_json(root);
  const uint64_t total = round_up(kLengthBytes + json.size(), alignment);
  const uint64_t length = total - kLengthBytes;
  std::string out;
  out.reserve(total);
  for (size_t i = 0; i < kLengthBytes; ++i) out.push_back(static_cast<char>(length >> 8 * i));
  out += json;
  out.resize(total, ' ');
  return out;
}

}  // namespace airllm::store
