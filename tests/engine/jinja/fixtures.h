// What tools/jinja_fixtures recorded of the reference.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "base/json.h"

namespace airllm::jinja {

// Of tests/engine/jinja/fixtures; fails the test when the file cannot be read.
inline Json read_fixture(const std::string& name) {
  std::ifstream file(AIRLLM_SOURCE_DIR "/tests/engine/jinja/fixtures/" + name);
  std::stringstream text;
  text << file.rdbuf();
  Json json = Json::parse(text.str(), nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << name;
  return json;
}

}  // namespace airllm::jinja
