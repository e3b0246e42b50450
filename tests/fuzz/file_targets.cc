#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "daemon/options.h"
#include "engine/model/architecture.h"
#include "engine/model/description.h"
#include "engine/model/stages.h"
#include "engine/store/manifest.h"
#include "engine/store/packed.h"
#include "engine/store/pickle.h"
#include "engine/store/safetensors.h"
#include "engine/store/shard_index.h"
#include "engine/store/shard_layout.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/template_input.h"
#include "engine/tokenizer/tiktoken.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/store/sample_manifest.h"
#include "tests/fuzz/targets.h"

namespace airllm::fuzz {
namespace {

// ---- airllmd.conf ------------------------------------------------------------------------------

bool run_settings(std::string_view input) {
  daemon::Options options;
  const Status status = daemon::apply_config(input, "f.conf", options);
  AIRLLM_CHECK(status || status.error().code == ErrorCode::kConfig);
  AIRLLM_CHECK(status || status.error().message.starts_with("f.conf:"));
  return status.has_value();
}

Target settings() {
  return {"settings",
          run_settings,
          {"# Leave most of the memory to others.\nram = 1.5G\nkv = 256M\nthreads = 4\n",
           "socket = /run/a b#c\r\nstore=/x/../y\nmodel =tiny\nlog-level = debug\n",
           "stop-timeout = 7\nsend-buffer = 2M\n\n  max-connections = 4 \nmax-jobs = 5"}};
}

// ---- safetensors -------------------------------------------------------------------------------

// The input: 8 bytes that say how many bytes of data the file has, then the header's JSON. A header
// that is accepted can be written, and then says the same.
bool run_safetensors(std::string_view input) {
  uint64_t data_bytes = 0;
  if (input.size() < sizeof(data_bytes)) return false;
  std::memcpy(&data_bytes, input.data(), sizeof(data_bytes));
  const auto header =
      store::parse_safetensors_header(input.substr(sizeof(data_bytes)), data_bytes, "f");
  if (!header) {
    AIRLLM_CHECK(header.error().code == ErrorCode::kData);
    return false;
  }
  const std::string text = store::write_safetensors_header(header->metadata, header->tensors, 8);
  const auto again =
      store::parse_safetensors_header(std::string_view(text).substr(8), data_bytes, "again");
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(again->tensors == header->tensors && again->metadata == header->metadata);
  return true;
}

Target safetensors() {
  const std::vector<store::TensorRecord> tensors = {
      {"a.weight", store::Dtype::kBF16, {2, 3}, 0, 12},
      {"b", store::Dtype::kF32, {}, 12, 16},
      {"empty", store::Dtype::kU8, {0, 7}, 16, 16},
      {"c", store::Dtype::kF8E4M3, {5}, 16, 21}};
  const std::string text =
      store::write_safetensors_header({{"format", "pt"}, {"k", "v"}}, tensors, 64);
  const auto bytes = [](uint64_t count) {
    return std::string(reinterpret_cast<const char*>(&count), sizeof(count));
  };
  return {"safetensors", run_safetensors, {bytes(21) + text.substr(8), bytes(0) + "{}"}};
}

// ---- packed weights ----------------------------------------------------------------------------

// A file that is only read.
class TextFile : public store::DiskFile {
 public:
  explicit TextFile(std::string_view text) : text_(text) {}
  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    if (offset_bytes > text_.size() || out.size() > text_.size() - offset_bytes) {
      return Unexpected(ErrorCode::kData, "f: truncated");
    }
    std::memcpy(out.data(), text_.data() + offset_bytes, out.size());
    return {};
  }
  Status write_at(uint64_t, std::span<const std::byte>) override { AIRLLM_CHECK(false); }
  Status sync() override { return {}; }
  Result<uint64_t> size_bytes() const override { return text_.size(); }
  Result<std::string> identity() const override { return std::string(); }
  const std::string& path() const override { return path_; }
  bool is_direct() const override { return false; }

