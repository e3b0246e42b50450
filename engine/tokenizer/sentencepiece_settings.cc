#include "engine/tokenizer/sentencepiece_settings.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/utf8.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/tokenizer_config.h"

namespace airllm::tokenizer {
namespace {

// Lists of further special tokens: since transformers 5, and before.
constexpr std::string_view kTokenLists[] = {"extra_special_tokens", "additional_special_tokens"};

Result<Json> read_object(const std::optional<std::string>& text, const std::string& what) {
  return text ? parse_json_object(*text, what) : Json::object();
}

class SettingsReader {
 public:
  SettingsReader(const TextFiles& files, const SentencePieceFile& file,
                 const SentencePieceVocabulary& vocabulary, std::string_view where)
      : files_(files), file_(file), vocabulary_(vocabulary), where_(where) {}

  Result<SentencePieceSettings> read() {
    AIRLLM_TRY(config_, read_object(files_.tokenizer_config_json, config_name()));
    AIRLLM_TRY(TokenizerConfig config, read_tokenizer_config(files_, where_));
    const bool has_decoder = config_.contains("added_tokens_decoder");
    if (!has_decoder) {
      AIRLLM_TRY(map_, read_object(files_.special_tokens_map_json, map_name()));
    }
    AIRLLM_TRY_VOID(collect_special(config.special_tokens));
    AIRLLM_TRY_VOID(has_decoder ? add_decoder_tokens() : add_numbered_tokens());
    for (const AddedToken& token : special_) AIRLLM_TRY_VOID(add(token, std::nullopt));
    AIRLLM_TRY_VOID(add_pieces());
    AIRLLM_TRY_VOID(read_frame(config));
    return std::move(out_);
  }

 private:
  std::string config_name() const { return where_ + "/tokenizer_config.json"; }
  std::string map_name() const { return where_ + "/special_tokens_map.json"; }

  // Adds the token unless it is there. A piece of its text gives it its id, else `id` does, else it
  // gets the next one.
  Status add(AddedToken token, std::optional<int32_t> id) {
    if (token.content.empty() || !contents_.insert(token.content).second) return {};
    const std::optional<int32_t> known = vocabulary_.id(token.content);
    token.id = known ? *known : id.value_or(next_id_);
    if (token.id > kMaxTokenId) return Unexpected(ErrorCode::kData, where_ + ": too many tokens");
    if (!ids_.insert(token.id).second) {
      return Unexpected(ErrorCode::kData,
                        where_ + ": the added token '" +
                            escape_for_display(token.content.substr(0, 80), true) + "' has id " +
                            std::to_string(token.id) + ", which another added token has");
    }
    next_id_ = std::max(next_id_, token.id + 1);
    // The pieces of a tokenizer.model lie in normalised text, and added tokens before that.
    token.normalized = false;
    out_.added.push_back(std::move(token));
    return {};
  }

  // The special tokens that have names or lie in lists.
  Status collect_special(const Json& named) {
    const auto take = [&](AddedToken token) {
      token.special = true;
      special_contents_.insert(token.content);
      special_.push_back(std::move(token));
    };
    for (const std::string_view key : kStandardTokens) {
      const auto found = named.find(std::string(key));
      if (found == named.end()) continue;
      // The file that counts says more than the text: what stands around the token.
      const Json& object = map_.contains(key) ? map_ : config_;
      const Json& value = object.contains(key) ? object[std::string(key)] : *found;
      AIRLLM_TRY(AddedToken token, token_of(value, where_ + ": " + std::string(key)));
      take(std::move(token));
    }
    for (const auto& [key, value] : named.items()) {
      if (is_standard_token(key)) continue;
      AIRLLM_TRY(AddedToken token, token_of(value, where_ + ": " + key));
      take(std::move(token));
    }
    for (const Json* object : {&config_, &map_}) {
      for (const std::string_view key : kTokenLists) {
        const auto list = object->find(std::string(key));
        if (list == object->end() || !list->is_array()) continue;
        for (const Json& value : *list) {
          AIRLLM_TRY(AddedToken token, token_of(value, where_ + ": " + std::string(key)));
          take(std::move(token));
        }
      }
    }
    return {};
  }

