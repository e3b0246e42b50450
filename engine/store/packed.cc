#include "engine/store/packed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "base/json.h"
#include "engine/store/shard_layout.h"
#include "kernels/compressed.h"
#include "kernels/convert.h"

namespace airllm::store {
namespace {

using kernels::NumberFormat;

constexpr uint64_t kMaxBlock = 1 << 20;            // numbers that share a scale
constexpr uint64_t kMaxQuantStateBytes = 1 << 16;  // the JSON beside a 4-bit weight
constexpr float kInt8Range = 127;                  // the code of the largest number of a row

uint64_t blocks(uint64_t numbers, uint64_t block) { return (numbers + block - 1) / block; }

std::string described(const FoundTensor& tensor) {
  return std::string(dtype_name(tensor.dtype)) + describe_shape(tensor.shape);
}

// What numbers are expanded to that the checkpoint calls `name`. F16 for BF16, too: it keeps three
// more bits of the product of a code and its scale, and weights are far from its ends.
std::optional<NumberFormat> format_for(std::string_view name) {
  if (name == "float32") return NumberFormat::kF32;
  if (name == "float16" || name == "bfloat16") return NumberFormat::kF16;
  return std::nullopt;
}

// `count` elements of a tensor from `first` on, as f32.
Result<std::vector<float>> read_numbers(const WeightFiles& files, const FoundTensor& tensor,
                                        uint64_t first, uint64_t count) {
  const uint64_t size = dtype_bytes(tensor.dtype);
  AIRLLM_TRY(const std::string bytes,
             read_bytes(*files[tensor.file], tensor.offset_bytes + first * size, count * size));
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) {
    switch (tensor.dtype) {
      case Dtype::kF32: out[i] = kernels::load<NumberFormat::kF32>(bytes.data(), i); break;
      case Dtype::kF16: out[i] = kernels::load<NumberFormat::kF16>(bytes.data(), i); break;
      case Dtype::kBF16: out[i] = kernels::load<NumberFormat::kBF16>(bytes.data(), i); break;
      case Dtype::kF8E8M0: out[i] = std::ldexp(1.0F, static_cast<uint8_t>(bytes[i]) - 127); break;
      default: AIRLLM_CHECK(false);
    }
  }
  return out;
}

// The tensor `name`, which belongs to `weight`: of one of `dtypes`, with `elements` numbers.
Result<FoundTensor> use_part(TensorIndex& index, const std::string& weight, const std::string& name,
                             std::initializer_list<Dtype> dtypes, uint64_t elements) {
  const FoundTensor* found = index.use(name);
  if (found == nullptr) {
    return index.bad("tensor " + name + " is missing, without which " + weight +
                     " cannot be expanded");
  }
  bool is_known = false;
  for (const Dtype dtype : dtypes) is_known = is_known || found->dtype == dtype;
  if (is_known && found->elements() == elements) return *found;
  return index.bad("tensor " + name + " is " + described(*found) + ", but " + weight + " needs " +
                   std::to_string(elements) + " numbers of " + dtype_name(*dtypes.begin()));
}

// ---- FP8 (arXiv 2412.19437, 3.3) ----

// number = code * scale of its block
class Fp8Weight : public PackedWeight {
 public:
  Fp8Weight(NumberFormat format, FoundTensor codes, FoundTensor scales, uint64_t columns,
            Quantization::Block block)
      : PackedWeight(format),
        codes_(std::move(codes)),
        scales_(std::move(scales)),
        columns_(columns),
        block_(block) {}

  Status expand(const WeightFiles& files, uint64_t first_row, std::span<float> out) const override {
    const uint64_t rows = out.size() / columns_;
    AIRLLM_TRY(
        const std::string codes,
        read_bytes(*files[codes_.file], codes_.offset_bytes + first_row * columns_, out.size()));
    AIRLLM_TRY(const std::vector<float> scales, scales_of(files, first_row, rows));
    for (uint64_t r = 0; r < rows; ++r) {
      const float* of_row = &scales[first_scale(first_row, r)];
      for (uint64_t c = 0; c < columns_; ++c) {
        const auto code = static_cast<uint8_t>(codes[r * columns_ + c]);
        out[r * columns_ + c] = values()[code] * of_row[c / block_.columns];
      }
    }
    return {};
  }

