#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"

namespace airllm::model {
namespace {

Json llama_config() {
  return Json{{"model_type", "llama"},    {"hidden_size", 64},
              {"intermediate_size", 172}, {"num_hidden_layers", 2},
              {"num_attention_heads", 8}, {"num_key_value_heads", 4},
              {"vocab_size", 512},        {"max_position_embeddings", 256}};
}

Result<Architecture> parse(const Json& config) {
  return parse_config(dump_json(config), "config.json");
}

TEST(ParseConfig, DefaultsAreThoseOfTransformers) {
  Json config = llama_config();
  config.erase("num_key_value_heads");
  config.erase("max_position_embeddings");
  const Result<Architecture> a = parse(config);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  EXPECT_EQ(a->family, "llama");
  EXPECT_EQ(a->kv_heads, 8U);
  EXPECT_EQ(a->head_dim, 8U);
  EXPECT_EQ(a->context, 2048U);
  EXPECT_EQ(a->norm.epsilon, 1e-6);
  EXPECT_EQ(a->ropes.front().theta, 10000.0);
  EXPECT_FALSE(a->tied_head);
  EXPECT_FALSE(a->qkv_bias);
  EXPECT_FALSE(a->mlp_bias);
  EXPECT_TRUE(a->end_tokens.empty());
  EXPECT_FALSE(a->begin_token.has_value());
  EXPECT_EQ(a->ropes.front().scaling.kind, RopeScaling::Kind::kNone);
}

TEST(ParseConfig, ReadsEverySetting) {
  Json config = llama_config();
  config["head_dim"] = 32;
  config["rms_norm_eps"] = 1e-5;
  config["tie_word_embeddings"] = true;
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  config["bos_token_id"] = 1;
  config["eos_token_id"] = Json::array({2, 7});
  const Result<Architecture> a = parse(config);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  EXPECT_EQ(a->head_dim, 32U);
  EXPECT_EQ(a->q_width(), 256U);
  EXPECT_EQ(a->kv_width(), 128U);
  EXPECT_EQ(a->norm.epsilon, 1e-5);
  EXPECT_TRUE(a->tied_head);
  EXPECT_TRUE(a->qkv_bias);
  EXPECT_TRUE(a->attention_out_bias);
  EXPECT_TRUE(a->mlp_bias);
  EXPECT_EQ(a->begin_token, 1);
  EXPECT_EQ(a->end_tokens, (std::vector<int32_t>{2, 7}));
}

TEST(ParseConfig, TokensThatCannotComeAreLeftOut) {
  Json config = llama_config();
  config["bos_token_id"] = nullptr;
  config["eos_token_id"] = Json::array({-1, 3, 512});
  const Result<Architecture> a = parse(config);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  EXPECT_EQ(a->end_tokens, std::vector<int32_t>{3});
}

TEST(ParseConfig, RotarySettingsInBothSpellings) {
  const Json scaling{{"factor", 8.0},
                     {"low_freq_factor", 1.0},
                     {"high_freq_factor", 4.0},
                     {"original_max_position_embeddings", 128}};
  Json old_style = llama_config();
  old_style["rope_theta"] = 500000.0;
  old_style["rope_scaling"] = scaling;
  old_style["rope_scaling"]["type"] = "llama3";
  Json new_style = llama_config();
  new_style["rope_scaling"] = nullptr;
  new_style["rope_parameters"] = scaling;
  new_style["rope_parameters"]["rope_theta"] = 500000;
  new_style["rope_parameters"]["rope_type"] = "llama3";
  for (const Json& config : {old_style, new_style}) {
    const Result<Architecture> a = parse(config);
    ASSERT_TRUE(a.has_value()) << a.error().message;
    EXPECT_EQ(a->ropes.front().theta, 500000.0);
    EXPECT_EQ(a->ropes.front().scaling.kind, RopeScaling::Kind::kLlama3);
    EXPECT_EQ(a->ropes.front().scaling.factor, 8.0);
    EXPECT_EQ(a->ropes.front().scaling.original_context, 128U);
  }
  Json plain = llama_config();
  plain["rope_parameters"] = Json{{"rope_theta", 1000.0}, {"rope_type", "default"}};
  const Result<Architecture> a = parse(plain);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  EXPECT_EQ(a->ropes.front().theta, 1000.0);
  EXPECT_EQ(a->ropes.front().scaling.kind, RopeScaling::Kind::kNone);
}

TEST(ParseConfig, WhatIsImpossibleOrUnknownIsNamed) {
  struct Case {
    const char* key;
    Json value;
    const char* named;  // beside the key
  };
  const Case cases[] = {
      {"model_type", "mamba", "mamba"},
      {"model_type", nullptr, "model_type"},
      {"hidden_act", "tanh", "gelu_pytorch_tanh"},
      {"hidden_size", nullptr, "missing"},
      {"hidden_size", 0, "is 0"},
      {"hidden_size", -64, "is -64"},
      {"hidden_size", 64.0, "is 64.0"},
      {"hidden_size", "64", "is \"64\""},
      {"hidden_size", uint64_t{1} << 60, "1152921504606846976"},
      {"hidden_size", 1 << 30, "1073741824"},
      {"num_hidden_layers", 0, "is 0"},
      {"num_hidden_layers", 1'000'000, "1000000"},
      {"num_attention_heads", 7, "num_attention_heads, 7"},
      {"num_key_value_heads", 3, "is 3"},
      {"num_key_value_heads", 16, "is 16"},
      {"intermediate_size", nullptr, "missing"},
      {"vocab_size", uint64_t{1} << 40, "1099511627776"},
      {"max_position_embeddings", uint64_t{1} << 32, "4294967296"},
      {"head_dim", 7, "is 7"},
      {"head_dim", 0, "is 0"},
      {"rms_norm_eps", 0, "is 0"},
      {"rms_norm_eps", -1e-5, "-1e-05"},
      {"rope_theta", 0.0, "is 0.0"},
      {"rope_theta", "x", "\"x\""},
      {"rope_scaling", 3, "is 3"},
      {"rope_scaling", Json{{"type", "mrope"}, {"factor", 4.0}}, "mrope"},
      {"rope_scaling", Json{{"type", "yarn"}, {"factor", "4"}}, "is \"4\""},
      {"rope_scaling", Json{{"type", "dynamic"}, {"factor", 0.5}}, "below 1"},
      {"rope_scaling", Json{{"rope_type", "llama3"}}, "factor"},
      {"rope_parameters", Json{{"rope_type", "longrope"}}, "short_factor"},
      {"rope_parameters", Json{{"rope_type", "longrope"}, {"short_factor", Json::array({1, 1, 1})}},
       "4 numbers"},
      {"partial_rotary_factor", 0.1, "is 0.1"},
      {"partial_rotary_factor", 1.5, "above 1"},
      {"tie_word_embeddings", "yes", "\"yes\""},
      {"attention_bias", 1, "is 1"},
      {"eos_token_id", "two", "\"two\""},
      {"eos_token_id", Json::array({1, 2.5}), "2.5"},
  };
  for (const Case& c : cases) {
    Json config = llama_config();
    config[c.key] = c.value;
    const Result<Architecture> a = parse(config);
    ASSERT_FALSE(a.has_value()) << c.key << " " << dump_json(c.value);
    EXPECT_EQ(a.error().code, ErrorCode::kData);
    const std::string told = a.error().message + " " + a.error().remedy;
    for (const char* part : {"config.json", c.key, c.named}) {
      EXPECT_NE(told.find(part), std::string::npos) << told;
    }
  }
  for (const char* text : {"", "[]", "null", "{", "{}"}) {
    EXPECT_FALSE(parse_config(text, "config.json").has_value()) << text;
  }
}

Rope plain_rope(double theta, uint64_t dim) {
  Rope rope;
  rope.theta = theta;
  rope.dim = dim;
  return rope;
}

// A file of a few bytes must not make the daemon list millions of tensors.
TEST(ParseConfig, TooManyTensorsAreRefusedBeforeTheyAreListed) {
  Json experts = llama_config();
  experts["model_type"] = "mixtral";
  experts["num_local_experts"] = 4096;
  experts["num_experts_per_tok"] = 2;
  ASSERT_TRUE(parse(experts).has_value());
  experts["num_hidden_layers"] = 4096;
  Json heads = llama_config();
  heads["model_type"] = "stablelm";
  heads["qk_layernorm"] = true;
  heads["num_hidden_layers"] = 4096;
  heads["hidden_size"] = 1 << 20;
  heads["num_attention_heads"] = heads["num_key_value_heads"] = 1 << 16;
  for (const Json& config : {experts, heads}) {
    const Result<Architecture> a = parse(config);
    ASSERT_FALSE(a.has_value());
    EXPECT_NE(a.error().message.find("too many layers"), std::string::npos) << a.error().message;
  }
}

TEST(ParseConfig, ExpertsThatCannotBeChosenAreNamed) {
  struct Case {
    const char* key;
    Json value;
  };
  const Case cases[] = {
      {"n_routed_experts", 0},    {"n_routed_experts", 7}, {"num_experts_per_tok", 9},
      {"num_experts_per_tok", 5}, {"topk_group", 5},       {"n_group", 3},
      {"kv_lora_rank", 0},        {"qk_rope_head_dim", 3}, {"moe_intermediate_size", nullptr}};
  for (const Case& c : cases) {
    Json config = llama_config();
    config["model_type"] = "deepseek_v3";
    config.update({{"kv_lora_rank", 16},
                   {"qk_nope_head_dim", 8},
                   {"qk_rope_head_dim", 4},
                   {"v_head_dim", 8},
                   {"n_routed_experts", 8},
                   {"num_experts_per_tok", 3},
                   {"moe_intermediate_size", 16},
                   {"n_group", 4},
                   {"topk_group", 2}});
    ASSERT_TRUE(parse(config).has_value()) << parse(config).error().message;
    config[c.key] = c.value;
    const Result<Architecture> a = parse(config);
    ASSERT_FALSE(a.has_value()) << c.key << " " << dump_json(c.value);
    EXPECT_EQ(a.error().code, ErrorCode::kData);
  }
}

// Expected values: transformers' formulas in double precision, rounded; the tolerance is a few
// units in the last place of float32, in which both compute.
TEST(InverseFrequencies, PlainAreInverseGeometric) {
  const std::vector<float> found = inverse_frequencies(plain_rope(10000, 8), 0);
  const float expected[] = {1.0F, 0.1F, 0.01F, 0.001F};
  ASSERT_EQ(found.size(), 4U);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 4e-7 * expected[i]);
}

TEST(InverseFrequencies, Llama3StretchesLowFrequenciesOnly) {
  Rope rope = plain_rope(500000, 128);
  const std::vector<float> plain = inverse_frequencies(rope, 0);
  rope.scaling.kind = RopeScaling::Kind::kLlama3;
  rope.scaling.factor = 8;
  rope.scaling.original_context = 8192;
  const std::vector<float> scaled = inverse_frequencies(rope, 0);
  ASSERT_EQ(scaled.size(), 64U);
  size_t kept = 0, stretched = 0;
  for (size_t i = 0; i < scaled.size(); ++i) {
    const double wavelength = 2 * 3.14159265358979 / static_cast<double>(plain[i]);
    if (wavelength < 2048) {
      EXPECT_EQ(scaled[i], plain[i]) << i;
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_EQ(scaled[i], plain[i] / 8) << i;
      ++stretched;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      const double expected = ((1 - smooth) / 8 + smooth) * static_cast<double>(plain[i]);
      EXPECT_NEAR(scaled[i], expected, 1e-6 * expected) << i;
    }
  }
  // As in Llama 3.1: 29 pairs as they were, 6 between, 29 stretched.
  EXPECT_EQ(kept, 29U);
  EXPECT_EQ(stretched, 29U);
}

// transformers' tests/families hold the others to; here is what changes with the length.
TEST(InverseFrequencies, SomeDependOnTheLength) {
  Architecture a;
  a.ropes.push_back(plain_rope(10000, 8));
  Rope& rope = a.ropes.front();
  EXPECT_TRUE(are_rotated_alike(a, 1, 1000000));
  rope.scaling.kind = RopeScaling::Kind::kDynamic;
  rope.scaling.factor = 2;
  rope.scaling.original_context = 100;
  EXPECT_TRUE(are_rotated_alike(a, 1, 100));
  EXPECT_FALSE(are_rotated_alike(a, 100, 101));
  EXPECT_FALSE(are_rotated_alike(a, 101, 102));
  EXPECT_EQ(inverse_frequencies(rope, 1), inverse_frequencies(rope, 100));
  EXPECT_GT(inverse_frequencies(rope, 100)[1], inverse_frequencies(rope, 101)[1]);
  rope.scaling.kind = RopeScaling::Kind::kLongrope;
  rope.scaling.short_factors = {1, 1, 1, 1};
  rope.scaling.long_factors = {1, 2, 4, 8};
  EXPECT_TRUE(are_rotated_alike(a, 1, 100));
  EXPECT_FALSE(are_rotated_alike(a, 100, 101));
  EXPECT_TRUE(are_rotated_alike(a, 101, 1000));
  EXPECT_EQ(inverse_frequencies(rope, 100)[2], 4 * inverse_frequencies(rope, 101)[2]);
}

TEST(AlibiSlopes, AreThoseOfThePaper) {
  EXPECT_EQ(alibi_slopes(4), (std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F}));
  const std::vector<float> six = alibi_slopes(6);
  ASSERT_EQ(six.size(), 6U);
  EXPECT_EQ(six[3], 0.00390625F);
  EXPECT_EQ(six[4], 0.5F);
  EXPECT_EQ(six[5], 0.125F);
}

