// The table of contents of a ZIP archive (PKWARE's APPNOTE 6.3, with ZIP64) whose files are stored
// as they are, as PyTorch writes them. Read strictly, from untrusted files.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::store {

struct ZipEntry {
  uint64_t offset = 0;  // of its bytes, in the archive's file
  uint64_t bytes = 0;
};

struct ZipArchive {
  std::map<std::string, ZipEntry, std::less<>> entries;
  std::string directory;  // the bytes of the table of contents

  const ZipEntry* find(std::string_view name) const;
};

// Whether the file begins as a ZIP archive.
Result<bool> is_zip_archive(const DiskFile& file);
// Errors are kData and name the file: no archive, a compressed or encrypted entry, one that lies
// outside the file, one name twice.
Result<ZipArchive> read_zip_archive(const DiskFile& file);

}  // namespace airllm::store
