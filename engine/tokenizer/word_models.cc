#include "engine/tokenizer/word_models.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "engine/tokenizer/tokenizer_file.h"

namespace airllm::tokenizer {
namespace {

// Trying every length of a word takes time that grows with its square.
constexpr int64_t kMaxWordCharacters = 1000;

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

class WordLevel : public Model {
 public:
  WordLevel(Vocabulary vocabulary, const std::string& unknown)
      : vocabulary_(std::move(vocabulary)), unknown_(vocabulary_.id(unknown)) {}
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::unique_ptr<Encoder> encoder() const override { return std::make_unique<Run>(*this); }

 private:
  class Run : public Encoder {
   public:
    explicit Run(const WordLevel& model) : model_(model) {}
    Status encode(const Words& words, std::vector<int32_t>& ids) override {
      for (const Words::Word& word : words.words) {
        if (word.begin == word.end) continue;
        auto id = model_.vocabulary_.id(words.view(word));
        if (!id) id = model_.unknown_;
        if (!id) return missing_unknown_token();
        ids.push_back(*id);
      }
      return {};
    }

   private:
    const WordLevel& model_;
  };

  Vocabulary vocabulary_;
  std::optional<int32_t> unknown_;
};

class WordPiece : public Model {
 public:
  WordPiece(Vocabulary vocabulary, const std::string& unknown, std::string prefix,
            size_t max_characters)
      : vocabulary_(std::move(vocabulary)),
        unknown_(vocabulary_.id(unknown)),
        prefix_(std::move(prefix)),
        max_characters_(max_characters) {
    for (size_t id = 0; id < vocabulary_.id_limit(); ++id) {
      const auto text = vocabulary_.text(static_cast<int32_t>(id));
      if (text) longest_ = std::max(longest_, text->size());
    }
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::unique_ptr<Encoder> encoder() const override { return std::make_unique<Run>(*this); }

 private:
  class Run : public Encoder {
   public:
    explicit Run(const WordPiece& model) : model_(model) {}
    Status encode(const Words& words, std::vector<int32_t>& ids) override {
      for (const Words::Word& word : words.words) {
        const size_t before = ids.size();
        if (model_.encode_word(words.view(word), piece_, ids)) continue;
        ids.resize(before);
        if (!model_.unknown_) return missing_unknown_token();
        ids.push_back(*model_.unknown_);
      }
      return {};
    }

   private:
    const WordPiece& model_;
    std::string piece_;
  };

  // False when the word is too long or has a place where no piece begins.
  bool encode_word(std::string_view word, std::string& piece, std::vector<int32_t>& ids) const {
    if (count_characters(word) > max_characters_) return false;
    for (size_t begin = 0; begin < word.size();) {
      const size_t length = longest_piece(word, begin, piece, ids);
      if (length == 0) return false;
      begin += length;
    }
    return true;
  }

  size_t longest_piece(std::string_view word, size_t begin, std::string& piece,
                       std::vector<int32_t>& ids) const {
    for (size_t end = std::min(word.size(), begin + longest_); end > begin; --end) {
      if (end < word.size() && !begins_character(word[end])) continue;
      piece = begin > 0 ? prefix_ : std::string();
      piece += word.substr(begin, end - begin);
      if (const auto id = vocabulary_.id(piece)) {
        ids.push_back(*id);
        return end - begin;
      }
    }
    return 0;
  }

  Vocabulary vocabulary_;
  std::optional<int32_t> unknown_;
  std::string prefix_;
  size_t max_characters_;
  size_t longest_ = 0;
};

}  // namespace

Result<std::unique_ptr<Model>> build_word_level(const Fields& fields, TokenizerFile& file) {
  if (!file.has_vocabulary) return fields.wrong("vocab", "an object");
  AIRLLM_TRY(const std::string unknown, fields.string("unk_token"));
  return std::unique_ptr<Model>(new WordLevel(std::move(file.vocabulary), unknown));
}

Result<std::unique_ptr<Model>> build_word_piece(const Fields& fields, TokenizerFile& file) {
  if (!file.has_vocabulary) return fields.wrong("vocab", "an object");
  AIRLLM_TRY(const std::string unknown, fields.string("unk_token"));
  AIRLLM_TRY(std::string prefix, fields.string("continuing_subword_prefix"));
  AIRLLM_TRY(const int64_t limit,
             fields.integer("max_input_chars_per_word", 0, kMaxWordCharacters));
  return std::unique_ptr<Model>(new WordPiece(std::move(file.vocabulary), unknown,
                                              std::move(prefix), static_cast<size_t>(limit)));
}

}  // namespace airllm::tokenizer
