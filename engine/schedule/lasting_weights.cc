#include "engine/schedule/lasting_weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "base/units.h"
#include "engine/store/hash.h"
#include "engine/store/names.h"
#include "engine/store/strict_json.h"

namespace airllm::schedule {
namespace {

constexpr const char* kFormat = "airllm-weights";
// Counts up with each change of what the memory, or its last page, means.
constexpr uint64_t kVersion = 1;
constexpr const char* kNamePrefix = "airllm-weights-";
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

using Page = std::array<char, kPageBytes>;

// Of numbers and texts, so that no two sequences of them are alike.
class Fingerprint {
 public:
  void add(uint64_t number) { hasher_.update(std::as_bytes(std::span(&number, 1))); }
  void add(std::span<const uint64_t> numbers) {
    add(numbers.size());
    hasher_.update(std::as_bytes(numbers));
  }
  void add(const std::string& text) {
    add(text.size());
    hasher_.update(text);
  }
  uint64_t digest() const { return hasher_.digest(); }

 private:
  store::Hasher hasher_;
};

void add_weights(Fingerprint& out, std::span<const store::Shard> shards) {
  for (const store::Shard& shard : shards) {
    out.add(shard.tensors.size());
    for (const store::ShardTensor& tensor : shard.tensors) {
      out.add(tensor.name);
      for (const uint64_t number :
           {static_cast<uint64_t>(tensor.format), uint64_t{tensor.file}, tensor.offset_bytes,
            tensor.rows, tensor.row_bytes, tensor.rows_per_block}) {
        out.add(number);
      }
      out.add(tensor.block_checksums);
    }
  }
}

void add_places(Fingerprint& out, const stream::Plan& plan) {
  out.add(plan.lasting_bytes());
  out.add(plan.embedding_slot_bytes);
  out.add(plan.embedding_blocks);
  for (const size_t first : plan.first_embedding_block) out.add(first);
  for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
    if (!plan.lasts(i)) continue;
    const stream::Tile& tile = plan.list.tiles[i];
    for (const uint64_t number :
         {uint64_t{tile.shard}, uint64_t{tile.tensor}, tile.first_block, tile.blocks,
          tile.data_offset, plan.pinned_offset[i] - plan.lasting_offset()}) {
      out.add(number);
    }
  }
}

Json info_json(const LastingInfo& info) {
  return {{"format", kFormat},
          {"version", kVersion},
          {"model", info.model.name},
          {"holder", info.model.holder ? Json(*info.model.holder) : Json()},
          {"plan_bytes", info.plan_bytes},
          {"layout", store::hash_text(info.layout)},
          {"sweep_bytes", info.sweep_bytes},
          {"streams", info.streams},
          {"ram_bytes", info.defaults.ram_bytes},
          {"kv_bytes", info.defaults.kv_bytes}};
}

Result<engine::ModelRef> parse_model(const store::StrictObject& object) {
  AIRLLM_TRY(std::string name, object.text("model"));
  if (!store::is_valid_model_name(name)) return object.bad("no name of a model");
  if (object.at("holder").is_null()) return engine::ModelRef(std::move(name));
  AIRLLM_TRY(const uint64_t holder, object.number("holder"));
  if (!std::in_range<uid_t>(holder)) return object.bad("holder is no user");
  return engine::ModelRef(std::move(name), static_cast<uid_t>(holder));
}

Result<LastingInfo> parse_info(const std::string& text, const std::string& what) {
  AIRLLM_TRY(const Json json, parse_json_object(text, what));
  const store::StrictObject object(json, what);
  AIRLLM_TRY_VOID(
      object.has_exactly({"format", "version", "model", "holder", "plan_bytes", "layout",
                          "sweep_bytes", "streams", "ram_bytes", "kv_bytes"}));
  AIRLLM_TRY(const std::string format, object.text("format"));
  AIRLLM_TRY(const uint64_t version, object.number("version"));
  if (format != kFormat || version != kVersion) return object.bad("another version");
  LastingInfo info;
  AIRLLM_TRY(info.model, parse_model(object));
  AIRLLM_TRY(info.plan_bytes, object.number("plan_bytes"));
  AIRLLM_TRY(info.layout, object.hash("layout"));
  AIRLLM_TRY(info.sweep_bytes, object.number("sweep_bytes"));
  AIRLLM_TRY(info.streams, object.flag("streams"));
  AIRLLM_TRY(info.defaults.ram_bytes, object.number("ram_bytes"));
  AIRLLM_TRY(info.defaults.kv_bytes, object.number("kv_bytes"));
  return info;
}

// The file's size, when it is memory that stays as long as it is.
Result<uint64_t> sealed_size(int fd, const std::string& what) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  struct stat info {};
  if (seals < 0 || (seals & kSeals) != kSeals || ::fstat(fd, &info) != 0) {
    return Unexpected(ErrorCode::kData, what + " is no sealed memory");
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size < kPageBytes || size % kPageBytes != 0) {
    return Unexpected(ErrorCode::kData, what + " has " + std::to_string(size) + " bytes");
  }
  return size;
}