 private:
  std::string_view text_;
  std::string path_ = "f";
};

// The input is a safetensors file. Whatever it makes of "w.weight", [5, 7], can be read.
bool run_packed(std::string_view input) {
  constexpr uint64_t kRows = 5, kColumns = 7;
  store::TensorIndex index{.label = "f", .files = {}, .tensors = {}, .used = {}};
  index.files.push_back(std::make_unique<TextFile>(input));
  const auto header = store::read_safetensors_header(*index.files.front());
  if (!header) return false;
  for (const store::TensorRecord& record : header->tensors) {
    index.tensors[record.name] = {0, header->data_offset + record.begin, record.dtype,
                                  record.shape};
  }
  if (!index.tensors.contains("w.weight")) return false;
  bool is_packed = false;
  using Method = store::Quantization::Method;
  for (const Method method : {Method::kFp8, Method::kBitsandbytes}) {
    store::Quantization quantization;
    quantization.method = method;
    quantization.block = {2, 4};
    const auto found = store::find_packed(quantization, index, "w.weight",
                                          {"w.weight", {kRows, kColumns}, false, {}});
    if (!found) {
      AIRLLM_CHECK(found.error().code == ErrorCode::kData);
      continue;
    }
    if (!*found) continue;
    is_packed = true;
    std::vector<float> out(kRows * kColumns);
    AIRLLM_CHECK((*found)->expand(index.files, 0, out).has_value());
    out.resize(kColumns);
    AIRLLM_CHECK((*found)->expand(index.files, kRows - 1, out).has_value());
  }
  return is_packed;
}

// A file of these, filled with bytes of all kinds; `text` is what "w.weight.quant_state…" says.
std::string packed_file(std::vector<store::TensorRecord> tensors, const std::string& text = "") {
  std::string data;
  for (store::TensorRecord& tensor : tensors) {
    uint64_t bytes = store::dtype_bytes(tensor.dtype);
    for (const uint64_t size : tensor.shape) bytes *= size;
    tensor.begin = data.size();
    tensor.end = tensor.begin + bytes;
    const bool is_text = tensor.name.find("quant_state") != std::string::npos;
    for (uint64_t i = 0; i < bytes && !is_text; ++i) data += static_cast<char>(i * 37 % 64);
    if (tensor.name.ends_with("weight_format")) data.back() = '\0';
    if (is_text) data += text;
  }
  return store::write_safetensors_header({}, tensors, 8) + data;
}

Target packed() {
  using store::Dtype;
  const std::string plain = R"({"blocksize":64,"dtype":"float16","shape":[5,7]})";
  const std::string nested =
      R"({"quant_type":"nf4","blocksize":4,"dtype":"bfloat16","shape":[5,7],)"
      R"("nested_blocksize":8,"nested_dtype":"float32","nested_offset":0.03})";
  return {"packed",
          run_packed,
          {packed_file(
               {{"w.weight", Dtype::kF8E4M3, {5, 7}}, {"w.weight_scale_inv", Dtype::kF32, {3, 2}}}),
           packed_file({{"w.weight", Dtype::kI8, {5, 7}},
                        {"w.SCB", Dtype::kF32, {5}},
                        {"w.weight_format", Dtype::kU8, {}}}),
           packed_file({{"w.weight", Dtype::kU8, {18, 1}},
                        {"w.weight.absmax", Dtype::kF32, {1}},
                        {"w.weight.quant_map", Dtype::kF32, {16}},
                        {"w.weight.quant_state.bitsandbytes__fp4", Dtype::kU8, {plain.size()}}},
                       plain),
           packed_file({{"w.weight", Dtype::kU8, {18, 1}},
                        {"w.weight.absmax", Dtype::kU8, {9}},
                        {"w.weight.nested_absmax", Dtype::kF32, {2}},
                        {"w.weight.nested_quant_map", Dtype::kF32, {256}},
                        {"w.weight.quant_map", Dtype::kF32, {16}},
                        {"w.weight.quant_state.bitsandbytes__nf4", Dtype::kU8, {nested.size()}}},
                       nested)}};
}

// ---- the list of tensors of a PyTorch checkpoint -----------------------------------------------

bool run_pickle(std::string_view input) {
  const auto tensors = store::read_pickled_tensors(input, "p");
  if (!tensors) {
    AIRLLM_CHECK(tensors.error().code == ErrorCode::kData);
    return false;
  }
  for (const store::PickledTensor& tensor : *tensors) {
    uint64_t elements = 1;
    for (const uint64_t size : tensor.shape) elements *= size;
    AIRLLM_CHECK(elements == tensor.elements);
  }
  return true;
}

Target pickle() {
  using namespace std::string_literals;
  return {"pickle",
          run_pickle,
          {"\200\2}q\0X\1\0\0\0wq\1ctorch._utils\n_rebuild_tensor_v2\nq\2((X\7\0\0\0storagectorch\n"
           "FloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\4tQK\0K\2K\2\206K\2K\1\206\211ccollections\n"
           "OrderedDict\n)RtRs}X\t\0\0\0_metadata}sb."s,
           "\200\4\225\0\0\0\0\0\0\0\0}\224(\214\1a\224N\214\1bJ\377\377\377\377u."s}};
}

// ---- manifest.json -----------------------------------------------------------------------------

bool run_manifest(std::string_view input) {
  const auto manifest = store::parse_manifest(input, "m");
  if (!manifest) {
    AIRLLM_CHECK(manifest.error().code == ErrorCode::kData);
    return false;
  }
  const Json json = store::manifest_json(*manifest);
  const auto again = store::parse_manifest(dump_json(json), "again");
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(store::manifest_json(*again) == json);
  manifest->bytes();
  return true;
}

Target manifest() {
  return {"manifest", run_manifest, {dump_json(store::manifest_json(store::sample_manifest()))}};
}

// ---- the index of a stage that is read in place ------------------------------------------------

// A stage with a matrix of two blocks and a vector.
model::StageSpec index_stage() {
  model::StageSpec stage;
  stage.shard_name = "001-layer-000";
  stage.tensors.resize(2);
  stage.tensors[0].name = "a.weight";
  stage.tensors[0].shape = {65, 1024};
  stage.tensors[1].name = "a.bias";
  stage.tensors[1].shape = {65};
  return stage;
}

bool run_index(std::string_view input) {
  const model::StageSpec stage = index_stage();
  const std::vector<store::SourceRecord> sources = {
      {"config.json", 10, 1, "i"}, {"a.safetensors", 1 << 20, 2, "i"}, {"b.bin", 200, 3, "i"}};
  const auto tensors = store::parse_index(input, "i", stage, sources);
  if (!tensors) {
    AIRLLM_CHECK(tensors.error().code == ErrorCode::kData);
    return false;
  }
  for (const store::ShardTensor& tensor : *tensors) {
    const store::SourceRecord& source = sources.at(tensor.file + 1);
    AIRLLM_CHECK(tensor.offset_bytes + tensor.bytes() <= source.bytes);
  }
  const std::string text =
      store::index_text(stage.shard_name, *tensors, {"a.safetensors", "b.bin"});
  const auto again = store::parse_index(text, "again", stage, sources);
  AIRLLM_CHECK(again.has_value());
  AIRLLM_CHECK(store::index_text(stage.shard_name, *again, {"a.safetensors", "b.bin"}) == text);
  return true;
}

Target index() {
  const model::StageSpec stage = index_stage();
  std::vector<store::ShardTensor> tensors;
  for (const model::TensorSpec& spec : stage.tensors) {
    tensors.push_back(store::shard_tensor(spec, kernels::NumberFormat::kBF16));
  }
  tensors[0].offset_bytes = 77;
  tensors[0].block_checksums[1] = 0xfedcba9876543210;
  tensors[1].file = 1;
  return {"index",
          run_index,
          {store::index_text(stage.shard_name, tensors, {"a.safetensors", "b.bin"})}};
}

// ---- config.json -------------------------------------------------------------------------------

bool run_architecture(std::string_view input) {
  if (const auto root = parse_json_object(input, "c")) {
    const auto quantization = store::read_quantization({*root, "c"});
    AIRLLM_CHECK(quantization || quantization.error().code == ErrorCode::kData);
  }
  const auto architecture = model::parse_config(input, "c");
  if (!architecture) {
    AIRLLM_CHECK(architecture.error().code == ErrorCode::kData);
    return false;
  }
  AIRLLM_CHECK(architecture->heads % architecture->kv_heads == 0);
  // What is accepted has stages; those of a few layers show as much as those of thousands.
  if (architecture->layers <= 8 && architecture->router.experts <= 64) {
    const std::vector<model::StageSpec> stages = model::stages(*architecture);
    AIRLLM_CHECK(stages.size() == architecture->layers + 2);
    const model::ParameterCount count = model::count_parameters(*architecture, stages);
    AIRLLM_CHECK(count.active <= count.total);
  }
  for (const model::Rope& rope : architecture->ropes) {
    AIRLLM_CHECK(model::inverse_frequencies(rope, 100).size() == rope.dim / 2);
  }
  return true;
}

Target architecture() {
  return {"architecture",
          run_architecture,
          {R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"num_hidden_layers":2,)"
           R"("hidden_size":64,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,)"
           R"("intermediate_size":96,"vocab_size":300,"max_position_embeddings":128,)"
           R"("rms_norm_eps":1e-5,"rope_theta":10000.0,"tie_word_embeddings":true,)"
           R"("hidden_act":"silu","bos_token_id":1,"eos_token_id":[2,3],"rope_scaling":)"
           R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
           R"("original_max_position_embeddings":64}})",
           R"({"model_type":"deepseek_v3","num_hidden_layers":2,"hidden_size":64,)"
           R"("num_attention_heads":4,"intermediate_size":96,"vocab_size":300,"kv_lora_rank":16,)"
           R"("q_lora_rank":null,"qk_nope_head_dim":8,"qk_rope_head_dim":4,"v_head_dim":8,)"
           R"("n_routed_experts":8,"num_experts_per_tok":2,"moe_intermediate_size":16,)"
           R"("n_shared_experts":1,"n_group":4,"topk_group":2,"first_k_dense_replace":1,)"
           R"("rope_scaling":{"type":"yarn","factor":4.0,"mscale":1.0,"mscale_all_dim":1.0},)"
           R"("quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}})",
           R"({"model_type":"gemma3_text","num_hidden_layers":2,"hidden_size":64,)"
           R"("num_attention_heads":4,"intermediate_size":96,"vocab_size":300,"layer_types":)"
           R"(["sliding_attention","full_attention"],"sliding_window":8,"rope_parameters":)"
           R"({"full_attention":{"rope_type":"linear","factor":8.0},"sliding_attention":{}}})"}};
}

