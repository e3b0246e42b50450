#include "engine/tokenizer/tokenizer_file.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

double power_of_ten(int exponent) { return std::stod("1e" + std::to_string(exponent)); }

// The reference's JSON library computes a number as digits times a power of ten, each rounded,
// which is not always the nearest double; scores must tie where they tie there.
double score_of(const std::string& number) {
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool full = false;
  bool fraction = false;
  size_t at = number.starts_with('-') ? 1 : 0;
  for (; at < number.size() && (is_digit(number[at]) || number[at] == '.'); ++at) {
    if (number[at] == '.') {
      fraction = true;
      continue;
    }
    const auto digit = static_cast<uint64_t>(number[at] - '0');
    full = full || digits > (UINT64_MAX - digit) / 10;
    if (!full) digits = digits * 10 + digit;
    if (fraction != full) exponent += fraction ? -1 : 1;
  }
  if (at < number.size()) {  // "e"
    const bool negative = number[at + 1] == '-';
    int64_t written = 0;
    for (; at < number.size(); ++at) {
      if (is_digit(number[at]) && written < 100000) written = written * 10 + (number[at] - '0');
    }
    exponent += negative ? -written : written;
  }
  auto value = static_cast<double>(digits);
  while (exponent < -308 && value != 0) {
    value /= 1e308;
    exponent += 308;
  }
  if (value != 0 && exponent > 308) value = HUGE_VAL;
  if (value != 0 && exponent >= 0)
    value *= power_of_ten(static_cast<int>(std::min<int64_t>(exponent, 308)));
  if (value != 0 && exponent < 0) value /= power_of_ten(static_cast<int>(-exponent));
  return number.starts_with('-') ? -value : value;
}

// Hands everything but the two large members on to the library's own builder.
class FileReader : public nlohmann::json_sax<Json> {
 public:
  explicit FileReader(TokenizerFile& file) : file_(file), dom_(file.settings, false) {}

  bool null() override { return scalar() && dom_.null(); }
  bool boolean(bool v) override { return scalar() && dom_.boolean(v); }
  bool number_integer(number_integer_t v) override {
    if (mode_ == Mode::kVocabulary) return add_token(v);
    if (mode_ == Mode::kPiece) return set_score(static_cast<double>(v));
    return scalar() && dom_.number_integer(v);
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (mode_ == Mode::kVocabulary) {
      return add_token(v > INT64_MAX ? INT64_MAX : static_cast<int64_t>(v));
    }
    if (mode_ == Mode::kPiece) return set_score(static_cast<double>(v));
    return scalar() && dom_.number_unsigned(v);
  }
  bool number_float(number_float_t v, const string_t& s) override {
    if (mode_ == Mode::kPiece) return set_score(score_of(s));
    return scalar() && dom_.number_float(v, s);
  }
  bool binary(binary_t& v) override { return scalar() && dom_.binary(v); }
  bool string(string_t& v) override {
    if (mode_ == Mode::kMerges) return add_merge_line(v);
    if (mode_ == Mode::kMergePair) return add_merge_part(v);
    if (mode_ == Mode::kPiece) return set_piece(v);
    return scalar() && dom_.string(v);
  }

  bool start_object(size_t elements) override {
    if (large_member("vocab")) {
      mode_ = Mode::kVocabulary;
      file_.has_vocabulary = true;
      return true;
    }
    if (!scalar() || !enter()) return false;
    keys_.emplace_back();
    return dom_.start_object(elements);
  }
  bool key(string_t& name) override {
    if (mode_ == Mode::kVocabulary) {
      token_ = std::move(name);
      return true;
    }
    if (!keys_.back().insert(name).second) {
      return fail("duplicate key '" + escape_for_display(name.substr(0, 80), true) + "'");
    }
    if (depth_ == 1) in_model_ = name == "model";
    // Whether the DOM gets this key depends on the kind of its value.
    held_key_ = std::move(name);
    has_held_key_ = true;
    return true;
  }
  bool end_object() override {
    if (mode_ == Mode::kVocabulary) {
      mode_ = Mode::kDom;
      return true;
    }
    keys_.pop_back();
    --depth_;
    return dom_.end_object();
  }

