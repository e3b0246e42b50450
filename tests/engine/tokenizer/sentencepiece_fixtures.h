// The models that tools/tokenizer_fixtures/sentencepiece_models.py trains.
#pragma once

#include <string>

#include "base/json_fwd.h"

namespace airllm::tokenizer {

// The bytes of a file below tests/engine/tokenizer/fixtures/sentencepiece; fails the test when it
// is missing.
std::string sentencepiece_fixture(const std::string& name);

// The model of an entry of expected.json: settings behind others replace them.
std::string sentencepiece_variant(const Json& variant);

}  // namespace airllm::tokenizer