// ---- tokenizer.json ----------------------------------------------------------------------------

std::string streamed(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const auto stream = tokenizer.stream(true);
  std::string text;
  for (const int32_t id : ids) text += stream->push(id);
  return text + stream->finish();
}

// A tokenizer that is accepted encodes or refuses any text, and decodes token by token to the same
// text as all at once.
bool run_tokenizer(std::string_view input) {
  const auto made = tokenizer::Tokenizer::from_json(input, "t");
  if (!made) {
    AIRLLM_CHECK(made.error().code == ErrorCode::kData);
    return false;
  }
  const tokenizer::Tokenizer& tokenizer = **made;
  const std::vector<tokenizer::TextPart> parts = {{"<s>ab  12 ", false},
                                                  {"don't\nÄé 東🗼<s>", true}};
  if (const auto ids = tokenizer.encode(parts, {})) {
    AIRLLM_CHECK(streamed(tokenizer, *ids) == tokenizer.decode(*ids, true));
  }
  const std::vector<int32_t> any = {0, 1, 2, -1, 3, 2147483647, 1, 0};
  AIRLLM_CHECK(streamed(tokenizer, any) == tokenizer.decode(any, true));
  return true;
}

Target tokenizer_file() {
  return {
      "tokenizer",
      run_tokenizer,
      {R"-({"version":"1.0","added_tokens":[{"id":5,"content":"<s>","special":true,)-"
       R"-("single_word":false,"lstrip":false,"rstrip":true,"normalized":false}],)-"
       R"-("normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace",)-"
       R"-("pattern":{"Regex":" {2,}|\\d"},"content":"b"}]},)-"
       R"-("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":)-"
       R"-({"Regex":"[^\\r\\n\\p{L}]?\\p{L}+|\\s+(?!\\S)"},"behavior":"Isolated","invert":false},)-"
       R"-({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},)-"
       R"-("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>",)-"
       R"-("type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":)-"
       R"-({"id":"<s>","ids":[5],"tokens":["<s>"]}}},"decoder":{"type":"ByteLevel"},)-"
       R"-("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ċ":4,"<s>":5},)-"
       R"-("merges":["a b"],"ignore_merges":true}})-",
       R"-({"added_tokens":[{"id":0,"content":"<unk>","special":true}],"normalizer":)-"
       R"-({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace",)-"
       R"-("pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,"decoder":)-"
       R"-({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},)-"
       R"-("content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip",)-"
       R"-("content":" ","start":1,"stop":0}]},"model":{"type":"BPE","unk_token":"<unk>",)-"
       R"-("fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"<0x0A>":1,"▁":2,"a":3,)-"
       R"-("b":4,"ab":5},"merges":[["a","b"]]}})-",
       R"-({"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits",)-"
       R"-("individual_digits":true},{"type":"Metaspace","replacement":"▁",)-"
       R"-("prepend_scheme":"first","split":true}]},"decoder":{"type":"Metaspace",)-"
       R"-("replacement":"▁","prepend_scheme":"first"},"model":{"type":"BPE",)-"
       R"-("vocab":{"a":0,"▁":1,"b":2},"merges":[]}})-"}};
}