  // A row's blocks of 128 numbers each lie in one of the checkpoint's.
  std::optional<NumberFormat> exact_format() const override {
    const bool is_within =
        block_.columns >= columns_ || block_.columns % kernels::kFP8BlockNumbers == 0;
    return is_within ? std::optional(NumberFormat::kFP8) : std::nullopt;
  }

  // Where a code is NaN, its block's scale is instead.
  Status copy_rows(const WeightFiles& files, uint64_t first_row,
                   std::span<std::byte> out) const override {
    const uint64_t row_bytes = kernels::row_bytes(NumberFormat::kFP8, columns_);
    const uint64_t rows = out.size() / row_bytes;
    AIRLLM_TRY(const std::string codes,
               read_bytes(*files[codes_.file], codes_.offset_bytes + first_row * columns_,
                          rows * columns_));
    AIRLLM_TRY(const std::vector<float> scales, scales_of(files, first_row, rows));
    for (uint64_t r = 0; r < rows; ++r) {
      auto* const row = reinterpret_cast<char*>(out.data() + r * row_bytes);
      const std::string_view of_row = std::string_view(codes).substr(r * columns_, columns_);
      std::copy(of_row.begin(), of_row.end(), row);
      const float* const of_blocks = &scales[first_scale(first_row, r)];
      for (uint64_t at = 0; at < columns_; at += kernels::kFP8BlockNumbers) {
        kernels::store<NumberFormat::kF32>(row + columns_, at / kernels::kFP8BlockNumbers,
                                           of_blocks[at / block_.columns]);
      }
      for (uint64_t c = 0; c < columns_; ++c) {
        if ((of_row[c] & 0x7f) == 0x7f) kernels::spoil(NumberFormat::kFP8, row, columns_, c);
      }
    }
    return {};
  }

 private:
  // Those of the blocks that the rows lie in.
  Result<std::vector<float>> scales_of(const WeightFiles& files, uint64_t first_row,
                                       uint64_t rows) const {
    const uint64_t first_block = first_row / block_.rows;
    const uint64_t width = blocks(columns_, block_.columns);
    const uint64_t height = blocks(first_row + rows, block_.rows) - first_block;
    return read_numbers(files, scales_, first_block * width, height * width);
  }
  // Where those of row first_row + `r` begin among the scales of rows from `first_row` on.
  uint64_t first_scale(uint64_t first_row, uint64_t r) const {
    return ((first_row + r) / block_.rows - first_row / block_.rows) *
           blocks(columns_, block_.columns);
  }

  static const std::array<float, 256>& values() {
    static const std::array<float, 256> table = [] {
      std::array<float, 256> all{};
      for (unsigned i = 0; i < all.size(); ++i) {
        all[i] = kernels::f8_e4m3_to_f32(static_cast<uint8_t>(i));
      }
      return all;
    }();
    return table;
  }

