// Files of SentencePiece that were not written by it.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/load_tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_writer.h"

namespace airllm::tokenizer {
namespace {

constexpr unsigned kUnknown = 2, kUserDefined = 4, kUnused = 5, kByte = 6;

std::string small_model() {
  return piece_field("<unk>", 0, kUnknown) + piece_field("a", -1) + piece_field("b", -2);
}

std::string trainer_spec(const std::string& fields) { return bytes_field(2, fields); }

std::string refusal(const std::string& bytes) {
  const auto loaded = load_tokenizer({.tokenizer_model = bytes}, "m");
  EXPECT_FALSE(loaded);
  if (loaded) return "";
  EXPECT_EQ(loaded.error().code, ErrorCode::kData);
  EXPECT_FALSE(loaded.error().remedy.empty());
  return loaded.error().message;
}

std::vector<int32_t> encode_with(const std::string& bytes, const std::string& text) {
  const auto loaded = load_tokenizer({.tokenizer_model = bytes}, "m");
  EXPECT_TRUE(loaded) << loaded.error().message;
  return loaded ? encode(**loaded, text, false) : std::vector<int32_t>();
}

TEST(SentencePieceFile, UnknownFieldsAreSkipped) {
  const std::string bytes = small_model() + bytes_field(300, "x") + number_field(301, 1) +
                            float_field(302, 1) + trainer_spec(bytes_field(99, "new"));
  EXPECT_EQ(encode_with(bytes, "ab"), std::vector<int32_t>({0, 1, 2}));
}

TEST(SentencePieceFile, BrokenMessagesAreRefused) {
  const std::string good = small_model();
  EXPECT_EQ(refusal(""), "m/tokenizer.model: it has no pieces that a text can be made of");
  EXPECT_EQ(refusal(good + "\x08"),
            "m/tokenizer.model: at byte 41: the message ends inside a number");
  EXPECT_EQ(refusal(good + "\x08\x80"),
            "m/tokenizer.model: at byte 42: the message ends inside a number");
  EXPECT_EQ(refusal(good + "\x08" + std::string(10, '\xFF')),
            "m/tokenizer.model: at byte 51: a number has more than 64 bits");
  EXPECT_EQ(refusal(good + "\x0A\x05zzzz"),
            "m/tokenizer.model: at byte 40: field 1 has 5 bytes, but 4 are left of the message");
  EXPECT_EQ(refusal(good + "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
            "m/tokenizer.model: at byte 40: field 1 has 18446744073709551615 bytes, but 0 are left "
            "of the message");
  EXPECT_EQ(refusal(good + std::string("\x00\x00", 2)),
            "m/tokenizer.model: at byte 40: no field has this number");
  EXPECT_EQ(refusal(good + "\x0B"), "m/tokenizer.model: at byte 40: groups are not supported");
  EXPECT_EQ(refusal(good + "\x0F"), "m/tokenizer.model: at byte 40: no field has this wire type");
  EXPECT_EQ(refusal(good + "\x0D\x01\x02"),
            "m/tokenizer.model: at byte 41: the message ends inside a number");
  EXPECT_EQ(refusal(good + number_field(1, 7)),
            "m/tokenizer.model: at byte 40: a piece is a number instead of bytes");
  EXPECT_EQ(refusal(good + bytes_field(1, bytes_field(1, "c") + number_field(2, 1))),
            "m/tokenizer.model: at byte 45: a piece's score is a number instead of a number of 32 "
            "bits");
  EXPECT_EQ(refusal(good + trainer_spec(bytes_field(35, "x"))),
            "m/tokenizer.model: at byte 42: byte_fallback is bytes instead of a number");
  EXPECT_EQ(refusal("{\"not\": \"protobuf\"}"),
            "m/tokenizer.model: at byte 0: groups are not supported");
}

// Every beginning and every change of one byte is taken or refused, and nothing worse.
TEST(SentencePieceFile, DamagedFilesBreakNothing) {
  for (const char* name : {"bpe.model", "unigram_bytes.model"}) {
    const std::string whole = sentencepiece_fixture(name);
    for (size_t size = 0; size < whole.size(); size += 7) {
      const auto loaded = load_tokenizer({.tokenizer_model = whole.substr(0, size)}, "m");
      EXPECT_FALSE(loaded && encode(**loaded, "hello 12", false).empty());
    }
    for (size_t at = 0; at < whole.size(); at += 3) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
      const auto loaded = load_tokenizer({.tokenizer_model = changed}, "m");
      if (!loaded) continue;
      const std::vector<int32_t> ids = encode(**loaded, "hello 12", false);
      EXPECT_EQ(stream_text(**loaded, ids, false), (*loaded)->decode(ids, false));
    }
  }
}

TEST(SentencePieceFile, PiecesThatMakeNoVocabularyAreRefused) {
  const std::string good = small_model();
  const std::string file = "m/tokenizer.model: ";
  EXPECT_EQ(refusal(piece_field("a", 0)), file + "it has no unknown piece");
  EXPECT_EQ(refusal(piece_field("<unk>", 0, kUnknown)),
            file + "it has no pieces that a text can be made of");
  EXPECT_EQ(refusal(good + piece_field("?", 0, kUnknown)),
            file + "piece 3 ('?') and piece 0 ('<unk>') are both unknown pieces");
  EXPECT_EQ(refusal(good + piece_field("a", -3)),
            file + "piece 3 ('a') has the text of a piece before it");
  EXPECT_EQ(
      refusal(good + piece_field("<x>", 0, kUserDefined) + piece_field("<x>", 0, kUserDefined)),
      file + "piece 4 ('<x>') has the text of a piece before it");
  EXPECT_EQ(refusal(good + piece_field("", -3)), file + "piece 3 is empty");
  EXPECT_EQ(refusal(good + piece_field(std::string("x\0", 2), -3)),
            file + "piece 3 ('x\\x00') has a zero byte");
  EXPECT_EQ(refusal(good + piece_field(std::string(8000, 'x'), -3)),
            file + "piece 3 ('" + std::string(80, 'x') + "') is longer than 7999 bytes");
  EXPECT_EQ(refusal(good + piece_field("\xC3", -3)),
            file + "at byte 42: a piece's text is not UTF-8: '\\xc3'");
  for (const float score : {std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(refusal(good + piece_field("c", score)),
              file + "piece 3 ('c') has a score that is not finite");
  }
  EXPECT_EQ(refusal(good + piece_field("c", -3, 7)),
            file + "at byte 50: a piece has the type 7, which is not known");
  EXPECT_EQ(refusal(good + piece_field("<0x41>", -3, kByte)),
            file + "piece 3 ('<0x41>') is a byte, but byte_fallback is not set");
  const std::string with_bytes = good + trainer_spec(number_field(35, 1));
  EXPECT_EQ(refusal(with_bytes),
            file + "byte_fallback is set, but there is no piece for the byte 0");
  EXPECT_EQ(refusal(with_bytes + piece_field("<0x4g>", -3, kByte)),
            file + "piece 3 ('<0x4g>') is a byte, but is not written as <0x00> to <0xFF>");
}

// One piece for texts and one for control may have the same text in a Unigram model, not in BPE.
TEST(SentencePieceFile, WhereATextMayOccurTwice) {
  const std::string twice = small_model() + piece_field("<s>", -1) + piece_field("<s>", 0, 3);
  EXPECT_EQ(encode_with(twice + bytes_field(3, number_field(3, 0)), "<s>"),
            std::vector<int32_t>({4}));
  EXPECT_EQ(refusal(twice + trainer_spec(number_field(3, 2))),
            "m/tokenizer.model: piece 4 ('<s>') has the text of a piece before it");
}

TEST(SentencePieceFile, OtherKindsOfModelsAreRefusedByName) {
  const auto ask = [](unsigned type) {
    return refusal(small_model() + trainer_spec(number_field(3, type)));
  };
  EXPECT_EQ(ask(3),
            "m/tokenizer.model: its model_type is WORD; only UNIGRAM and BPE are supported");
  EXPECT_EQ(ask(4),
            "m/tokenizer.model: its model_type is CHAR; only UNIGRAM and BPE are supported");
  EXPECT_EQ(
      ask(9),
      "m/tokenizer.model: its model_type is the number 9; only UNIGRAM and BPE are supported");
}

// As the original: piece 1 is there and is not; without byte_fallback it is an error.
TEST(SentencePieceFile, APieceOfAZeroByteIsPassedOverBesideBytes) {
  std::string bytes = piece_field("<unk>", 0, kUnknown) + piece_field(std::string(1, '\0'), 0);
  for (unsigned byte = 0; byte < 256; ++byte) {
    char text[7];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    bytes += piece_field(text, 0, kByte);
  }
  bytes += piece_field("a", -1) + trainer_spec(number_field(35, 1) + number_field(3, 2)) +
           bytes_field(3, number_field(3, 0));
  EXPECT_EQ(encode_with(bytes, std::string("a\0", 2)), std::vector<int32_t>({258, 2}));
  EXPECT_EQ(refusal(small_model() + piece_field(std::string(1, '\0'), 0)),
            "m/tokenizer.model: piece 3 ('\\x00') has a zero byte");
  EXPECT_EQ(encode_with(small_model() + piece_field(std::string(1, '\0'), 0, kUnused), "a"),
            std::vector<int32_t>({0, 1}));
}

// ---- the map of characters ---------------------------------------------------------------------

// Of units, then of what they lead to.
std::string charsmap(const std::vector<uint32_t>& units, const std::string& texts) {
  std::string out;
  const auto add = [&](uint32_t number) {
    for (unsigned shift = 0; shift < 32; shift += 8) out += static_cast<char>(number >> shift);
  };
  add(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) add(unit);
  return out + texts;
}

// One rule: 'a' becomes the text at `value`. The root leads to block 1, where 'a' is unit 0x161;
// that one leads to its value by an offset of 0x200. The other units have a label that is never
// asked.
std::vector<uint32_t> one_rule(uint32_t value) {
  std::vector<uint32_t> units(1024, 1);
  units[0] = 0x100 << 10;
  units[0x161] = (0x200U << 10) | 0x100 | 'a';
  units[0x161 ^ 0x200] = 0x80000000U | value;
  return units;
}

std::string charsmap_refusal(const std::string& bytes) {
  const auto map = Charsmap::from_bytes(bytes, "f");
  EXPECT_FALSE(map);
  return map ? "" : map.error().message;
}

TEST(Charsmap, FollowsItsRules) {
  const auto map = Charsmap::from_bytes(charsmap(one_rule(2), std::string("x\0yz\0", 5)), "f");
  ASSERT_TRUE(map) << map.error().message;
  const auto match = map->longest("ab");
  ASSERT_TRUE(match);
  EXPECT_EQ(match->length, 1U);
  EXPECT_EQ(match->text, "yz");
  EXPECT_EQ(map->shortest("ab")->text, "yz");
  EXPECT_FALSE(map->longest("b"));
  EXPECT_FALSE(map->longest(""));
}

TEST(Charsmap, BrokenOnesAreRefused) {
  const std::string texts("x\0", 2);
  EXPECT_EQ(charsmap_refusal(""), "f: the map is shorter than its header");
  EXPECT_EQ(charsmap_refusal(std::string("\x00\x04\x00\x00xyz", 7)),
            "f: the map's tree has 1024 bytes, but only 3 follow");
  EXPECT_EQ(charsmap_refusal(charsmap({1, 2, 3}, texts)),
            "f: the size of the map's tree, 12 bytes, is not a multiple of 1024");
  EXPECT_EQ(charsmap_refusal(charsmap({}, texts)),
            "f: the size of the map's tree, 0 bytes, is not a multiple of 1024");
  EXPECT_EQ(charsmap_refusal(charsmap(one_rule(0), "x")),
            "f: the map does not end with a zero byte");
  EXPECT_EQ(charsmap_refusal(charsmap(one_rule(0), std::string("\xC3\0", 2))),
            "f: the map's replacements are not UTF-8 at byte 0");
  EXPECT_EQ(charsmap_refusal(charsmap(one_rule(1), std::string("\xC3\xA9\0", 3))),
            "f: unit 865 of the map's tree leads into the middle of a character");
  EXPECT_EQ(charsmap_refusal(charsmap(one_rule(2), texts)),
            "f: unit 865 of the map's tree leads out of the replacements");
  std::vector<uint32_t> units = one_rule(0);
  units[0] = 0;
  EXPECT_EQ(charsmap_refusal(charsmap(units, texts)), "f: unit 0 of the map's tree is no root");
  units = one_rule(0);
  units[0x161] = (0x400U << 10) | 'a';
  EXPECT_EQ(charsmap_refusal(charsmap(units, texts)),
            "f: unit 353 of the map's tree leads out of the tree");
  units = one_rule(0);
  units[0x161 ^ 0x200] = 'b';
  EXPECT_EQ(charsmap_refusal(charsmap(units, texts)),
            "f: unit 353 of the map's tree has no value where it says so");
  EXPECT_EQ(refusal(small_model() + bytes_field(3, bytes_field(2, "abc"))),
            "m/tokenizer.model: precompiled_charsmap: the map is shorter than its header");
}

// A rule for half a character: what is left of it is not lost silently.
TEST(Charsmap, ARuleForHalfACharacterLeavesUtf8) {
  std::vector<uint32_t> units = one_rule(0);
  units[0x161] = 1;
  units[0x1C3] = (0x200U << 10) | 0x100 | 0xC3;
  units[0x1C3 ^ 0x200] = 0x80000000U;
  const std::string bytes =
      small_model() + piece_field("\uFFFD", -3) +
      bytes_field(3, bytes_field(2, charsmap(units, std::string("a\0", 2))) + number_field(3, 0));
  EXPECT_EQ(encode_with(bytes, "\u00e9b"), std::vector<int32_t>({1, 3, 2}));
}

}  // namespace
}  // namespace airllm::tokenizer
