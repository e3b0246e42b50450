#include "engine/tokenizer/post_processor.h"

#include <utility>

#include "base/json.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {
namespace {

using Piece = PostProcessor::Piece;

Result<std::vector<int32_t>> special_token_ids(const Fields& fields, const std::string& name) {
  const Json* table = fields.find("special_tokens");
  const Json* entry = nullptr;
  if (table != nullptr && table->is_object()) {
    if (const auto it = table->find(name); it != table->end()) entry = &*it;
  }
  if (entry == nullptr)
    return fields.wrong("special_tokens", "complete: '" + name + "' is missing");
  const Fields token(*entry, fields.where() + ": special_tokens." + name);
  AIRLLM_TRY(const Json* list, token.array("ids"));
  std::vector<int32_t> ids;
  for (const Json& element : *list) {
    const Json holder = {{"id", element}};
    AIRLLM_TRY(const int64_t id,
               Fields(holder, token.where() + ".ids").integer("id", 0, kMaxTokenId));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

Result<Piece> piece_from_json(const Fields& fields, const Json& json) {
  Piece piece;
  if (json.is_object() && json.size() == 1) {
    const Fields inner(json.begin().value(), fields.where() + ": single");
    AIRLLM_TRY(const std::string id, inner.string("id"));
    if (json.begin().key() == "Sequence" && id == "A") {
      piece.is_text = true;
      return piece;
    }
    if (json.begin().key() == "SpecialToken") {
      AIRLLM_TRY(piece.tokens, special_token_ids(fields, id));
      return piece;
    }
  }
  return fields.wrong("single", "a list of special tokens and the sequence A");
}

Result<PostProcessor> template_from_json(const Fields& fields) {
  AIRLLM_TRY(const Json* list, fields.array("single"));
  PostProcessor processor;
  for (const Json& element : *list) {
    AIRLLM_TRY(Piece piece, piece_from_json(fields, element));
    processor.pieces.push_back(std::move(piece));
  }
  if (processor.pieces.empty()) return fields.wrong("single", "a list with something in it");
  return processor;
}

// "cls" and "sep", each a pair of text and id, around the text.
Result<PostProcessor> bert_from_json(const Fields& fields) {
  PostProcessor processor;
  for (const char* key : {"cls", "sep"}) {
    AIRLLM_TRY(const Json* pair, fields.array(key));
    if (pair->size() != 2) return fields.wrong(key, "a pair of text and id");
    const Json holder = {{"id", (*pair)[1]}};
    AIRLLM_TRY(const int64_t id,
               Fields(holder, fields.where() + ": " + key).integer("id", 0, kMaxTokenId));
    processor.pieces.push_back({.is_text = false, .tokens = {static_cast<int32_t>(id)}});
  }
  processor.pieces.insert(processor.pieces.begin() + 1, Piece{.is_text = true, .tokens = {}});
  return processor;
}

Result<PostProcessor> sequence_from_json(const Fields& fields) {
  AIRLLM_TRY(const Json* list, fields.array("processors"));
  PostProcessor result;
  for (const Json& element : *list) {
    AIRLLM_TRY(PostProcessor step, PostProcessor::from_json(&element, fields.where()));
    if (step.pieces.empty()) continue;
    if (!result.pieces.empty())
      return fields.unknown("two post-processors that add tokens in one Sequence");
    result = std::move(step);
  }
  return result;
}

}  // namespace

Result<PostProcessor> PostProcessor::from_json(const Json* json, const std::string& where) {
  if (json == nullptr) return PostProcessor();
  const Fields fields(*json, where);
  AIRLLM_TRY(const std::string type, fields.type());
  if (type == "Sequence") return sequence_from_json(fields);
  if (type == "TemplateProcessing") return template_from_json(fields);
  // Their offsets and add_prefix_space change no ids.
  if (type == "BertProcessing" || type == "RobertaProcessing") return bert_from_json(fields);
  if (type == "ByteLevel") return PostProcessor();
  return fields.unknown(type);
}

std::vector<int32_t> PostProcessor::apply(std::vector<int32_t> ids, bool add_special) const {
  if (pieces.empty()) return ids;
  std::vector<int32_t> result;
  result.reserve(ids.size() + pieces.size());
  for (const Piece& piece : pieces) {
    if (piece.is_text) {
      result.insert(result.end(), ids.begin(), ids.end());
    } else if (add_special) {
      result.insert(result.end(), piece.tokens.begin(), piece.tokens.end());
    }
  }
  return result;
}

}  // namespace airllm::tokenizer
