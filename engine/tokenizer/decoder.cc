#include "engine/tokenizer/decoder.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/regex.h"

namespace airllm::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

// A step that needs whole tokens: collects the fragments of each.
class WholeTokenStep : public DecodeStep {
 public:
  void push(const Fragment& fragment, const Sink& sink) final {
    if (fragment.begins_token && fragment.ends_token) {
      on_token(fragment.text, sink);
      return;
    }
    held_ += fragment.text;
    if (!fragment.ends_token) return;
    on_token(held_, sink);
    held_.clear();
  }
  void finish(const Sink& /*sink*/) override {}

 protected:
  virtual void on_token(std::string_view token, const Sink& sink) = 0;

 private:
  std::string held_;
};

// Tokens joined by spaces: what the reference does without a decoder.
class JoinBySpaces : public DecodeStep {
 public:
  void push(const Fragment& fragment, const Sink& sink) override {
    if (fragment.begins_token && !std::exchange(first_, false)) sink({" "});
    sink(fragment);
  }
  void finish(const Sink& /*sink*/) override {}

 private:
  bool first_ = true;
};

// One long token of all tokens.
class Fuse : public DecodeStep {
 public:
  void push(const Fragment& fragment, const Sink& sink) override {
    sink({fragment.text, std::exchange(first_, false), false});
  }
  void finish(const Sink& sink) override { sink({"", first_, true}); }

 private:
  bool first_ = true;
};

// The bytes that the characters of all tokens stand for, with U+FFFD for each maximal part that is
// not UTF-8.
class ByteLevel : public WholeTokenStep {
 public:
  void on_token(std::string_view token, const Sink& sink) override {
    append_bytes(token);
    const size_t held = incomplete_utf8_suffix(bytes_);
    const std::string ready = repair(std::string_view(bytes_).substr(0, bytes_.size() - held));
    bytes_.erase(0, bytes_.size() - held);
    sink({ready, std::exchange(first_, false), false});
  }
  void finish(const Sink& sink) override {
    sink({bytes_.empty() ? std::string_view() : kReplacement, first_, true});
  }

 private:
  // A token with a character outside the alphabet (an added token) stands for itself.
  void append_bytes(std::string_view token) {
    const size_t before = bytes_.size();
    for (size_t at = 0; at < token.size();) {
      const auto byte = byte_of_character(text::next_code_point(token, at));
      if (!byte.has_value()) {
        bytes_.replace(before, std::string::npos, token);
        return;
      }
      bytes_ += static_cast<char>(*byte);
    }
  }

  // The maximal part that is wrong at the begin of `text`: what begins a character and is cut off
  // by a byte that does not fit, or one byte.
  static size_t wrong_part(std::string_view text) {
    for (size_t length = std::min<size_t>(3, text.size()); length > 1; --length) {
      if (incomplete_utf8_suffix(text.substr(0, length)) == length) return length;
    }
    return 1;
  }

  static std::string repair(std::string_view text) {
    std::string out;
    while (true) {
      const size_t bad = find_invalid_utf8(text);
      out += text.substr(0, bad == kValidUtf8 ? text.size() : bad);
      if (bad == kValidUtf8) return out;
      out += kReplacement;
      text.remove_prefix(bad);
      text.remove_prefix(wrong_part(text));
    }
  }

  std::string bytes_;  // what may still become a character
  bool first_ = true;
};

// Runs of byte tokens, <0x00> to <0xFF>, become text when the whole run is UTF-8; else each of them
// becomes U+FFFD. So a run is held back until it ends.
class ByteFallback : public WholeTokenStep {
 public:
  void on_token(std::string_view token, const Sink& sink) override {
    if (const auto byte = parse(token)) {
      run_ += *byte;
      return;
    }
    flush(sink);
    sink({token});
  }
  void finish(const Sink& sink) override { flush(sink); }

 private:
  static std::optional<char> parse(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    // The reference reads the digits by a function that takes a sign.
    const int high = token[3] == '+' ? 0 : digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(static_cast<unsigned char>(high * 16 + low));
  }
  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  }
  void flush(const Sink& sink) {
    if (run_.empty()) return;
    if (find_invalid_utf8(run_) == kValidUtf8) {
      sink({run_});
    } else {
      for (size_t i = 0; i < run_.size(); ++i) sink({kReplacement});
    }
    run_.clear();
  }

  std::string run_;
};

class Metaspace : public DecodeStep {
 public:
  Metaspace(std::string replacement, bool drop_first)
      : replacement_(std::move(replacement)), drop_first_(drop_first) {}
  void push(const Fragment& fragment, const Sink& sink) override {
    if (fragment.begins_token) ++token_;
    std::string out;
    const std::string_view text = fragment.text;
    size_t done = 0;
    for (size_t at = text.find(replacement_); at != std::string_view::npos;
         at = text.find(replacement_, done)) {
      out += text.substr(done, at - done);
      if (token_ > 1 || !drop_first_) out += ' ';
      done = at + replacement_.size();
    }
    out += text.substr(done);
    sink({out, fragment.begins_token, fragment.ends_token});
  }
  void finish(const Sink& /*sink*/) override {}

