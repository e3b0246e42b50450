#include "fetch/listing.h"

#include <unordered_set>
#include <utility>

#include "base/json.h"
#include "fetch/journal.h"
#include "fetch/names.h"
#include "fetch/text.h"

namespace airllm::fetch {
namespace {

Unexpected no_listing(std::string_view what, const std::string& why) {
  return Unexpected(ErrorCode::kData, std::string(what) + ": " + why,
                    "this is no hub that airllm can read; check HF_ENDPOINT");
}

Result<std::string> text_of(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) {
    return Unexpected(ErrorCode::kData, where + " has no \"" + key + "\"");
  }
  return found->get<std::string>();
}

Result<uint64_t> size_of(const Json& object, const std::string& where) {
  const auto found = object.find("size");
  if (found == object.end() || !found->is_number_unsigned()) {
    return Unexpected(ErrorCode::kData, where + " has no \"size\"");
  }
  const auto size = found->get<uint64_t>();
  if (size > kMaxFileBytes) {
    return Unexpected(ErrorCode::kData, where + " has an impossible size: " + std::to_string(size));
  }
  return size;
}

Result<protocol::ListedFile> file_of(const Json& sibling) {
  protocol::ListedFile file;
  if (!sibling.is_object()) return Unexpected(ErrorCode::kData, "a file is no object");
  AIRLLM_TRY(file.name, text_of(sibling, "rfilename", "a file"));
  AIRLLM_TRY_VOID(check_file_name(file.name));
  const std::string where = "the file " + in_quotes(file.name);
  AIRLLM_TRY(file.size, size_of(sibling, where));
  AIRLLM_TRY(file.git_sha1, text_of(sibling, "blobId", where));
  if (!is_hex(file.git_sha1, kSha1Digits)) {
    return Unexpected(ErrorCode::kData, where + " has no right \"blobId\"");
  }
  const auto lfs = sibling.find("lfs");
  if (lfs == sibling.end() || lfs->is_null()) return file;
  if (!lfs->is_object()) return Unexpected(ErrorCode::kData, where + " has a wrong \"lfs\"");
  AIRLLM_TRY(file.sha256, text_of(*lfs, "sha256", where));
  AIRLLM_TRY(const uint64_t size, size_of(*lfs, where));
  if (!is_hex(file.sha256, kSha256Digits) || size != file.size) {
    return Unexpected(ErrorCode::kData, where + " has a wrong \"lfs\"");
  }
  return file;
}

// No name twice, and none a folder of another: on a disk one would take the other's place.
Status check_together(const std::vector<protocol::ListedFile>& files) {
  std::unordered_set<std::string_view> names;
  constexpr const char* kRemedy = "nothing was written; do not trust this repository";
  for (const auto& file : files) {
    if (!names.insert(file.name).second) {
      return Unexpected(ErrorCode::kData, "a file comes twice: " + in_quotes(file.name), kRemedy);
    }
  }
  for (const auto& file : files) {
    const std::string_view name = file.name;
    for (size_t at = name.find('/'); at != std::string_view::npos; at = name.find('/', at + 1)) {
      if (!names.contains(name.substr(0, at))) continue;
      return Unexpected(
          ErrorCode::kData,
          in_quotes(name.substr(0, at)) + " is a file, and the folder of " + in_quotes(name),
          kRemedy);
    }
  }
  return {};
}

}  // namespace

Result<Listing> parse_listing(std::string_view text, std::string_view what) {
  auto parsed = parse_json_object(text, what);
  if (!parsed) return no_listing(what, parsed.error().message);
  Listing listing;
  auto commit = text_of(*parsed, "sha", "the listing");
  if (!commit || !is_hex(*commit, kSha1Digits)) return no_listing(what, "it names no commit");
  listing.commit = std::move(*commit);
  const auto siblings = parsed->find("siblings");
  if (siblings == parsed->end() || !siblings->is_array()) {
    return no_listing(what, "it lists no files");
  }
  if (siblings->size() > kMaxFiles) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": " +
                                            std::to_string(siblings->size()) +
                                            " files, more than the " + std::to_string(kMaxFiles) +
                                            " that a model may have");
  }
  for (const Json& sibling : *siblings) {
    auto file = file_of(sibling);
    if (!file) {
      return Unexpected(ErrorCode::kData, std::string(what) + ": " + file.error().message,
                        file.error().remedy);
    }
    // At most kMaxFiles times kMaxFileBytes.
    listing.size_bytes += file->size;
    listing.files.push_back(std::move(*file));
  }
  if (Status status = check_together(listing.files); !status) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": " + status.error().message,
                      status.error().remedy);
  }
  return listing;
}

}  // namespace airllm::fetch