  FoundTensor codes_;
  FoundTensor scales_;
  uint64_t columns_;
  Quantization::Block block_;
};

Result<std::shared_ptr<const PackedWeight>> find_fp8(const Quantization& quantization,
                                                     TensorIndex& index, const std::string& name,
                                                     const model::TensorSpec& spec) {
  FoundTensor codes = index.tensors.at(name);
  const std::vector<uint64_t>& shape = spec.part.name.empty() ? spec.shape : spec.part.shape;
  if (codes.shape != shape || spec.is_transposed || spec.shape.size() != 2) {
    return index.bad("tensor " + name + " is " + described(codes) + ", but config.json makes it " +
                     describe_shape(shape) + (spec.is_transposed ? ", which FP8 cannot be" : ""));
  }
  const uint64_t rows = spec.shape[0];
  const uint64_t columns = spec.shape[1];
  const Quantization::Block block = quantization.block.value_or(Quantization::Block{rows, columns});
  const uint64_t scale_count = blocks(rows, block.rows) * blocks(columns, block.columns);
  const uint64_t matrices = codes.elements() / (rows * columns);  // of a stack
  AIRLLM_TRY(FoundTensor scales, use_part(index, name, name + "_scale_inv",
                                          {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kF8E8M0},
                                          matrices * scale_count));
  // Of activations, which are not rounded here.
  (void)index.use(name.substr(0, name.rfind("weight")) + "activation_scale");
  codes.offset_bytes += spec.part.index * rows * columns;
  scales.offset_bytes += spec.part.index * scale_count * dtype_bytes(scales.dtype);
  return std::make_shared<const Fp8Weight>(quantization.format, std::move(codes), std::move(scales),
                                           columns, block);
}

// ---- bitsandbytes' LLM.int8() (arXiv 2208.07339) ----

// number = code * scale of its row / 127
class Int8Weight : public PackedWeight {
 public:
  Int8Weight(NumberFormat format, FoundTensor codes, FoundTensor scales, uint64_t columns)
      : PackedWeight(format),
        codes_(std::move(codes)),
        scales_(std::move(scales)),
        columns_(columns) {}

  Status expand(const WeightFiles& files, uint64_t first_row, std::span<float> out) const override {
    AIRLLM_TRY(
        const std::string codes,
        read_bytes(*files[codes_.file], codes_.offset_bytes + first_row * columns_, out.size()));
    AIRLLM_TRY(const std::vector<float> scales,
               read_numbers(files, scales_, first_row, out.size() / columns_));
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] =
          static_cast<float>(static_cast<int8_t>(codes[i])) * (scales[i / columns_] / kInt8Range);
    }
    return {};
  }

 private:
  FoundTensor codes_;
  FoundTensor scales_;
  uint64_t columns_;
};

Result<std::shared_ptr<const PackedWeight>> find_int8(const Quantization& quantization,
                                                      TensorIndex& index, const std::string& name,
                                                      const model::TensorSpec& spec) {
  const FoundTensor& codes = index.tensors.at(name);
  if (codes.shape != spec.shape || !spec.part.name.empty() || spec.shape.size() != 2) {
    return index.bad("tensor " + name + " is " + described(codes) + ", but config.json makes it " +
                     describe_shape(spec.shape));
  }
  const std::string module = name.substr(0, name.rfind("weight"));
  AIRLLM_TRY(FoundTensor scales,
             use_part(index, name, module + "SCB", {Dtype::kF32}, spec.shape[0]));
  // How the codes lie: 0 says by rows, as always since version 0.45.
  if (const FoundTensor* order = index.use(module + "weight_format")) {
    AIRLLM_TRY(const std::string bytes, index.read(*order));
    if (bytes.find_first_not_of('\0') != std::string::npos) {
      return index.bad(
          "tensor " + module + "weight_format says that the weight does not lie by rows",
          "save the checkpoint again with a newer bitsandbytes");
    }
  }
  return std::make_shared<const Int8Weight>(quantization.format, codes, std::move(scales),
                                            spec.shape[1]);
}

// ---- bitsandbytes' NF4 and FP4 (arXiv 2305.14314) ----

struct FourBitForm {
  uint64_t columns = 0;
  FoundTensor codes;  // two in a byte, the first in its upper half
  std::array<float, 16> values{};
  uint64_t block = 0;  // numbers that share a scale, from one row to the next
  FoundTensor scales;  // F32, or bytes that stand for numbers in turn:
  bool is_nested = false;
  std::array<float, 256> scale_values{};
  uint64_t scale_block = 1;
  FoundTensor scale_scales;
  float scale_offset = 0;
};

