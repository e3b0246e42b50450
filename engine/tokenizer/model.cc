#include "engine/tokenizer/model.h"

#include <string>
#include <utility>

#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/tokenizer_file.h"
#include "engine/tokenizer/unigram.h"
#include "engine/tokenizer/word_models.h"

namespace airllm::tokenizer {
namespace {

using ModelPtr = std::unique_ptr<Model>;

class BpeModel : public Model {
 public:
  explicit BpeModel(Bpe bpe) : bpe_(std::move(bpe)) {}
  const Vocabulary& vocabulary() const override { return bpe_.vocabulary(); }
  std::unique_ptr<Encoder> encoder() const override { return std::make_unique<Run>(bpe_); }

 private:
  class Run : public Encoder {
   public:
    explicit Run(const Bpe& bpe) : bpe_(bpe) {}
    Status encode(const Words& words, std::vector<int32_t>& ids) override {
      for (const Words::Word& word : words.words) bpe_.encode(words.view(word), scratch_, ids);
      if (scratch_.unknown_token_missing) return missing_unknown_token();
      return {};
    }

   private:
    const Bpe& bpe_;
    Bpe::Scratch scratch_;
  };

  Bpe bpe_;
};

// Files from before types were written have none; the reference tells them apart by what they hold.
std::string guess_type(const Fields& fields, const TokenizerFile& file) {
  if (file.has_scores) return "Unigram";
  if (file.merges.size() > 0) return "BPE";
  if (fields.find("max_input_chars_per_word") != nullptr) return "WordPiece";
  if (file.has_vocabulary && fields.find("unk_token") != nullptr) return "WordLevel";
  return "none";
}

}  // namespace

Unexpected missing_unknown_token() {
  return Unexpected(ErrorCode::kData,
                    "the tokenizer's unknown token is not in its vocabulary, and the text has a "
                    "character that needs it");
}

Result<std::unique_ptr<Model>> Model::from_file(TokenizerFile& file, std::string_view what) {
  const std::string name(what);
  const Fields file_fields(file.settings, name);
  const Json* model = file_fields.find("model");
  if (model == nullptr || !model->is_object()) return file_fields.wrong("model", "an object");
  const Fields fields(*model, name + ": model");
  AIRLLM_TRY(const std::string type, fields.string_or("type", guess_type(fields, file)));
  if (type == "Unigram") return build_unigram(fields, file);
  if (file.has_scores) return fields.wrong("vocab", "an object");
  if (type == "WordPiece") return build_word_piece(fields, file);
  if (type == "WordLevel") return build_word_level(fields, file);
  if (type != "BPE") return fields.unknown(type);
  AIRLLM_TRY(Bpe bpe, Bpe::build(*model, file, what));
  return ModelPtr(new BpeModel(std::move(bpe)));
}

Result<std::unique_ptr<Model>> Model::from_ranks(Vocabulary vocabulary, std::string_view what) {
  AIRLLM_TRY(Bpe bpe, Bpe::from_ranks(std::move(vocabulary), what));
  return ModelPtr(new BpeModel(std::move(bpe)));
}

}  // namespace airllm::tokenizer
