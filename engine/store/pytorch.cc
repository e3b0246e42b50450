#include "engine/store/pytorch.h"

#include <set>

#include "base/checked.h"
#include "base/utf8.h"
#include "engine/store/hash.h"
#include "engine/store/pickle.h"
#include "engine/store/zip_archive.h"

namespace airllm::store {
namespace {

constexpr std::string_view kListName = "/data.pkl";

}  // namespace

Result<SafetensorsHeader> read_pytorch_header(const DiskFile& file) {
  const auto bad = [&](const std::string& why, std::string remedy = {}) {
    return Unexpected(ErrorCode::kData, file.path() + ": " + why, std::move(remedy));
  };
  AIRLLM_TRY(const bool is_zip, is_zip_archive(file));
  if (!is_zip) {
    return bad("it is no ZIP archive, as PyTorch writes them since version 1.6",
               "load it with PyTorch and save it again");
  }
  AIRLLM_TRY(const ZipArchive archive, read_zip_archive(file));
  std::string prefix;
  const ZipEntry* list = nullptr;
  for (const auto& [name, entry] : archive.entries) {
    if (!name.ends_with(kListName)) continue;
    if (list != nullptr) return bad("it has two lists of tensors");
    list = &entry;
    prefix = name.substr(0, name.size() - kListName.size());
  }
  if (list == nullptr) return bad("it has no list of tensors (data.pkl)");
  if (list->bytes > kMaxPickleBytes) return bad("its list of tensors is too long");
  if (const ZipEntry* order = archive.find(prefix + "/byteorder")) {
    constexpr uint64_t kLongest = 16;
    if (order->bytes > kLongest) return bad("its byte order is not known");
    AIRLLM_TRY(const std::string name, read_bytes(file, order->offset, order->bytes));
    if (name != "little") return bad("its byte order is " + escape_for_display(name, true));
  }
  AIRLLM_TRY(const std::string pickle, read_bytes(file, list->offset, list->bytes));
  AIRLLM_TRY(const std::vector<PickledTensor> tensors, read_pickled_tensors(pickle, file.path()));

  SafetensorsHeader header;
  Hasher hasher;
  hasher.update(archive.directory);
  hasher.update(pickle);
  header.hash = hasher.digest();
  std::set<std::string_view> names;
  for (const PickledTensor& tensor : tensors) {
    const std::string shown =
        "tensor '" + escape_for_display(tensor.name.substr(0, 120), true) + "'";
    if (!names.insert(tensor.name).second) return bad("it has " + shown + " twice");
    const ZipEntry* storage = archive.find(prefix + "/data/" + tensor.storage);
    if (storage == nullptr) return bad("the numbers of " + shown + " are missing");
    const uint64_t element = dtype_bytes(tensor.dtype);
    const auto begin = checked_mul(tensor.first_element, element);
    const auto bytes = checked_mul(tensor.elements, element);
    if (!begin || !bytes || *begin > storage->bytes || *bytes > storage->bytes - *begin) {
      return bad(shown + " lies outside its storage");
    }
    header.tensors.push_back({tensor.name, tensor.dtype, tensor.shape, storage->offset + *begin,
                              storage->offset + *begin + *bytes});
  }
  return header;
}

}  // namespace airllm::store