// ---- *.tiktoken --------------------------------------------------------------------------------

// The tokens of single bytes, without which no file is accepted.
const std::string& tiktoken_bytes() {
  static const std::string lines = [] {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (unsigned byte = 0; byte < 256; ++byte) {
      out += {kDigits[byte >> 2U], kDigits[(byte & 3U) << 4U], '=', '=', ' '};
      out += std::to_string(byte) + '\n';
    }
    return out;
  }();
  return lines;
}

// The input alone is accepted or refused; behind the bytes it makes a tokenizer that encodes any
// text without loss, or is refused.
bool run_tiktoken(std::string_view input) {
  const auto alone = tokenizer::read_tiktoken_file(input, "t");
  AIRLLM_CHECK(alone || alone.error().code == ErrorCode::kData);
  const auto made =
      tokenizer::load_tiktoken({.tiktoken = tiktoken_bytes() + std::string(input),
                                .tokenizer_config_json = R"({"tokenizer_class": "QWenTokenizer"})"},
                               "t");
  if (!made) {
    AIRLLM_CHECK(made.error().code == ErrorCode::kData);
    return false;
  }
  const tokenizer::Tokenizer& tokenizer = **made;
  const std::vector<tokenizer::TextPart> parts = {{"ab<|im_start|>abcabcaaaaaaaaaaa", false},
                                                  {"  don't\n\u00c4\u00e9 \u6771<|im_end|>", true}};
  const auto ids = tokenizer.encode(parts, {});
  AIRLLM_CHECK(ids.has_value());
  AIRLLM_CHECK(tokenizer.decode(*ids, false) == parts[0].text + parts[1].text);
  AIRLLM_CHECK(streamed(tokenizer, *ids) == tokenizer.decode(*ids, true));
  const std::vector<int32_t> any = {0xE6, 256, 0x9D, -1, 257, 2147483647, 0xFF, 258, 0};
  AIRLLM_CHECK(streamed(tokenizer, any) == tokenizer.decode(any, true));
  return true;
}

