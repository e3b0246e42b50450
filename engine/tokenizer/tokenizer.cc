#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "engine/text/marked_text.h"
#include "engine/tokenizer/components.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/join_parts.h"
#include "engine/tokenizer/tokenizer_file.h"

namespace airllm::tokenizer {
namespace {

class HubTokenizer : public Tokenizer {
 public:
  explicit HubTokenizer(Components parts) : parts_(std::move(parts)) {}

  Result<std::vector<int32_t>> encode(std::span<const TextPart> parts,
                                      const EncodeOptions& options) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  size_t vocabulary_size() const override {
    return std::max(parts_.model->vocabulary().id_limit(),
                    static_cast<size_t>(parts_.added.largest_id() + 1));
  }
  std::optional<int32_t> token_id(std::string_view token) const override {
    if (const AddedToken* added = parts_.added.find(token)) return added->id;
    return parts_.model->vocabulary().id(token);
  }
  std::optional<std::string> token_text(int32_t id) const override {
    const auto text = visible_text(id, false);
    return text.has_value() ? std::optional<std::string>(*text) : std::nullopt;
  }
  std::unique_ptr<Stream> stream(bool skip_special) const override;

  // The text of the token before decoding; nothing when it is left out.
  std::optional<std::string_view> visible_text(int32_t id, bool skip_special) const {
    if (const AddedToken* added = parts_.added.find(id)) {
      if (skip_special && added->special) return std::nullopt;
      return added->text;
    }
    return parts_.model->vocabulary().text(id);
  }
  const Decoder& decoder() const { return *parts_.decoder; }

 private:
  struct Encoding {
    std::vector<int32_t> ids;
    std::unique_ptr<Model::Encoder> encoder;
  };
  Status encode_raw_text(text::MarkedText text, bool at_start, Encoding& encoding) const;
  Status encode_normalized_text(std::string text, bool at_start, Encoding& encoding) const;

  Components parts_;
};

class HubStream : public Tokenizer::Stream {
 public:
  HubStream(const HubTokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), run_(tokenizer.decoder()), skip_special_(skip_special) {}
  std::string push(int32_t id) override {
    const auto text = tokenizer_.visible_text(id, skip_special_);
    return text.has_value() ? run_.push(*text) : std::string();
  }
  std::string finish() override { return run_.finish(); }

 private:
  const HubTokenizer& tokenizer_;
  Decoder::Run run_;
  bool skip_special_;
};

Result<std::vector<int32_t>> HubTokenizer::encode(std::span<const TextPart> parts,
                                                  const EncodeOptions& options) const {
  AIRLLM_TRY(const text::MarkedText text, join_parts(parts));
  Encoding encoding{{}, parts_.model->encoder()};
  for (const AddedTokens::Section& section : parts_.added.cut_raw(text)) {
    if (section.id >= 0) {
      encoding.ids.push_back(section.id);
    } else {
      AIRLLM_TRY_VOID(
          encode_raw_text(text.substr(section.begin, section.end), section.begin == 0, encoding));
    }
  }
  return parts_.post_processor.apply(std::move(encoding.ids), options.add_special);
}

Status HubTokenizer::encode_raw_text(text::MarkedText text, bool at_start,
                                     Encoding& encoding) const {
  if (parts_.normalizer != nullptr) {
    AIRLLM_TRY(text, parts_.normalizer->apply(std::move(text)));
  }
  AIRLLM_TRY_VOID(check_normalized_size(text.size()));
  if (!parts_.added.has_normalized()) {
    return encode_normalized_text(text.text(), at_start, encoding);
  }
  for (const AddedTokens::Section& section : parts_.added.cut_normalized(text)) {
    if (section.id >= 0) {
      encoding.ids.push_back(section.id);
    } else {
      AIRLLM_TRY_VOID(
          encode_normalized_text(text.text().substr(section.begin, section.end - section.begin),
                                 at_start && section.begin == 0, encoding));
    }
  }
  return {};
}

Status HubTokenizer::encode_normalized_text(std::string text, bool at_start,
                                            Encoding& encoding) const {
  if (text.empty()) return {};
  Words words;
  words.words.push_back({0, static_cast<uint32_t>(text.size()), at_start});
  words.text = std::move(text);
  if (parts_.pre_tokenizer != nullptr) AIRLLM_TRY_VOID(parts_.pre_tokenizer->apply(words));
  return encoding.encoder->encode(words, encoding.ids);
}

std::string HubTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  HubStream run(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += run.push(id);
  text += run.finish();
  return text;
}

std::unique_ptr<Tokenizer::Stream> HubTokenizer::stream(bool skip_special) const {
  return std::make_unique<HubStream>(*this, skip_special);
}

Status check_version(const Fields& fields) {
  AIRLLM_TRY(const std::string version, fields.string_or("version", "1.0"));
  if (version != "1.0") return fields.unknown("version " + version);
  return {};
}

}  // namespace

std::unique_ptr<Tokenizer> assemble(Components parts) {
  return std::make_unique<HubTokenizer>(std::move(parts));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                        std::string_view what) {
  const std::string name(what);
  AIRLLM_TRY(TokenizerFile file, read_tokenizer_file(tokenizer_json, what));
  const Fields fields(file.settings, name);
  AIRLLM_TRY_VOID(check_version(fields));
  AIRLLM_TRY(std::unique_ptr<Model> model, Model::from_file(file, what));
  file.merges = MergeList();

  std::unique_ptr<Normalizer> normalizer;
  if (const Json* json = fields.find("normalizer")) {
    AIRLLM_TRY(normalizer, Normalizer::from_json(*json, name + ": normalizer"));
  }
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  if (const Json* json = fields.find("pre_tokenizer")) {
    AIRLLM_TRY(pre_tokenizer, PreTokenizer::from_json(*json, name + ": pre_tokenizer"));
  }
  AIRLLM_TRY(PostProcessor post_processor,
             PostProcessor::from_json(fields.find("post_processor"), name + ": post_processor"));
  AIRLLM_TRY(std::unique_ptr<Decoder> decoder,
             Decoder::from_json(fields.find("decoder"), name + ": decoder"));
  AIRLLM_TRY(AddedTokens added,
             AddedTokens::from_json(fields.find("added_tokens"), model->vocabulary(),
                                    normalizer.get(), what));
  Components parts{std::move(model),         std::move(added),          std::move(normalizer),
                   std::move(pre_tokenizer), std::move(post_processor), std::move(decoder)};
  return assemble(std::move(parts));
}

}  // namespace airllm::tokenizer
