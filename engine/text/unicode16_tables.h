// The tables of Unicode 16 behind engine/text/code_point_set.h, as ranges in order; the file with
// the data is generated.
#pragma once

#include <cstddef>
#include <cstdint>

namespace airllm::text {

struct NamedClass {
  const char* name;  // lower case, without '_', '-' and spaces
  uint8_t number;
};
struct NamedSpan {
  const char* name;
  uint32_t first, count;  // of kPropertyEdges
};

// start << 8 | class: the class holds up to the next start.
extern const uint32_t kCategoryStarts[];
extern const size_t kCategoryStartsSize;
extern const uint32_t kScriptStarts[];  // class 0: none
extern const size_t kScriptStartsSize;
extern const NamedClass kCategoryNames[];
extern const size_t kCategoryNamesSize;
extern const NamedClass kScriptNames[];
extern const size_t kScriptNamesSize;

// begin, end, begin, end, ...
extern const uint32_t kPropertyEdges[];
extern const size_t kPropertyEdgesSize;
extern const NamedSpan kProperties[];
extern const size_t kPropertiesSize;

// Characters that match each other without case: count, characters, count, characters, ...
extern const uint32_t kFoldGroups[];
extern const size_t kFoldGroupsSize;
// Strings of several characters that match a single one without case, and those single ones.
extern const char* const kExpandedFolds[];
extern const size_t kExpandedFoldsSize;
extern const uint32_t kExpandingFolds[];
extern const size_t kExpandingFoldsSize;

}  // namespace airllm::text