Target tiktoken_file() {
  return {"tiktoken",
          run_tiktoken,
          {"", "YWI= 256\nYWJj 257\n", "YWFh 257\nYWE= 256\nID8/IA== 258\n5p0= 259"}};
}

// ---- chat templates ----------------------------------------------------------------------------

bool run_chat_template(std::string_view input) {
  const Json special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto made = tokenizer::ChatTemplate::parse(input, special_tokens, "t");
  if (!made) {
    AIRLLM_CHECK(made.error().code == ErrorCode::kData);
    return false;
  }
  tokenizer::TemplateInput conversation{.add_generation_prompt = true};
  for (const auto& [role, content] : {std::pair{"system", "Be brief."},
                                      {"user", "Hi {{ x }}"},
                                      {"assistant", ""},
                                      {"user", "Ä "}}) {
    conversation.messages.push_back(tokenizer::text_message(role, content));
  }
  return (*made)->render(conversation).has_value();
}

Target chat_template() {
  return {"chat_template",
          run_chat_template,
          {"{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content | trim }}"
           "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
           "{%- if messages[0]['role'] == 'system' -%}{% set s = messages[0].content %}"
           "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
           "{% for m in rest %}{{ loop.index0 % 2 }}{{ m['content'] }}{{ eos_token }}"
           "{% endfor %}"}};
}

}  // namespace

std::vector<Target> file_targets() {
  return {settings(), safetensors(),  packed(),         pickle(),        manifest(),
          index(),    architecture(), tokenizer_file(), tiktoken_file(), chat_template()};
}

}  // namespace airllm::fuzz