// number = values[code] * scale of its block, where
// scale = scale_values[byte] * scale of its block + scale_offset, when scales are nested
class FourBitWeight : public PackedWeight {
 public:
  FourBitWeight(NumberFormat format, FourBitForm form)
      : PackedWeight(format), form_(std::move(form)) {}

  Status expand(const WeightFiles& files, uint64_t first_row, std::span<float> out) const override {
    const uint64_t first = first_row * form_.columns;
    const uint64_t first_byte = first / 2;
    const uint64_t last_byte = (first + out.size() - 1) / 2;
    AIRLLM_TRY(const std::string codes,
               read_bytes(*files[form_.codes.file], form_.codes.offset_bytes + first_byte,
                          last_byte - first_byte + 1));
    const uint64_t first_block = first / form_.block;
    const uint64_t block_count = blocks(first + out.size(), form_.block) - first_block;
    AIRLLM_TRY(const std::vector<float> scales, read_scales(files, first_block, block_count));
    for (uint64_t i = 0; i < out.size(); ++i) {
      const uint64_t at = first + i;
      const unsigned code = code_at(codes, at - 2 * first_byte);
      out[i] = form_.values[code] * scales[at / form_.block - first_block];
    }
    return {};
  }

  std::optional<NumberFormat> exact_format() const override {
    const bool is_nf4 = form_.values == kernels::kNF4Values &&
                        form_.block == kernels::kNF4BlockNumbers &&
                        form_.columns % kernels::kNF4BlockNumbers == 0;
    return is_nf4 ? std::optional(NumberFormat::kNF4) : std::nullopt;
  }

  Status copy_rows(const WeightFiles& files, uint64_t first_row,
                   std::span<std::byte> out) const override {
    constexpr uint64_t kBlock = kernels::kNF4BlockNumbers;
    const uint64_t row_bytes = kernels::row_bytes(NumberFormat::kNF4, form_.columns);
    const uint64_t rows = out.size() / row_bytes, row_blocks = form_.columns / kBlock;
    AIRLLM_TRY(const std::string codes,
               read_bytes(*files[form_.codes.file],
                          form_.codes.offset_bytes + first_row * form_.columns / 2,
                          rows * form_.columns / 2));
    AIRLLM_TRY(const std::vector<float> scales,
               read_scales(files, first_row * row_blocks, rows * row_blocks));
    // Here a byte holds numbers j and j + 32 of a block, the first in the lower half.
    for (uint64_t block = 0; block < rows * row_blocks; ++block) {
      const std::span<std::byte> row = out.subspan(block / row_blocks * row_bytes, row_bytes);
      const uint64_t at = block % row_blocks;
      for (uint64_t j = 0; j < kBlock / 2; ++j) {
        const uint64_t number = block * kBlock + j;
        row[at * kBlock / 2 + j] = static_cast<std::byte>(code_at(codes, number) |
                                                          code_at(codes, number + kBlock / 2) << 4);
      }
      kernels::store<NumberFormat::kF32>(row.data() + form_.columns / 2, at, scales[block]);
    }
    return {};
  }

 private:
  // Of number `number` of those that `codes` begins with.
  static unsigned code_at(std::string_view codes, uint64_t number) {
    const auto byte = static_cast<uint8_t>(codes[number / 2]);
    return number % 2 == 0 ? byte >> 4 : byte & 0xFU;
  }

  Result<std::vector<float>> read_scales(const WeightFiles& files, uint64_t first,
                                         uint64_t count) const {
    if (!form_.is_nested) return read_numbers(files, form_.scales, first, count);
    AIRLLM_TRY(const std::string bytes,
               read_bytes(*files[form_.scales.file], form_.scales.offset_bytes + first, count));
    const uint64_t first_block = first / form_.scale_block;
    const uint64_t block_count = blocks(first + count, form_.scale_block) - first_block;
    AIRLLM_TRY(const std::vector<float> nested,
               read_numbers(files, form_.scale_scales, first_block, block_count));
    std::vector<float> out(count);
    for (uint64_t i = 0; i < count; ++i) {
      const float scale = nested[(first + i) / form_.scale_block - first_block];
      out[i] = form_.scale_values[static_cast<uint8_t>(bytes[i])] * scale + form_.scale_offset;
    }
    return out;
  }

