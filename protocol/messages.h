// The messages between client and daemon, as plain structs. docs/protocol.md is their contract.
//
// Every frame is a msgpack map with a "type". The client sends Hello, Request, Cancel and Files;
// the daemon sends Hello and Event. A key that is unknown is ignored, one that is absent keeps its
// default: that is how both sides may grow.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/descriptor_passing.h"
#include "base/error.h"

namespace airllm::protocol {

inline constexpr uint64_t kProtocolVersion = 1;
// A frame's payload may be at most this long.
inline constexpr uint64_t kMaxFrameBytes = uint64_t{16} << 20;
// And at most this long before a hello.
inline constexpr uint64_t kMaxHelloBytes = uint64_t{64} << 10;
// Descriptors that one message may carry.
inline constexpr size_t kMaxDescriptors = kMaxPassedDescriptors;
// Messages of one conversation, and stop strings of one request.
inline constexpr uint64_t kMaxChatMessages = 65536;
inline constexpr uint64_t kMaxStopStrings = 1024;
inline constexpr uint64_t kMaxChatTemplates = 32;
// Events that one "profile" event holds.
inline constexpr uint64_t kMaxProfileEvents = 4096;

// type "hello": the first message of both sides.
struct Hello {
  uint64_t version = kProtocolVersion;
  std::string program;                // "airllm 0.1.0"
  std::vector<std::string> features;  // names of optional abilities
  uint64_t pid = 0;                   // the daemon's; 0 from a client
};

struct ChatMessage {
  std::string role;
  std::string content;
};

struct SamplingOptions {
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<uint64_t> seed;
};

// method "generate". Exactly one of messages, raw_text and prompt_ids is given.
struct GenerateParams {
  std::string model;  // empty: the daemon's default, else the only model
  std::vector<ChatMessage> messages;
  std::optional<std::string> raw_text;
  std::optional<std::vector<int32_t>> prompt_ids;
  SamplingOptions sampling;
  std::optional<uint64_t> max_tokens;
  std::vector<std::string> stop;
  bool special = false;  // added tokens are recognised in the messages as well
  bool ignore_eos = false;
  uint64_t logprobs = 0;
  uint64_t prompt_logprobs = 0;
  // How long the model keeps its memory when the job has ended; a hundred years or more: for ever.
  std::optional<uint64_t> keep_alive_ms;
  bool profile = false;  // "profile" events tell where the time goes
  // The client answers "open_files" for a model of this user that is read in place.
  bool opens_files = false;
};

// method "tokenize". The ids come in "tokens" events.
struct TokenizeParams {
  std::string model;  // as for generate
  std::string text;
  bool special = false;         // added tokens are recognised in the text
  bool no_add_special = false;  // without what the tokenizer adds to a text, such as BOS
  bool count_only = false;      // no "tokens" events
  bool pieces = false;          // the tokens' texts come beside their ids
};

// method "detokenize". The text comes in "text" events.
struct DetokenizeParams {
  std::string model;  // as for generate
  std::vector<int32_t> ids;
  bool skip_special = false;  // special tokens are left out
};

// method "template". The text comes in "text" events.
struct TemplateParams {
  std::string model;       // as for generate
  std::string input_json;  // a list of messages, or an object with "messages" and further members
  bool no_generation_prompt = false;
};

// method "split". The daemon asks for files by name with events of kind "open_files".
struct SplitParams {
  std::string name;          // empty: made from source_label
  std::string source_label;  // the directory as the user wrote it
  bool share = false;        // share the model when it is whole
  // The files of the directory's "additional_chat_templates/" that end with ".jinja", by their
  // names there. The daemon asks for them with that folder's name in front.
  std::vector<std::string> chat_templates = {};
  // The directory's real path: its weights are to be read there in place, not copied.
  std::optional<std::string> in_place = {};
  bool only_plan = false;        // nothing is made: the result says what it would take
  std::string format = {};       // how the weights are stored, "q4" or "q4,q8"; empty: as they came
  bool allow_nonfinite = false;  // keep weights that are infinite or NaN
  // The store's model that it is made of, instead of a directory: no files are asked for, and there
  // are no chat_templates, no in_place and no source_label.
  std::optional<std::string> from_model = {};
};

// methods "show", "rm", "share", "stop", "verify": a model. "default": sets it, an empty name reads
// it.
struct ModelParams {
  std::string model;  // empty for show and verify: as for generate
};

// method "cancel_job": any job that the caller may cancel, by the number that ps shows.
struct JobParams {
  uint64_t job = 0;
};

// methods without parameters.
struct ListParams {};
struct PsParams {};
struct StatusParams {};
// "doctor": what the daemon sees of its store, its limits and the machine, as checks.
struct DoctorParams {};
// "measure_disk": a job that reads from the store for a second at most.
struct MeasureDiskParams {};
// "bench_stream": a job; the result is JSON as airllm(1) describes it.
struct BenchStreamParams {
  std::string model;         // as for generate
  uint64_t sweeps = 0;       // that count; 0: as many as the daemon likes
  bool opens_files = false;  // as for generate
};
// "bench_kernels": likewise.
struct BenchKernelsParams {
  uint64_t rounds = 0;  // 0: as many as the daemon likes
};
struct DefaultParams {
  std::optional<std::string> model;  // set: change the daemon's default; unset: tell it
};
struct ShowParams : ModelParams {};
struct RemoveParams : ModelParams {};
struct ShareParams : ModelParams {};
struct StopParams : ModelParams {};  // gives the memory of an idle model back
struct VerifyParams : ModelParams {
  bool opens_files = false;  // as for generate
};

// What decoding makes of a method that this version does not know; the daemon answers it with an
// error and the connection lives on. Not to be sent.
struct UnknownMethod {
  std::string method;
};

using Params =
    std::variant<GenerateParams, TokenizeParams, DetokenizeParams, TemplateParams, SplitParams,
                 ListParams, ShowParams, PsParams, RemoveParams, ShareParams, StopParams,
                 VerifyParams, JobParams, StatusParams, DefaultParams, DoctorParams,
                 MeasureDiskParams, BenchStreamParams, BenchKernelsParams, UnknownMethod>;

// type "request": {"type","id","method","params":{...}}.
struct Request {
  uint64_t id = 0;  // chosen by the client, not 0; unique among its running requests
  Params params;
};

// type "cancel": ends the request `id` of this connection.
struct Cancel {
  uint64_t id = 0;
};

// type "files": the answer to open_files, of a split, generate, verify or bench_stream request. The
// message carries one descriptor, in order, for every entry of `names` whose `status` is "ok";
// "missing" has none; anything else is the reason why the file was refused and ends the job.
struct Files {
  uint64_t id = 0;
  std::vector<std::string> names;
  std::vector<std::string> status;
};

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0;
};

