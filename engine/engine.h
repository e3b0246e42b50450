// The inference library's only face: all that the daemon sees.
//
// An Engine owns one store, one weight arena, the KV memory and the engine thread. Every method is
// thread-safe and returns at once; what takes long is a job, which reports through JobEvents.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/duration.h"
#include "base/json_fwd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::engine {

using JobId = uint64_t;

// For tests of the daemon: after so many tiles or reads the engine thread, or one read, hangs for
// ever.
struct DebugHang {
  enum class Where { kEngine, kRead };
  Where where = Where::kEngine;
  uint64_t after = 0;
};

// What computes. kSimulated: a device with memory of its own, for tests: host memory of vram_bytes,
// copies at bus_bytes_per_second, the CPU's kernels.
enum class DeviceKind { kCpu, kSimulated };

// Holds memory for the process after this one, such as systemd's file descriptor store. Outlives
// the engine. Thread-safe.
class MemoryStore {
 public:
  struct Entry {
    std::string name;
    UniqueFd fd;
  };

  virtual ~MemoryStore() = default;
  // What processes before have left, once; not to be trusted.
  virtual std::vector<Entry> take() = 0;
  // Holds a duplicate of `fd` from now on. `name` is up to 255 characters of ASCII that can be
  // seen, without ':'. Returns at once.
  virtual void keep(const std::string& name, int fd) = 0;
  // Holds nothing of that name any more.
  virtual void forget(const std::string& name) = 0;
};

// How weights come from disk. kAuto: by io_uring where the system allows it, else as kThreads.
enum class WeightReader { kAuto, kUring, kThreads };

struct EngineOptions {
  std::string store_dir;  // holds models/, users/ and incoming/
  std::optional<uint64_t>
      ram_bytes;  // ring, pinned tiles, activations, logits; unset: from what is free
  std::optional<uint64_t> kv_bytes;  // keys and values of all jobs; unset: from what is free
  unsigned threads = 0;              // 0: one per core this process may use
  DeviceKind device = DeviceKind::kCpu;
  uint64_t vram_bytes = 0;            // of a device with memory of its own
  uint64_t bus_bytes_per_second = 0;  // 0: as fast as memory can be copied
  bool guards_device = false;         // for tests: as in stream::SimulatedDeviceOptions
  WeightReader reader = WeightReader::kAuto;
  bool direct_io = true;    // weights past the page cache, where the file system allows it
  uint64_t max_jobs = 64;   // running and queued; one more is refused (kTemporary)
  uint64_t max_splits = 4;  // splits, verifications and benches at once; one more is kTemporary
  // What the models and unfinished splits of a user may take together; unset: half of the store's
  // file system. Splits say whether it counts for them.
  std::optional<uint64_t> store_quota_bytes;

  // What one user may take. Unset: all there is.
  std::optional<uint64_t> max_jobs_per_user;
  std::optional<uint64_t> max_prompts_per_user_bytes;
  // A user's jobs beyond this wait for each other.
  std::optional<uint64_t> kv_per_user_bytes;

  uint64_t max_prompt_bytes = uint64_t{8} << 20;    // of one request; a longer one is kUsage
  uint64_t max_prompts_bytes = uint64_t{64} << 20;  // of all jobs; more is kTemporary
  // Prompt tokens times log-probabilities for each, of one job; more is kUsage.
  uint64_t max_logprobs = uint64_t{1} << 28;
  // How long a job pauses for a receiver that takes nothing before it fails (kTemporary).
  std::chrono::milliseconds pause_timeout{10000};
  // A read that does not come back for so long fails its job; the engine goes on without it.
  std::chrono::milliseconds read_timeout{120000};

  // A model that no job has used for so long gives its memory back, unless its last job said
  // another time, or it is one of the shared models of `keep`, which also make no room for others.
  std::chrono::milliseconds keep_alive = kForever;
  std::vector<std::string> keep;

  // Where weights in memory outlast the process, but for a model that leaves memory; may be null.
  MemoryStore* memory_store = nullptr;

  // Called by the engine thread as it goes on, and by nothing else: after each tile and each other
  // piece of work, while it waits for a read, and when idle at least every `alive_interval`. So it
  // stays away only when the thread has stopped. Must return at once; may be empty.
  std::function<void()> on_alive;
  std::chrono::milliseconds alive_interval{1000};
  std::optional<DebugHang> debug_hang;
  // Called by open() as it goes through the store; may be empty.
  std::function<void()> on_opening;
};

// ---- models and those who see them -------------------------------------------------------------

