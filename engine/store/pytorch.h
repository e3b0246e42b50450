// PyTorch's checkpoints (torch.save since 1.6, ".bin"): a ZIP archive of a pickle that lists the
// tensors, and a file for each storage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/store/disk.h"
#include "engine/store/safetensors.h"

namespace airllm::store {

// Reads the list alone. Begins and ends count from the file's begin: data_offset is 0. Tensors may
// share bytes, and not all bytes belong to one. Errors are kData and name the file.
Result<SafetensorsHeader> read_pytorch_header(const DiskFile& file);

}  // namespace airllm::store
