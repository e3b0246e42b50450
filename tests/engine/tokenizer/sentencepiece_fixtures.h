// The models that tools/tokenizer_fixtures/sentencepiece_models.py trains.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace airllm::tokenizer {

// The bytes of a file below tests/engine/tokenizer/fixtures/sentencepiece; fails the test when it is
// missing.
std::string sentencepiece_fixture(const std::string& name);

// The model of an entry of expected.json: settings behind others replace them.
std::string sentencepiece_variant(const Json& variant);

// Fields of the wire format of protocol buffers.
std::string bytes_field(unsigned number, const std::string& bytes);
std::string number_field(unsigned number, uint64_t value);
std::string float_field(unsigned number, float value);

// A "pieces" of ModelProto; the types are those of its SentencePiece.Type.
std::string piece_field(const std::string& text, float score, unsigned type = 1);

}  // namespace airllm::tokenizer