// kind "accepted".
struct Accepted {
  uint64_t job = 0;
  std::string model;
  uint64_t prompt_tokens = 0;  // of generate
  uint64_t seed = 0;
  SamplingOptions options;             // all set, for generate
  std::optional<uint64_t> max_tokens;  // unset: no limit but the context
};

// kind "progress".
struct Progress {
  std::string stage;  // "queued", "load", "prefill", "split", "verify", "check", "bench"
  uint64_t done = 0;
  uint64_t total = 0;  // 0: unknown
  std::string unit;    // "tokens", "bytes", "sweeps"
};

// kind "token".
struct Token {
  std::optional<int32_t> token_id;
  std::string text;
  std::vector<TokenLogprob> logprobs;
};

// kind "prompt_logprobs": one position per frame.
struct PromptLogprobs {
  uint64_t position = 0;
  std::vector<TokenLogprob> logprobs;
};

// Something that took a while in a sweep that carried the job.
struct ProfileEvent {
  std::string kind;      // "sweep", "stage", "wait", "read", "copy", "sample"
  uint64_t thread = 0;   // 0: the engine thread; else the number of a reader
  int64_t begin_ns = 0;  // since acceptance; reading ahead may have begun before
  uint64_t duration_ns = 0;
  std::string name;         // of a stage; of the shard that is read, unless that is not told
  uint64_t offset = 0;      // of a read, in the shard's file
  uint64_t read_bytes = 0;  // of a read: its length; of a sweep or stage, as in "generated"
  uint64_t cache_bytes = 0;
  uint64_t rows = 0;        // of a sweep: the job's own
  uint64_t other_rows = 0;  // and those of all other jobs
};

// kind "profile": events in no order.
struct Profile {
  std::vector<ProfileEvent> events;
  uint64_t lost = 0;  // left out so far: too many, or the client was behind
};

// kind "tokens": ids of a tokenize request, in order, some with each event.
struct Tokens {
  std::vector<int32_t> ids;
  std::vector<std::string> pieces;  // as many as ids, or none
};

// kind "text": text of a detokenize or template request, in order. Whole UTF-8 characters.
struct Text {
  std::string text;
};

// kind "open_files".
struct OpenFiles {
  std::vector<std::string> names;  // at most kMaxDescriptors
  std::string directory = {};      // that they lie in; empty: the one that is split
};

// kind "generated": the end of a generate request.
struct Generated {
  std::string finish_reason;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  double queued_ms = 0;
  double first_token_ms = 0;
  double total_ms = 0;
  uint64_t sweeps = 0;
  uint64_t read_bytes = 0;
  uint64_t cache_bytes = 0;
};

// kind "done": the end of every other request. `result` is what --json prints: JSON text, since
// the client hands it through and shows it as a table.
struct Done {
  std::string result_json;
};

// kind "error": the end of a request that failed. With id 0 it ends the connection.
struct Failed {
  Error error;
};

using EventBody = std::variant<Accepted, Progress, Token, PromptLogprobs, Profile, Tokens, Text,
                               OpenFiles, Generated, Done, Failed>;

// type "event": {"type","id","event":kind,"body":{...}}.
struct Event {
  uint64_t id = 0;
  EventBody body;
};

// What may arrive at the daemon, and at the client.
using ClientMessage = std::variant<Hello, Request, Cancel, Files>;
using ServerMessage = std::variant<Hello, Event>;

}  // namespace airllm::protocol
