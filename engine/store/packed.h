// Weights that checkpoints keep in fewer bits than the numbers that they stand for: FP8 with a
// scale for each block, as DeepSeek has it, and the 4-bit and 8-bit forms of bitsandbytes. While a
// model is split they are expanded, but for what a compressed format holds as it is: NF4, FP8.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "engine/model/config_reader.h"
#include "engine/model/stages.h"
#include "engine/store/tensor_index.h"
#include "kernels/number_format.h"

namespace airllm::store {

// What config.json says of packed weights.
struct Quantization {
  enum class Method : uint8_t { kNone, kFp8, kBitsandbytes };
  // Numbers that share a scale; the first block begins at the tensor's first number.
  struct Block {
    uint64_t rows = 128;
    uint64_t columns = 128;
  };

  Method method = Method::kNone;
  std::optional<Block> block = Block();  // kFp8; none: all numbers of a tensor share one
  // What weights are expanded to, unless they say so themselves.
  kernels::NumberFormat format = kernels::NumberFormat::kF16;
};

// A method that is not known here is a kData error that names it.
Result<Quantization> read_quantization(const model::ConfigReader& config);

// A packed matrix, [rows, columns]. Immutable.
class PackedWeight {
 public:
  explicit PackedWeight(kernels::NumberFormat format) : format_(format) {}
  virtual ~PackedWeight() = default;
  // What it is to be expanded to.
  kernels::NumberFormat format() const { return format_; }
  // Fills `out`, whole rows, with those from `first_row` on.
  virtual Status expand(const WeightFiles& files, uint64_t first_row,
                        std::span<float> out) const = 0;
  // The compressed format whose rows hold the weight as it came, without loss; none: there is none.
  virtual std::optional<kernels::NumberFormat> exact_format() const { return std::nullopt; }
  // Fills `out`, whole rows in that format, with those from `first_row` on.
  virtual Status copy_rows(const WeightFiles& files, uint64_t first_row,
                           std::span<std::byte> out) const;

 private:
  kernels::NumberFormat format_;
};

// The weight that `index` has under `name`; null when it is not packed. Uses the tensors that
// belong to it. What does not fit `spec`, or each other, is a kData error that names the tensor.
Result<std::shared_ptr<const PackedWeight>> find_packed(const Quantization& quantization,
                                                        TensorIndex& index, const std::string& name,
                                                        const model::TensorSpec& spec);

}  // namespace airllm::store
