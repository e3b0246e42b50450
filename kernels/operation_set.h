// The operations of a backend as they are measured: each with data of its own, what a call of it
// reads and computes, and the machine's limits beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace airllm::kernels {

struct MeasuredOperation {
  std::string name;                    // "product", "attention", "norm", "activation"
  std::optional<NumberFormat> format;  // of the weights
  size_t rows = 0;
  size_t positions = 0;  // of attention: that each row attends to
  uint64_t bytes = 0;    // of weights, keys and values, or else activations, that a call reads
  uint64_t flop = 0;     // of a call; a product and its sum are two. 0: not counted
  std::function<void()> run;
};

// Products of one row and a few read weights of `memory_bytes`, which is to be more than caches
// hold; those of many rows a square of weights. A scalar backend multiplies no more than one row,
// and few: it is the reference, not a choice.
class OperationSet {
 public:
  // Borrows both. A backend of the CPU.
  OperationSet(const Backend& backend, ThreadPool& pool, uint64_t memory_bytes);
  ~OperationSet();
  OperationSet(const OperationSet&) = delete;
  OperationSet& operator=(const OperationSet&) = delete;

  const std::vector<MeasuredOperation>& operations() const { return operations_; }
  // A plain sum over memory_bytes: no product reads weights faster.
  const MeasuredOperation& memory_read() const { return memory_read_; }
  // Products and sums of f32 in registers: none computes faster with f32.
  const MeasuredOperation& peak() const { return peak_; }

 private:
  struct Data;

  // Of an operation that has so many outputs in `y`. The rest of what it tells is the caller's.
  MeasuredOperation& add(const char* name, size_t rows, size_t outputs, std::function<void()> run);
  void add_product(NumberFormat format, size_t rows, uint64_t weight_bytes);
  void add_attention(size_t rows);
  void add_norm(size_t rows);
  void add_activation(size_t rows);

  const Backend& backend_;
  ThreadPool& pool_;
  std::unique_ptr<Data> data_;
  std::vector<MeasuredOperation> operations_;
  MeasuredOperation memory_read_;
  MeasuredOperation peak_;
};

}  // namespace airllm::kernels