// A model of the store. The shared ones are for everybody; beside them each user may have private
// ones, so two models of one name are told apart by who holds them.
struct ModelRef {
  ModelRef() = default;
  // A name alone is the shared model's.
  ModelRef(std::string model_name, std::optional<uid_t> private_to = std::nullopt)  // NOLINT
      : name(std::move(model_name)), holder(private_to) {}
  ModelRef(const char* model_name) : name(model_name) {}  // NOLINT

  std::string name;
  std::optional<uid_t> holder;  // the only user who sees it; unset: shared

  auto operator<=>(const ModelRef&) const = default;
};

// Through whose eyes the store is looked at: the shared models and this user's own.
struct Viewer {
  std::optional<uid_t> user;  // unset: only the shared ones
  bool sees_all = false;      // everybody's

  bool sees(const ModelRef& model) const {
    return !model.holder || sees_all || model.holder == user;
  }
};

struct FoundModel {
  ModelRef model;
  uid_t owner = 0;  // who made it; models without a record belong to the daemon's own user
};

// ---- generate ----------------------------------------------------------------------------------

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Unset options come from the model's generation_config.json, else the defaults named here.
struct SamplingOptions {
  std::optional<double> temperature;         // 0: greedy (the default)
  std::optional<int64_t> top_k;              // 0: off
  std::optional<double> top_p;               // 1: off
  std::optional<double> min_p;               // 0: off
  std::optional<double> repetition_penalty;  // 1: off
  std::optional<uint64_t> seed;              // unset: random
};

// Opens the files of a model that is read in place and that the daemon may not open itself, with
// the rights of the model's owner. Called from a worker thread, and may block; ends with kCancelled
// when the peer is gone.
class OwnerFiles {
 public:
  virtual ~OwnerFiles() = default;
  // As SourceDirectory::open(), of the folder `directory`.
  virtual Result<std::vector<UniqueFd>> open_in(const std::string& directory,
                                                std::span<const std::string> names) = 0;
};

struct GenerateRequest {
  ModelRef model;
  // Whose job it is. Nothing that is derived from a prompt may ever be used for another user's.
  uid_t user = 0;
  // Exactly one of the three says what the prompt is.
  std::vector<ChatMessage> messages;               // through the model's chat template
  std::optional<std::string> raw_text;             // no template; special tokens are recognised
  std::optional<std::vector<int32_t>> prompt_ids;  // exactly these, nothing added
  bool special = false;  // added tokens are recognised in the messages as well
  SamplingOptions sampling;
  std::optional<uint64_t> max_tokens;  // unset: until the end token or the context is full
  std::vector<std::string> stop;       // the text ends before the first of these
  bool ignore_eos = false;
  uint64_t logprobs = 0;         // how many per generated token; capped at the vocabulary
  uint64_t prompt_logprobs = 0;  // how many per prompt token
  // How long the model keeps its memory from the job's end on; unset: as the engine's options say.
  std::optional<std::chrono::milliseconds> keep_alive;
  bool profile = false;                               // on_profile() tells where the time goes
  std::shared_ptr<OwnerFiles> owner_files = nullptr;  // unset: not the owner, or cannot
};

enum class FinishReason { kStop, kStopString, kLength, kContext, kCancelled };
// "stop", "stop_string", "length", "context", "cancelled".
const char* finish_reason_name(FinishReason reason);

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0;  // natural logarithm, of the unmodified logits' softmax
};

struct GenerateAccepted {
  JobId job = 0;
  std::string model;
  uint64_t prompt_tokens = 0;
  uint64_t seed = 0;
  SamplingOptions options;             // every field set: what is used
  std::optional<uint64_t> max_tokens;  // unset: no limit but the context
};

// One generated token, or a last piece of text. `text` is whole UTF-8 characters and may be empty
// (a token that ends inside a character, or text held back for a stop string).
struct GeneratedToken {
  std::optional<int32_t> id;
  std::string text;
  std::vector<TokenLogprob> logprobs;  // descending; empty when not asked for
};

struct GenerateResult {
  FinishReason finish_reason = FinishReason::kStop;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  // Milliseconds since acceptance.
  double queued_ms = 0;
  double first_token_ms = 0;
  double total_ms = 0;
  // Of all sweeps that this job was part of, undivided.
  uint64_t sweeps = 0;
  uint64_t read_bytes = 0;   // weights read from disk
  uint64_t cache_bytes = 0;  // weights that lay in RAM already
};