  static Result<AddedToken> token_of(const Json& value, const std::string& where) {
    if (!value.is_string()) return read_added_token(value, where);
    return read_added_token(Json{{"content", value}}, where);
  }

  // "added_tokens_decoder": {"ID": {"content", …}}.
  Status add_decoder_tokens() {
    const Json& tokens = config_["added_tokens_decoder"];
    const std::string where = config_name() + ": added_tokens_decoder";
    if (!tokens.is_object()) return Unexpected(ErrorCode::kData, where + " is not an object");
    for (const auto& [key, value] : tokens.items()) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId) {
        return Unexpected(
            ErrorCode::kData,
            where + ": '" + escape_for_display(key.substr(0, 80), true) + "' is not an id");
      }
      AIRLLM_TRY(AddedToken token, read_added_token(value, where + "." + key));
      AIRLLM_TRY_VOID(add(std::move(token), id));
    }
    return {};
  }

  // added_tokens.json: {"TOKEN": ID}.
  Status add_numbered_tokens() {
    const std::string where = where_ + "/added_tokens.json";
    AIRLLM_TRY(const Json tokens, read_object(files_.added_tokens_json, where));
    const Fields fields(tokens, where);
    for (const auto& [content, value] : tokens.items()) {
      AIRLLM_TRY(const int64_t id, fields.integer(content, 0, kMaxTokenId));
      AIRLLM_TRY(AddedToken token, token_of(Json(content), where));
      token.special = special_contents_.contains(content);
      AIRLLM_TRY_VOID(add(std::move(token), static_cast<int32_t>(id)));
    }
    return {};
  }

  Status add_pieces() {
    for (int32_t id = 0; vocabulary_.contains(id); ++id) {
      const PieceType type = vocabulary_.type(id);
      if (type != PieceType::kControl && type != PieceType::kUnknown) continue;
      // An id that was given another name keeps it.
      if (ids_.contains(id)) continue;
      AddedToken token;
      token.content = vocabulary_.text(id);
      token.special = true;
      AIRLLM_TRY_VOID(add(std::move(token), id));
    }
    return {};
  }

  // What goes before and behind a text.
  Status read_frame(const TokenizerConfig& config) {
    const Fields fields(config_, config_name());
    AIRLLM_TRY(const bool add_bos, fields.boolean_or("add_bos_token", true));
    AIRLLM_TRY(const bool add_eos, fields.boolean_or("add_eos_token", false));
    if (add_bos) take_frame("bos_token", file_.bos_piece, config, out_.before);
    if (add_eos) take_frame("eos_token", file_.eos_piece, config, out_.behind);
    const bool is_llama = config.tokenizer_class == "LlamaTokenizer" ||
                          config.tokenizer_class == "LlamaTokenizerFast";
    AIRLLM_TRY(out_.prefix_every_stretch, fields.boolean_or("legacy", !is_llama));
    return {};
  }

  void take_frame(std::string_view key, std::string_view piece, const TokenizerConfig& config,
                  std::vector<int32_t>& ids) const {
    const std::string name(key);
    std::string content(piece);
    if (config.special_tokens.contains(name)) {
      content = config.special_tokens[name].get<std::string>();
    } else if (config_.contains(name) && config_[name].is_null()) {
      return;  // said to have none
    }
    for (const AddedToken& token : out_.added) {
      if (token.content == content && token.special) ids.push_back(token.id);
    }
  }

  const TextFiles& files_;
  const SentencePieceFile& file_;
  const SentencePieceVocabulary& vocabulary_;
  std::string where_;
  Json config_ = Json::object();
  Json map_ = Json::object();  // special_tokens_map.json where it counts
  std::vector<AddedToken> special_;
  std::unordered_set<std::string> special_contents_;
  std::unordered_set<std::string> contents_;
  std::unordered_set<int32_t> ids_;
  int32_t next_id_ = static_cast<int32_t>(vocabulary_.size());
  SentencePieceSettings out_;
};

}  // namespace

Result<SentencePieceSettings> read_sentencepiece_settings(const TextFiles& files,
                                                          const SentencePieceFile& file,
                                                          const SentencePieceVocabulary& vocabulary,
                                                          std::string_view where) {
  return SettingsReader(files, file, vocabulary, where).read();
}

}  // namespace airllm::tokenizer