  FourBitForm form_;
};

template <size_t N>
Status read_table(const WeightFiles& files, const FoundTensor& tensor, std::array<float, N>& out) {
  AIRLLM_TRY(const std::vector<float> numbers, read_numbers(files, tensor, 0, N));
  std::copy(numbers.begin(), numbers.end(), out.begin());
  return {};
}

class FourBitFinder {
 public:
  FourBitFinder(TensorIndex& index, const std::string& name, const model::TensorSpec& spec)
      : index_(index), name_(name), spec_(spec) {}

  Result<std::shared_ptr<const PackedWeight>> find(const std::string& state_name) {
    const FoundTensor& state = *index_.use(state_name);
    if (state.dtype != Dtype::kU8 || state.bytes() > kMaxQuantStateBytes) {
      return index_.bad("tensor " + state_name + " is " + described(state) +
                        ", which cannot be a description of " + name_);
    }
    AIRLLM_TRY(const std::string text, index_.read(state));
    AIRLLM_TRY(const Json root, parse_json_object(text, index_.label + ": tensor " + state_name));
    const model::ConfigReader reader(root, index_.label + ": tensor " + state_name);
    AIRLLM_TRY_VOID(check_shape(reader));
    AIRLLM_TRY(const std::string format_name, reader.text({"dtype"}, "float16"));
    const std::optional<NumberFormat> format = format_for(format_name);
    if (!format) return reader.impossible("dtype", "not float32, float16 or bfloat16");
    AIRLLM_TRY_VOID(find_codes());
    AIRLLM_TRY_VOID(find_scales(reader));
    return std::make_shared<const FourBitWeight>(*format, std::move(form_));
  }

 private:
  uint64_t elements() const { return spec_.shape[0] * spec_.shape[1]; }

  Status check_shape(const model::ConfigReader& reader) {
    const Json* shape = reader.find("shape");
    Json wanted = Json::array();
    for (const uint64_t size : spec_.shape) wanted.push_back(size);
    if (shape == nullptr || *shape != wanted || !spec_.part.name.empty() ||
        spec_.shape.size() != 2) {
      return reader.impossible("shape",
                               "config.json makes " + name_ + " " + describe_shape(spec_.shape));
    }
    form_.columns = spec_.shape[1];
    return {};
  }

  // Numbers of any type may hold the codes, as some ways to train want it.
  Status find_codes() {
    form_.codes = index_.tensors.at(name_);
    const uint64_t bytes = blocks(elements(), 2);
    if (form_.codes.bytes() == round_up(bytes, dtype_bytes(form_.codes.dtype))) return {};
    return index_.bad("tensor " + name_ + " is " + described(form_.codes) + ", but its " +
                      std::to_string(elements()) + " numbers of 4 bits make " +
                      std::to_string(bytes) + " bytes");
  }

  Status find_scales(const model::ConfigReader& reader) {
    AIRLLM_TRY(form_.block, reader.size({"blocksize"}, kMaxBlock));
    AIRLLM_TRY(const FoundTensor values, part(".quant_map", Dtype::kF32, form_.values.size()));
    AIRLLM_TRY_VOID(read_table(index_.files, values, form_.values));
    const uint64_t scale_count = blocks(elements(), form_.block);
    form_.is_nested = reader.has("nested_blocksize");
    AIRLLM_TRY(form_.scales,
               part(".absmax", form_.is_nested ? Dtype::kU8 : Dtype::kF32, scale_count));
    if (!form_.is_nested) return {};
    AIRLLM_TRY(form_.scale_block, reader.size({"nested_blocksize"}, kMaxBlock));
    AIRLLM_TRY(const double offset, reader.number("nested_offset", 0));
    form_.scale_offset = static_cast<float>(offset);
    AIRLLM_TRY(const FoundTensor scale_values,
               part(".nested_quant_map", Dtype::kF32, form_.scale_values.size()));
    AIRLLM_TRY_VOID(read_table(index_.files, scale_values, form_.scale_values));
    AIRLLM_TRY(form_.scale_scales,
               part(".nested_absmax", Dtype::kF32, blocks(scale_count, form_.scale_block)));
    return {};
  }