  bool start_array(size_t elements) override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kMergePair;
      pair_.clear();
      return true;
    }
    if (mode_ == Mode::kPieces) {
      mode_ = Mode::kPiece;
      has_piece_ = has_score_ = false;
      return true;
    }
    if (large_member("vocab")) {
      mode_ = Mode::kPieces;
      file_.has_scores = true;
      return true;
    }
    if (large_member("merges")) {
      mode_ = Mode::kMerges;
      return true;
    }
    return scalar() && enter() && dom_.start_array(elements);
  }
  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      mode_ = Mode::kMerges;
      if (pair_.size() != 2) return wrong_merge();
      return add_merge(pair_[0], pair_[1]);
    }
    if (mode_ == Mode::kPiece) {
      mode_ = Mode::kPieces;
      return add_piece();
    }
    if (mode_ == Mode::kMerges || mode_ == Mode::kPieces) {
      mode_ = Mode::kDom;
      return true;
    }
    --depth_;
    return dom_.end_array();
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    const std::string text = error.what();
    // The library prefixes its messages with "[json.exception...] ".
    const size_t end = text.find("] ");
    return fail("at byte " + std::to_string(position) + ": " +
                (end == std::string::npos ? text : text.substr(end + 2)));
  }

  const std::string& problem() const { return problem_; }

 private:
  enum class Mode { kDom, kVocabulary, kMerges, kMergePair, kPieces, kPiece };

  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  // Called before each value that goes to the DOM.
  bool scalar() {
    if (mode_ == Mode::kVocabulary) {
      return fail("the id of token '" + escape_for_display(token_.substr(0, 80), true) +
                  "' in model.vocab is not a whole number");
    }
    if (mode_ == Mode::kPieces || mode_ == Mode::kPiece) return wrong_piece();
    if (mode_ != Mode::kDom) return wrong_merge();
    if (!has_held_key_) return true;
    has_held_key_ = false;
    return dom_.key(held_key_);
  }

  bool enter() {
    if (++depth_ <= kJsonMaxDepth) return true;
    return fail("nested deeper than " + std::to_string(kJsonMaxDepth) + " levels");
  }

  // Whether the value that begins is model.<name>; its key is then dropped.
  bool large_member(std::string_view name) {
    if (mode_ != Mode::kDom || depth_ != 2 || !in_model_ || !has_held_key_) return false;
    if (held_key_ != name) return false;
    has_held_key_ = false;
    return true;
  }

  bool add_token(int64_t id) {
    if (Status added = file_.vocabulary.add(token_, id); !added) {
      return fail("model.vocab: " + added.error().message);
    }
    return true;
  }

  bool set_piece(std::string& text) {
    if (has_piece_) return wrong_piece();
    has_piece_ = true;
    token_ = std::move(text);
    return true;
  }
  bool set_score(double score) {
    if (!has_piece_ || has_score_ || !std::isfinite(score)) return wrong_piece();
    has_score_ = true;
    score_ = score;
    return true;
  }
  bool add_piece() {
    if (!has_piece_ || !has_score_) return wrong_piece();
    if (!add_token(static_cast<int64_t>(file_.scores.size()))) return false;
    file_.scores.push_back(score_);
    return true;
  }
  bool wrong_piece() {
    return fail("model.vocab: entry " + std::to_string(file_.scores.size()) +
                " is not a piece with a score");
  }

  bool add_merge_line(const std::string& line) {
    if (line.starts_with("#version")) return true;
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      return wrong_merge();
    }
    const std::string_view view(line);
    return add_merge(view.substr(0, space), view.substr(space + 1));
  }
  bool add_merge_part(std::string& part) {
    if (pair_.size() == 2) return wrong_merge();
    pair_.push_back(std::move(part));
    return true;
  }
  bool add_merge(std::string_view left, std::string_view right) {
    return file_.merges.add(left, right) || fail("model.merges takes more than 4 GiB");
  }
  bool wrong_merge() {
    return fail("model.merges: entry " + std::to_string(file_.merges.size()) +
                " is not a pair of tokens");
  }

  TokenizerFile& file_;
  nlohmann::detail::json_sax_dom_parser<Json> dom_;
  std::vector<std::unordered_set<std::string>> keys_;
  int depth_ = 0;
  bool in_model_ = false;
  bool has_held_key_ = false;
  std::string held_key_;
  Mode mode_ = Mode::kDom;
  std::string token_;
  double score_ = 0;
  bool has_piece_ = false;
  bool has_score_ = false;
  std::vector<std::string> pair_;
  std::string problem_;
};

}  // namespace

bool MergeList::add(std::string_view left, std::string_view right) {
  if (arena_.size() + left.size() + right.size() > UINT32_MAX) return false;
  arena_.append(left);
  ends_.push_back(static_cast<uint32_t>(arena_.size()));
  arena_.append(right);
  ends_.push_back(static_cast<uint32_t>(arena_.size()));
  return true;
}

MergeList::Pair MergeList::operator[](size_t rank) const {
  const std::string_view arena(arena_);
  const size_t begin = rank == 0 ? 0 : ends_[2 * rank - 1];
  const size_t middle = ends_[2 * rank];
  const size_t end = ends_[2 * rank + 1];
  return {arena.substr(begin, middle - begin), arena.substr(middle, end - middle)};
}

Result<TokenizerFile> read_tokenizer_file(std::string_view text, std::string_view what) {
  const std::string where(what);
  if (const size_t bad = find_invalid_utf8(text); bad != kValidUtf8) {
    return Unexpected(ErrorCode::kData, where + ": not UTF-8 at byte " + std::to_string(bad));
  }
  TokenizerFile file;
  FileReader reader(file);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    return Unexpected(ErrorCode::kData, where + ": not a valid tokenizer.json: " +
                                            escape_for_display(reader.problem(), true));
  }
  if (!file.settings.is_object()) {
    return Unexpected(ErrorCode::kData, where + ": not a JSON object");
  }
  file.vocabulary.shrink_to_fit();
  return file;
}

}  // namespace airllm::tokenizer
