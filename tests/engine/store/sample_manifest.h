// A manifest with every field set, for tests.
#pragma once

#include "engine/store/manifest.h"

namespace airllm::store {

inline Manifest sample_manifest() {
  Manifest out;
  out.name = "org/m";
  out.created = "2026-01-02T03:04:05Z";
  out.family = "llama";
  out.dtype = "bf16";
  out.layers = 2;
  out.parameters = 1000;
  out.source_label = "~/models/x";
  out.sources = {{"config.json", 10, 1, "10:2:3.4"}, {"model.safetensors", 20, 2, "20:3:4.5"}};
  out.shards = {{"000-embedding.safetensors", 100, 0xfedcba9876543210}};
  out.files = {{"config.json", 10, 7}};
  return out;
}

}  // namespace airllm::store