  Result<FoundTensor> part(const char* ending, Dtype dtype, uint64_t elements) {
    return use_part(index_, name_, name_ + ending, {dtype}, elements);
  }

  TensorIndex& index_;
  const std::string& name_;
  const model::TensorSpec& spec_;
  FourBitForm form_;
};

}  // namespace

Status PackedWeight::copy_rows(const WeightFiles&, uint64_t, std::span<std::byte>) const {
  AIRLLM_CHECK(false);
  return {};
}

Result<Quantization> read_quantization(const model::ConfigReader& config) {
  Quantization out;
  if (!config.has("quantization_config")) return out;
  AIRLLM_TRY(const model::ConfigReader settings, config.inside("quantization_config"));
  AIRLLM_TRY(const bool in_4_bits, settings.flag("load_in_4bit", false));
  AIRLLM_TRY(const bool in_8_bits, settings.flag("load_in_8bit", false));
  const bool is_old = in_4_bits || in_8_bits;  // which did not name the method
  AIRLLM_TRY(const std::string method,
             settings.text({"quant_method"}, is_old ? "bitsandbytes" : ""));
  AIRLLM_TRY(const std::string format_name, config.text({"torch_dtype", "dtype"}, "bfloat16"));
  out.format = format_for(format_name).value_or(NumberFormat::kF16);
  if (method == "bitsandbytes") {
    out.method = Quantization::Method::kBitsandbytes;
    return out;
  }
  if (method != "fp8") {
    return settings.impossible("quant_method", "weights in this form cannot be used",
                               "known are: bitsandbytes, fp8; use the checkpoint in one of these, "
                               "or in f32, f16 or bf16");
  }
  out.method = Quantization::Method::kFp8;
  AIRLLM_TRY(const std::string kind, settings.text({"fmt"}, "e4m3"));
  if (kind != "e4m3") return settings.impossible("fmt", "not a form that is known here (e4m3)");
  if (settings.is_null("weight_block_size")) {
    out.block.reset();
  } else if (settings.has("weight_block_size")) {
    const Json& sizes = *settings.find("weight_block_size");
    const auto is_size = [](const Json& size) {
      return size.is_number_unsigned() && size.get<uint64_t>() > 0 &&
             size.get<uint64_t>() <= kMaxBlock;
    };
    if (!sizes.is_array() || sizes.size() != 2 || !is_size(sizes[0]) || !is_size(sizes[1])) {
      return settings.impossible("weight_block_size", "not two whole numbers above 0");
    }
    out.block = Quantization::Block{sizes[0].get<uint64_t>(), sizes[1].get<uint64_t>()};
  }
  return out;
}

Result<std::shared_ptr<const PackedWeight>> find_packed(const Quantization& quantization,
                                                        TensorIndex& index, const std::string& name,
                                                        const model::TensorSpec& spec) {
  const Dtype dtype = index.tensors.at(name).dtype;
  switch (quantization.method) {
    case Quantization::Method::kNone: break;
    case Quantization::Method::kFp8:
      if (dtype == Dtype::kF8E4M3) return find_fp8(quantization, index, name, spec);
      break;
    case Quantization::Method::kBitsandbytes:
      if (dtype == Dtype::kI8) return find_int8(quantization, index, name, spec);
      for (const char* kind : {"nf4", "fp4"}) {
        const std::string state = name + ".quant_state.bitsandbytes__" + kind;
        if (index.tensors.contains(state)) return FourBitFinder(index, name, spec).find(state);
      }
      break;
  }
  return std::shared_ptr<const PackedWeight>();
}

}  // namespace airllm::store
