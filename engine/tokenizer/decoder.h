// The "decoder" of tokenizer.json: from token texts back to text, as a chain of steps through which
// tokens flow one by one. Decoding a whole list runs the same chain, so that streaming and decoding
// at once cannot differ.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::tokenizer {

// A stretch of a token's text. Steps that join tokens (Fuse, ByteLevel) hand on one long token in
// several fragments. Each fragment is whole UTF-8 characters.
struct Fragment {
  std::string_view text;
  bool begins_token = true;
  bool ends_token = true;
};

// The state of one step within one decoding. Not thread-safe.
class DecodeStep {
 public:
  using Sink = std::function<void(const Fragment&)>;
  virtual ~DecodeStep() = default;
  virtual void push(const Fragment& fragment, const Sink& sink) = 0;
  // After the last fragment: hands on what was held back.
  virtual void finish(const Sink& sink) = 0;
};

// Immutable; safe to share between threads.
class Decoder {
 public:
  // ByteLevel, Metaspace, ByteFallback, Fuse, Strip, Replace, WordPiece, BPEDecoder and Sequence;
  // another type is a kData error that names it. Null: tokens are joined by spaces. `where` names
  // the component.
  static Result<std::unique_ptr<Decoder>> from_json(const Json* json, const std::string& where);

  // One decoding in progress. Borrows the decoder; not thread-safe.
  class Run {
   public:
    explicit Run(const Decoder& decoder);
    // The text that is certain after this token; whole UTF-8 characters.
    std::string push(std::string_view token);
    std::string finish();

   private:
    void feed(size_t step, const Fragment& fragment, std::string& out);

    std::vector<std::unique_ptr<DecodeStep>> steps_;
  };

 private:
  using StepFactory = std::function<std::unique_ptr<DecodeStep>()>;
  Status add_steps(const Json& json, const std::string& where);
  static Result<StepFactory> factory_from_json(const Json& json, const std::string& where);

  std::vector<StepFactory> factories_;
};

}  // namespace airllm::tokenizer