TEST(Stages, ComeInTheOrderOfUse) {
  const Result<Architecture> a = parse(llama_config());
  const std::vector<StageSpec> all = stages(*a);
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0].shard_name, "000-embedding");
  EXPECT_EQ(all[1].shard_name, "001-layer-000");
  EXPECT_EQ(all[2].shard_name, "002-layer-001");
  EXPECT_EQ(all[2].layer, 1U);
  EXPECT_EQ(all[3].shard_name, "003-head");
  ASSERT_EQ(all[1].tensors.size(), 9U);
  EXPECT_EQ(all[1].tensors[0].name, "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(all[1].tensors[0].shape, std::vector<uint64_t>{64});
  EXPECT_EQ(all[1].tensors[2].name, "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(all[1].tensors[2].shape, (std::vector<uint64_t>{32, 64}));
  EXPECT_EQ(all[2].tensors[8].name, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(all[2].tensors[8].shape, (std::vector<uint64_t>{64, 172}));
  ASSERT_EQ(all[3].tensors.size(), 2U);
  EXPECT_EQ(all[3].tensors[1].name, "lm_head.weight");
}

TEST(Stages, BiasesFollowTheirWeights) {
  Json config = llama_config();
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  const std::vector<StageSpec> all = stages(*parse(config));
  ASSERT_EQ(all[1].tensors.size(), 16U);
  for (size_t i = 1; i < all[1].tensors.size(); ++i) {
    const TensorSpec& bias = all[1].tensors[i];
    if (!bias.name.ends_with(".bias")) continue;
    const TensorSpec& weight = all[1].tensors[i - 1];
    EXPECT_EQ(weight.name, bias.name.substr(0, bias.name.size() - 4) + "weight");
    EXPECT_EQ(bias.shape, std::vector<uint64_t>{weight.shape[0]});
  }
}

// Tiles stream in the order of the tensors; the steps that they drive must not wait for another.
TEST(Stages, StepsUseTheTensorsInOrderAndAllOfThem) {
  for (const bool tied : {false, true}) {
    Json config = llama_config();
    config["attention_bias"] = true;
    config["mlp_bias"] = true;
    config["tie_word_embeddings"] = tied;
    for (const StageSpec& stage : stages(*parse(config))) {
      if (stage.kind == StageSpec::Kind::kEmbedding) continue;  // looked up, not streamed
      size_t next = 0;
      for (const Step& step : stage.steps) {
        if (step.tensor == Step::kNoTensor || step.tensor == Step::kBorrowed) continue;
        EXPECT_EQ(step.tensor, next++) << stage.shard_name;
      }
      EXPECT_EQ(next, stage.tensors.size()) << stage.shard_name;
    }
  }
}

TEST(Stages, TiedHeadHasNoWeightOfItsOwn) {
  Json config = llama_config();
  const Result<Architecture> own = parse(config);
  EXPECT_FALSE(stages(*own).back().borrowed);
  config["tie_word_embeddings"] = true;
  const Result<Architecture> tied = parse(config);
  EXPECT_EQ(stages(*tied).back().tensors.size(), 1U);
  EXPECT_EQ(stages(*tied).back().borrowed, "model.embed_tokens.weight");
  EXPECT_TRUE(is_ignorable_tensor(*tied, "lm_head.weight"));
  EXPECT_FALSE(is_ignorable_tensor(*own, "lm_head.weight"));
  EXPECT_TRUE(is_ignorable_tensor(*own, "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(is_ignorable_tensor(*own, "model.norm.weight"));
}

}  // namespace
}  // namespace airllm::model