 private:
  std::string replacement_;
  bool drop_first_;
  size_t token_ = 0;
};

// Takes up to `start` and `stop` characters `content` from the ends of each token.
class Strip : public DecodeStep {
 public:
  Strip(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void push(const Fragment& fragment, const Sink& sink) override {
    if (fragment.begins_token) start_left_ = start_;
    std::string_view text = fragment.text;
    while (start_left_ > 0 && !text.empty()) {
      const bool strips = text.starts_with(content_);
      start_left_ = strips ? start_left_ - 1 : 0;
      if (strips) text.remove_prefix(content_.size());
    }
    held_ += text;
    size_t ready = held_.size();
    for (size_t i = 0; i < stop_ && std::string_view(held_).substr(0, ready).ends_with(content_);
         ++i) {
      ready -= content_.size();
    }
    const std::string out = held_.substr(0, ready);
    held_.erase(0, ready);
    if (fragment.ends_token) held_.clear();
    sink({out, fragment.begins_token, fragment.ends_token});
  }
  void finish(const Sink& /*sink*/) override {}

 private:
  std::string content_;
  size_t start_, stop_;
  size_t start_left_ = 0;
  std::string held_;  // may still be the end of the token
};

class Replace : public WholeTokenStep {
 public:
  Replace(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void on_token(std::string_view token, const Sink& sink) override {
    const Result<std::vector<Range>> matches = pattern_->find_all(token);
    // Decoding cannot fail: a token on which the expression gives up stays as it is.
    if (!matches || matches.value().empty()) {
      sink({token});
      return;
    }
    std::string out;
    size_t done = 0;
    for (const Range& match : *matches) {
      out += token.substr(done, match.begin - done);
      out += content_;
      done = match.end;
    }
    out += token.substr(done);
    sink({out});
  }

 private:
  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

// Replace of a literal, of which no more is held back than may begin one (Knuth, Morris, Pratt): a
// token of Fuse is as long as the answer.
class ReplaceLiteral : public DecodeStep {
 public:
  // For each length of the literal's beginning the longest shorter one with which that ends.
  struct Table {
    std::string literal;
    std::vector<size_t> shorter;
  };
  static Table table_of(const std::string& literal) {
    Table table{literal, std::vector<size_t>(literal.size() + 1, 0)};
    size_t length = 0;
    for (size_t i = 1; i < literal.size(); ++i) {
      while (length > 0 && literal[length] != literal[i]) length = table.shorter[length];
      if (literal[length] == literal[i]) ++length;
      table.shorter[i + 1] = length;
    }
    return table;
  }

  ReplaceLiteral(std::shared_ptr<const Table> table, std::string content)
      : table_(std::move(table)), content_(std::move(content)) {}
  void push(const Fragment& fragment, const Sink& sink) override {
    const std::string_view literal(table_->literal);
    std::string out;
    for (const char c : fragment.text) {
      while (held_ > 0 && literal[held_] != c) {
        const size_t shorter = table_->shorter[held_];
        out += literal.substr(0, held_ - shorter);
        held_ = shorter;
      }
      if (literal[held_] != c) {
        out += c;
      } else if (++held_ == literal.size()) {
        out += content_;
        held_ = 0;
      }
    }
    if (fragment.ends_token) out += literal.substr(0, std::exchange(held_, 0));
    sink({out, fragment.begins_token, fragment.ends_token});
  }
  void finish(const Sink& /*sink*/) override {}

 private:
  std::shared_ptr<const Table> table_;
  std::string content_;
  size_t held_ = 0;  // bytes of the literal with which the text so far ends
};

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  out += text.substr(done);
  return out;
}

// Words joined by spaces, but for tokens with the prefix, which continue one.
class WordPiece : public WholeTokenStep {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void on_token(std::string_view token, const Sink& sink) override {
    std::string out(token);
    if (!std::exchange(first_, false)) {
      if (token.starts_with(prefix_)) {
        out.erase(0, prefix_.size());
      } else {
        out.insert(0, 1, ' ');
      }
    }
    if (cleanup_) {
      constexpr std::pair<const char*, const char*> kCleanups[] = {
          {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
      };
      for (const auto& [from, to] : kCleanups) out = replace_all(out, from, to);
    }
    sink({out});
  }

 private:
  std::string prefix_;
  bool cleanup_;
  bool first_ = true;
};

// The suffix of a word's last token becomes a space, but at the end of all: so the last token is
// held back when it has the suffix.
class BpeDecoder : public WholeTokenStep {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void on_token(std::string_view token, const Sink& sink) override {
    if (holds_) sink({replace_all(held_, suffix_, " ")});
    holds_ = token.find(suffix_) != std::string_view::npos;
    if (holds_) {
      held_ = token;
    } else {
      sink({token});
    }
  }
  void finish(const Sink& sink) override {
    if (holds_) sink({replace_all(held_, suffix_, "")});
  }