// What took a while in a sweep that carried the job.
struct ProfileEvent {
  enum class Kind {
    kSweep,   // weights went through the batch, from the first stage to the last
    kStage,   // one of its stages
    kWait,    // the engine thread waited for reading
    kRead,    // a reader read, and checked what it read
    kCopy,    // weights were copied to the device's own memory
    kSample,  // a token was chosen
  };
  Kind kind = Kind::kSweep;
  uint64_t thread = 0;   // 0: the engine thread; else the number of a reader, or of the copies
  int64_t begin_ns = 0;  // since acceptance; reading ahead may have begun before
  uint64_t duration_ns = 0;
  // Of kStage: "layer 3". Of kRead, kCopy: the shard; empty, with offset 0, where that would tell
  // what other users' rows hold.
  std::string name = {};
  uint64_t offset_bytes = 0;  // of kRead, in the shard's file
  uint64_t read_bytes =
      0;  // of kRead, kCopy: its length; of kSweep and kStage as in GenerateResult
  uint64_t cache_bytes = 0;  // likewise
  uint64_t rows = 0;         // of kSweep: the job's own
  uint64_t other_rows = 0;   // of kSweep: of all other jobs
};

// ---- bench -------------------------------------------------------------------------------------

inline constexpr uint64_t kDefaultBenchSweeps = 7;
inline constexpr uint64_t kMaxBenchSweeps = 1000;  // and rounds

struct BenchRequest {
  ModelRef model;
  uid_t user = 0;
  uint64_t sweeps = kDefaultBenchSweeps;              // that count, at least 1
  std::shared_ptr<OwnerFiles> owner_files = nullptr;  // as for generate
};

inline constexpr uint64_t kDefaultBenchRounds = 7;

struct KernelBenchRequest {
  uid_t user = 0;
  uint64_t rounds = kDefaultBenchRounds;  // at least 1
};

// ---- text without weights ----------------------------------------------------------------------

// The ids of a text; the job's result is {"model","count"}.
struct TokenizeRequest {
  std::string text;          // UTF-8
  bool special = false;      // added tokens are recognised in it
  bool add_special = true;   // with what the tokenizer adds to a text, such as BOS
  bool counts_only = false;  // on_tokens() is not called
  bool with_pieces = false;  // on_tokens() gets the tokens' texts, too
};

// The text of ids, which must be in the model's vocabulary; the result is {"model"}.
struct DetokenizeRequest {
  std::vector<int32_t> ids;
  bool skip_special = false;  // special tokens are left out
};

// The text that the model's chat template makes of a conversation; the result is {"model"}.
struct TemplateRequest {
  std::string input_json;             // see tokenizer::parse_template_input()
  bool add_generation_prompt = true;  // unless the input says it itself
};

using TextWork = std::variant<TokenizeRequest, DetokenizeRequest, TemplateRequest>;

struct TextRequest {
  ModelRef model;
  uid_t user = 0;
  TextWork work;
};

// The job's kind.
inline const char* kind_of(const TextRequest& request) {
  constexpr std::array<const char*, std::variant_size_v<TextWork>> kKinds = {
      "tokenize", "detokenize", "template"};
  return kKinds[request.work.index()];
}

// ---- events ------------------------------------------------------------------------------------

struct Progress {
  std::string stage;  // "prefill", "load", "split", "verify", "check", "bench"
  uint64_t done = 0;
  uint64_t total = 0;  // 0: unknown
  std::string unit;    // "tokens", "bytes" or "sweeps"
};

// What a job reports. Called from engine threads, in order, never two at once for one job; must
// not block. After on_done or on_error nothing more is called and the object is released.
class JobEvents {
 public:
  static constexpr uint64_t kUnlimitedRoom = ~uint64_t{0};
  virtual ~JobEvents() = default;
  virtual void on_accepted(const GenerateAccepted&) {}
  virtual void on_progress(const Progress&) {}
  // The distribution after prompt token `position` (0-based), descending.
  virtual void on_prompt_logprobs(uint64_t /*position*/, std::span<const TokenLogprob>) {}
  virtual void on_token(const GeneratedToken&) {}
  // Some hundred events at most, in no order; `lost` have been left out so far because there were
  // too many, or no room for them.
  virtual void on_profile(std::span<const ProfileEvent> /*events*/, uint64_t /*lost*/) {}
  // Ids of a text, in order; `pieces` are their tokens' texts when these are asked for, else empty.
  virtual void on_tokens(std::span<const int32_t> /*ids*/,
                         std::span<const std::string> /*pieces*/) {}
  // Text that ids or a conversation make, in order; whole UTF-8 characters.
  virtual void on_text(std::string_view /*text*/) {}
  virtual void on_generated(const GenerateResult&) {}  // the end of a generate job
  virtual void on_done(const Json& /*result*/) {}      // the end of any other job
  virtual void on_error(const Error&) {}               // the end of a job that failed
  // How many bytes the receiver takes now, of log-probabilities, of a profile or of a text job's
  // results. A generate or text job whose receiver takes none pauses until it does, and fails when
  // that takes too long; the others go on.
  virtual uint64_t room_bytes() const { return kUnlimitedRoom; }
};

