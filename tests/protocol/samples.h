// One message of every kind, with every field set, for the protocol's tests.
#pragma once

#include <vector>

#include "protocol/fetch_messages.h"
#include "protocol/messages.h"

namespace airllm::protocol {

inline SamplingOptions sample_sampling() {
  return {0.5, 40, 0.9, 0.05, 1.1, 18446744073709551615U};
}

inline std::vector<ClientMessage> sample_client_messages() {
  GenerateParams chat;
  chat.model = "demo";
  chat.messages = {{"system", "Be brief."}, {"user", "Größe? 東京 🗼"}};
  chat.sampling = sample_sampling();
  chat.max_tokens = 100;
  chat.stop = {"\n\n", "END"};
  chat.special = true;
  chat.ignore_eos = true;
  chat.logprobs = 5;
  chat.prompt_logprobs = 32000;
  chat.keep_alive_ms = 1800000;
  chat.profile = true;
  GenerateParams raw;
  raw.raw_text = std::string(70000, 'x');
  GenerateParams ids;
  ids.prompt_ids = std::vector<int32_t>{1, 127, 128, 65536, 2147483647, -1, -2147483648};
  const TokenizeParams tokenize{"demo", "Größe? <s>", true, true, true, true};
  const DetokenizeParams detokenize{"demo", {0, 128, 2147483647, -1}, true};
  const TemplateParams messages{"demo", R"([{"role":"user","content":"Hi"}])", true};
  ShowParams show;
  show.model = "a";
  ShareParams share;
  share.model = "m";
  StopParams stop;
  stop.model = "org/m";
  RemoveParams remove;
  remove.model = "b";
  VerifyParams verify;
  verify.opens_files = true;
  verify.model = "c";
  return {Hello{1, "airllm 0.1.0", {"one", "two"}, 42},
          Request{1, chat},
          Request{2, raw},
          Request{3, ids},
          Request{16, tokenize},
          Request{17, detokenize},
          Request{18, messages},
          Request{4, SplitParams{"name", "~/models/x", true, {"rag.jinja", "tool_use.jinja"}}},
          Request{4, SplitParams{"name", "x", false, {}, "/home/a/models/x", true, "q4,q8", true}},
          Request{4, SplitParams{"x-q4", "", false, {}, {}, false, "q4", false, "x"}},
          Request{5, ListParams{}},
          Request{6, show},
          Request{7, PsParams{}},
          Request{8, remove},
          Request{15, share},
          Request{19, stop},
          Request{9, verify},
          Request{10, JobParams{1ULL << 40}},
          Request{11, StatusParams{}},
          Request{13, DoctorParams{}},
          Request{14, MeasureDiskParams{}},
          Request{20, BenchStreamParams{"demo", 9, true}},
          Request{21, BenchKernelsParams{3}},
          Request{12, DefaultParams{}},
          Request{18446744073709551615U, DefaultParams{""}},
          Cancel{7},
          Files{3, {"config.json", "model.safetensors"}, {"ok", "missing"}}};
}

inline std::vector<ServerMessage> sample_server_messages() {
  Token token{7, "Paris", {{7, -0.25}, {-1, -17.5}}};
  PromptLogprobs positions{3, {}};
  for (int32_t id = 0; id < 300; ++id) positions.logprobs.push_back({id, -0.125 * id});
  const Profile profile{{{"sweep", 0, 12, 1ULL << 40, "", 0, 4096, 8192, 3, 2},
                         {"stage", 0, 13, 1000, "layer 3", 0, 4096, 0, 0, 0},
                         {"wait", 0, 14, 100, "", 0, 0, 0, 0, 0},
                         {"read", 2, -1000, 100000, "004-layer-003", 1ULL << 33, 4096, 0, 0, 0}},
                        17};
  Generated generated{"stop", 10, 20, 1.5, 2.5, 3.5, 7, 1ULL << 50, 1ULL << 51};
  return {Hello{1, "airllmd 0.1.0", {}, 1234},
          Event{1, Accepted{3, "demo", 12, 99, sample_sampling(), 256}},
          Event{1, Progress{"split", 10, 100, "bytes"}},
          Event{1, token},
          Event{1, Token{std::nullopt, "tail", {}}},
          Event{1, positions},
          Event{1, profile},
          Event{1, Tokens{{1, -1, 2147483647}, {"<s>", "", "Größe"}}},
          Event{1, Tokens{{1, 2}, {}}},
          Event{1, Text{"東京 🗼"}},
          Event{1, OpenFiles{{"config.json", "tokenizer.json"}}},
          Event{1, OpenFiles{{"model.safetensors"}, "/home/a/models/x"}},
          Event{1, generated},
          Event{1, Done{R"({"ok":true})"}},
          Event{0, Failed{{ErrorCode::kNoInput, "no model 'x'", "airllm list"}}}};
}

inline std::vector<ToFetch> sample_messages_to_fetch() {
  const Repository from{"https://hub.example/path", "acme/tiny", "refs/pr/1", "hf_token", true};
  const std::string name = "größe/model.safetensors";
  return {Hello{1, "airllmd 0.1.0", {}, 42},
          FetchSettings{},
          FetchSettings{8, 1ULL << 40},
          FetchRequest{1, RepositoryParams{from}},
          FetchRequest{2, ReadParams{from, name, 1ULL << 40, 8, 100000000}},
          FetchRequest{3, ReadParams{from, name, {}, 0, 8}},
          FetchRequest{4, FileParams{from, name, 1ULL << 40, std::string(64, 'a'), "", 1ULL << 26,
                                     1ULL << 30}},
          FetchRequest{18446744073709551615U,
                       FileParams{from, name, 0, "", std::string(40, 'b'), 1 << 20, {}}},
          Grant{4, 1ULL << 33},
          Cancel{7}};
}

inline std::vector<FromFetch> sample_messages_from_fetch() {
  const ListedFiles files{{{"config.json", 17, std::string(40, 'b'), ""},
                           {"a/ü", 1ULL << 40, std::string(40, 'c'), std::string(64, 'd')}}};
  return {Hello{1, "airllm-fetch 0.1.0", {}, 1234},
          FetchEvent{1, files},
          FetchEvent{2, FetchData{1ULL << 40, {std::string("\0\xff any bytes", 12)}}},
          FetchEvent{3, FetchProgress{1ULL << 33, 1ULL << 34}},
          FetchEvent{3, FetchDone{std::string(40, 'e'), 3, 1ULL << 40, 1ULL << 41}},
          FetchEvent{0, FetchFailed{
                            {ErrorCode::kIo, "the disk is full", "free some"}, "disk_full", true}}};
}

}  // namespace airllm::protocol