 private:
  std::string suffix_;
  std::string held_;
  bool holds_ = false;
};

Result<size_t> strip_count(const Fields& fields, const char* key) {
  constexpr int64_t kMaxStrip = 1 << 20;
  AIRLLM_TRY(const int64_t count, fields.integer(key, 0, kMaxStrip));
  return static_cast<size_t>(count);
}

Result<std::string> one_character(const Fields& fields, std::string_view key, std::string text) {
  size_t at = 0;
  if (!text.empty()) text::next_code_point(text, at);
  if (at == 0 || at != text.size()) return fields.wrong(key, "one character");
  return text;
}

}  // namespace

Result<Decoder::StepFactory> Decoder::factory_from_json(const Json& json,
                                                        const std::string& where) {
  const Fields fields(json, where);
  AIRLLM_TRY(const std::string type, fields.type());
  if (type == "ByteLevel") return StepFactory([] { return std::make_unique<ByteLevel>(); });
  if (type == "ByteFallback") return StepFactory([] { return std::make_unique<ByteFallback>(); });
  if (type == "Fuse") return StepFactory([] { return std::make_unique<Fuse>(); });
  if (type == "Metaspace") {
    AIRLLM_TRY(std::string text, fields.string_or("replacement", "\u2581"));
    AIRLLM_TRY(std::string replacement, one_character(fields, "replacement", std::move(text)));
    AIRLLM_TRY(const std::string scheme, fields.string_or("prepend_scheme", "always"));
    AIRLLM_TRY(const bool add_prefix_space, fields.boolean_or("add_prefix_space", true));
    const bool drop_first = add_prefix_space && scheme != "never";
    return StepFactory([=] { return std::make_unique<Metaspace>(replacement, drop_first); });
  }
  if (type == "Strip") {
    AIRLLM_TRY(std::string text, fields.string("content"));
    AIRLLM_TRY(std::string content, one_character(fields, "content", std::move(text)));
    AIRLLM_TRY(const size_t start, strip_count(fields, "start"));
    AIRLLM_TRY(const size_t stop, strip_count(fields, "stop"));
    return StepFactory([=] { return std::make_unique<Strip>(content, start, stop); });
  }
  if (type == "WordPiece") {
    AIRLLM_TRY(const std::string prefix, fields.string_or("prefix", "##"));
    AIRLLM_TRY(const bool cleanup, fields.boolean_or("cleanup", true));
    return StepFactory([=] { return std::make_unique<WordPiece>(prefix, cleanup); });
  }
  if (type == "BPEDecoder") {
    AIRLLM_TRY(const std::string suffix, fields.string_or("suffix", "</w>"));
    if (suffix.empty()) return fields.wrong("suffix", "a text of one character or more");
    return StepFactory([=] { return std::make_unique<BpeDecoder>(suffix); });
  }
  if (type == "Replace") {
    const Json* pattern_json = fields.find("pattern");
    if (pattern_json == nullptr) return fields.wrong("pattern", "an object");
    AIRLLM_TRY(Pattern pattern, Pattern::from_json(*pattern_json, where + ": Replace"));
    AIRLLM_TRY(const std::string content, fields.string("content"));
    if (const std::string& literal = pattern.literal_text(); !literal.empty()) {
      const auto table =
          std::make_shared<const ReplaceLiteral::Table>(ReplaceLiteral::table_of(literal));
      return StepFactory([=] { return std::make_unique<ReplaceLiteral>(table, content); });
    }
    const auto shared = std::make_shared<const Pattern>(std::move(pattern));
    return StepFactory([=] { return std::make_unique<Replace>(shared, content); });
  }
  return fields.unknown(type);
}

Status Decoder::add_steps(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  AIRLLM_TRY(const std::string type, fields.type());
  if (type != "Sequence") {
    AIRLLM_TRY(StepFactory factory, factory_from_json(json, where));
    factories_.push_back(std::move(factory));
    return {};
  }
  AIRLLM_TRY(const Json* list, fields.array("decoders"));
  for (const Json& element : *list) AIRLLM_TRY_VOID(add_steps(element, where));
  return {};
}

Result<std::unique_ptr<Decoder>> Decoder::from_json(const Json* json, const std::string& where) {
  auto decoder = std::make_unique<Decoder>();
  if (json == nullptr) {
    decoder->factories_.emplace_back([] { return std::make_unique<JoinBySpaces>(); });
    return decoder;
  }
  AIRLLM_TRY_VOID(decoder->add_steps(*json, where));
  return decoder;
}

Decoder::Run::Run(const Decoder& decoder) {
  for (const StepFactory& factory : decoder.factories_) steps_.push_back(factory());
}

void Decoder::Run::feed(size_t step, const Fragment& fragment, std::string& out) {
  if (step == steps_.size()) {
    out += fragment.text;
    return;
  }
  steps_[step]->push(fragment, [&](const Fragment& next) { feed(step + 1, next, out); });
}

std::string Decoder::Run::push(std::string_view token) {
  std::string out;
  feed(0, {token}, out);
  return out;
}

std::string Decoder::Run::finish() {
  std::string out;
  for (size_t step = 0; step < steps_.size(); ++step) {
    steps_[step]->finish([&](const Fragment& fragment) { feed(step + 1, fragment, out); });
  }
  return out;
}

}  // namespace airllm::tokenizer