// ---- split -------------------------------------------------------------------------------------

// Opens files of the directory that a model is made from, by their plain names. Called from the
// job's own worker thread, and may block; open() ends with kCancelled when the peer is gone.
class SourceDirectory {
 public:
  virtual ~SourceDirectory() = default;
  // One descriptor per name, in order; a file that does not exist is an invalid UniqueFd. Any other
  // trouble is an error. At most 64 names.
  virtual Result<std::vector<UniqueFd>> open(std::span<const std::string> names) = 0;
  // The names of the files in the directory's kChatTemplatesFolder that end with ".jinja", which
  // open() takes with that folder and a slash in front. Not to be trusted.
  virtual std::vector<std::string> chat_templates() const { return {}; }
};

inline constexpr const char* kChatTemplatesFolder = "additional_chat_templates";
inline constexpr size_t kMaxChatTemplates = 32;

// Of the weights that a split reads, compresses and writes at a time.
inline constexpr uint64_t kSplitMemoryBytes = uint64_t{40} << 20;
inline constexpr uint64_t kLeastSplitMemoryBytes = uint64_t{24} << 20;

struct SplitRequest {
  std::string name;          // the store model's name
  std::string source_label;  // the directory as the user wrote it, for messages and the manifest
  std::shared_ptr<SourceDirectory> source;
  // Instead of `source`: the whole model of the store that it is made of, which has its weights as
  // they came. Without in_place.
  std::optional<ModelRef> from = std::nullopt;
  // Unset: the daemon's own user, whose models are shared at once. The models of others are private
  // until they share them.
  std::optional<uid_t> owner = std::nullopt;
  // How the weights are stored: "WEIGHTS" or "WEIGHTS,ENDS" of the layers and of embedding and
  // head, each "q8", "q4", "nf4", "fp8" or "keep", and more behind it (docs/number-formats.md).
  // Empty: all as they came.
  std::string format = {};
  // Weights that are infinite or NaN are kept; without it the first tensor that has one ends the
  // split.
  bool allows_nonfinite = false;
  uint64_t memory_bytes = kSplitMemoryBytes;
  bool share = false;      // share it when it is whole
  bool has_quota = false;  // whether the owner's models are limited
  // The source's real path: the weights are to be read there in place, and only indexed.
  std::optional<std::string> in_place = std::nullopt;
  // Nothing is written: the job's result says what a split would take, {"name","needs_bytes",
  // "source_bytes"}.
  bool only_plan = false;
};

// ---- the engine --------------------------------------------------------------------------------

// A row of `airllm ps`.
struct JobInfo {
  JobId job = 0;
  std::string kind;   // "generate", "tokenize", "detokenize", "template", "split", "verify",
                      // "measure", "bench", "stop"
  uid_t user = 0;     // whose job it is
  ModelRef model;     // no name: of none
  std::string state;  // "queued", "prefill", "decode", "running"
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t done = 0;  // progress in `unit`
  uint64_t total = 0;
  std::string unit;
  double age_seconds = 0;
};

// Whether the job reads or writes all of a model: these are few at a time.
inline bool is_store_job(const JobInfo& info) {
  return info.kind == "split" || info.kind == "verify" || info.kind == "measure" ||
         info.kind == "bench";
}

// Whether the job needs the model's weights in memory.
inline bool uses_weights(const JobInfo& info) {
  return info.kind == "generate" || info.kind == "bench";
}

// What a stopping daemon says to new jobs and to those that it ends.
inline Error stopping_error() {
  return {ErrorCode::kUnavailable, "the daemon is being stopped or restarted, ask again",
          "repeat the command when it runs again"};
}