std::string name_of(const LastingInfo& info) { return kNamePrefix + store::hash_text(info.layout); }

// Of a memfd; nothing else becomes empty.
void empty_memory(int fd) {
  struct stat info {};
  if (::fcntl(fd, F_GET_SEALS) < 0 || ::fstat(fd, &info) != 0 || info.st_size == 0) return;
  ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, info.st_size);
}

}  // namespace

uint64_t layout_hash(const LoadedModel& model, const stream::Plan& plan) {
  Fingerprint out;
  out.add(kVersion);
  out.add(model.ref().name);
  out.add(model.ref().holder ? uint64_t{*model.ref().holder} : ~uint64_t{0});
  add_weights(out, model.stored.shards);
  add_places(out, plan);
  return out.digest();
}

Result<LastingWeights> LastingWeights::create(uint64_t bytes, LastingInfo info) {
  const std::string what = "cannot take " + format_size(bytes) + " of memory for weights";
  UniqueFd fd(::memfd_create("airllm-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(bytes + kPageBytes)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) {
    return Unexpected(errno_error(what, errno, "give a smaller --ram"));
  }
  const std::string text = dump_json(info_json(info));
  AIRLLM_CHECK(text.size() <= kPageBytes);
  const ssize_t written = ::pwrite(fd.get(), text.data(), text.size(), static_cast<off_t>(bytes));
  if (written != static_cast<ssize_t>(text.size())) {
    return Unexpected(errno_error(what, errno, "give a smaller --ram"));
  }
  return LastingWeights(std::move(fd), bytes, std::move(info));
}

Result<LastingWeights> LastingWeights::receive(engine::MemoryStore::Entry entry) {
  Result<LastingWeights> weights = read(entry);
  if (!weights && entry.name.starts_with(kNamePrefix)) empty_memory(entry.fd.get());
  return weights;
}

Result<LastingWeights> LastingWeights::read(engine::MemoryStore::Entry& entry) {
  const std::string what = "what the service manager holds as " + entry.name;
  AIRLLM_TRY(const uint64_t size, sealed_size(entry.fd.get(), what));
  const uint64_t bytes = size - kPageBytes;
  Page page{};
  if (::pread(entry.fd.get(), page.data(), page.size(), static_cast<off_t>(bytes)) !=
      static_cast<ssize_t>(page.size())) {
    return Unexpected(errno_error(what, errno));
  }
  const std::string text(page.data(), ::strnlen(page.data(), page.size()));
  AIRLLM_TRY(LastingInfo info, parse_info(text, what));
  if (name_of(info) != entry.name) {
    return Unexpected(ErrorCode::kData, what + " has the name of another");
  }
  return LastingWeights(std::move(entry.fd), bytes, std::move(info));
}

std::string LastingWeights::name() const { return name_of(info_); }

uint64_t LastingWeights::allocated_bytes() const {
  constexpr uint64_t kStatBlockBytes = 512;
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) return 0;
  return static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
}

void LastingWeights::discard() { empty_memory(fd_.get()); }

}  // namespace airllm::schedule