class Engine {
 public:
  // Opens (or makes) the store, cleans what a crash left that cannot be resumed, starts the engine
  // thread. Fails when the store is locked by another process (kTemporary, naming its pid).
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);
  virtual ~Engine() = default;  // cancels all jobs and joins all threads

  // Jobs. An error is returned when the job cannot even be queued (unknown model, too many jobs);
  // then `events` is never called. Otherwise it ends with exactly one on_generated, on_done or
  // on_error.
  virtual Result<JobId> generate(GenerateRequest request, std::shared_ptr<JobEvents> events) = 0;
  // With a model's tokenizer or chat template alone: no weight is read.
  virtual Result<JobId> run_text(TextRequest request, std::shared_ptr<JobEvents> events) = 0;
  virtual Result<JobId> split(SplitRequest request, std::shared_ptr<JobEvents> events) = 0;
  // `owner_files` may be null.
  virtual Result<JobId> verify(const ModelRef& model, uid_t user, std::shared_ptr<JobEvents> events,
                               std::shared_ptr<OwnerFiles> owner_files) = 0;

  // Gives the memory of a model that no generate or bench job uses back, at once, also while
  // another model runs: {"name","was_in_memory","freed_bytes"}. One that is in use is kTemporary,
  // with its users.
  virtual Result<JobId> stop(const ModelRef& model, uid_t user,
                             std::shared_ptr<JobEvents> events) = 0;

  // Reads from the store for a second at most: {"path","bytes","seconds","direct"}; not "direct"
  // when the page cache may have answered.
  virtual Result<JobId> measure_disk(uid_t user, std::shared_ptr<JobEvents> events) = 0;

  // Sweeps of one sequence that decodes, each followed by what disk and memory can do at most: the
  // result is that of `airllm bench stream` (airllm(1)). Benches run one after the other.
  virtual Result<JobId> bench_stream(BenchRequest request, std::shared_ptr<JobEvents> events) = 0;
  // The operations of the processor's backend, beside the limits of memory and arithmetic: the
  // result is that of `airllm bench kernels`. kUnavailable where a device of its own computes.
  virtual Result<JobId> bench_kernels(KernelBenchRequest request,
                                      std::shared_ptr<JobEvents> events) = 0;

  // Honoured within one tile. The job ends with finish reason kCancelled (generate) or an error
  // kCancelled (others). An unknown job is a kNoInput error.
  virtual Status cancel(JobId job) = 0;

  // The model that `viewer` means by `name`: one's own before the shared one, and then, for one who
  // sees all, another's if only one user has it (kUsage when several do). With `unfinished`,
  // interrupted splits count, too. What is not there and what the viewer does not see is the same
  // kNoInput error, with near names that the viewer sees in the remedy.
  virtual Result<FoundModel> find(const std::string& name, const Viewer& viewer,
                                  bool unfinished = false) = 0;
  // {"name","complete","bundled","owner","shared","bytes","elsewhere_bytes","in_place","created",
  // "family","dtype","layers","parameters","source"} each, of the models that `viewer` sees, and
  // "problem" for one that cannot be read. A store that cannot be read is an error.
  virtual Result<Json> list(const Viewer& viewer) = 0;
  // All that is known of one model. Unknown or unfinished: kNoInput.
  virtual Result<Json> show(const ModelRef& model) = 0;
  // Removes the model; one that jobs use is kTemporary.
  virtual Status remove(const ModelRef& model) = 0;
  // Makes a private model everybody's, under its name; a shared one stays as it is. kCannotCreate
  // when a shared model has the name, kTemporary while jobs use the model.
  virtual Status share(const ModelRef& model) = 0;
  virtual std::vector<JobInfo> jobs() = 0;
  // {"device","cpu","cpu_reason","threads","ram_bytes","ram_used_bytes","kv_bytes","kv_used_bytes",
  //  "vram_bytes","vram_used_bytes","vram_peak_bytes","reader","models":[{"name","resident_bytes",
  //  "ram_bytes","vram_bytes","bytes","streams","reader","direct","locked_bytes","huge_pages",
  //  "experts","in_use","kept","expires_seconds"}]}, of the models those that `viewer` sees. What
  //  is of VRAM is null where the device computes in RAM. expires_seconds tells how long they keep
  //  their memory if no job comes, from the end of the jobs on that use them; null: for ever.
  //  experts is null for a dense model, else
  //  {"count","slots","resident_bytes","hits","misses","read_bytes", "saved_bytes"}, the last four
  //  since the model came into memory, or got another plan under memory pressure.
  virtual Json status(const Viewer& viewer) = 0;

  // No new jobs from now on (kUnavailable).
  virtual void close_admission() = 0;
  // Takes over what can change while the engine runs: limits, timeouts, and what keeps models.
  virtual void apply(const EngineOptions& options) = 0;
};

}  // namespace airllm::engine
