#include "engine/tokenizer/split.h"

#include <algorithm>

namespace airllm::tokenizer {
namespace {

struct Segment {
  Range range;
  bool is_match;
};

// Matches and what lies between them.
std::vector<Segment> segments_of(uint32_t size, const std::vector<Range>& matches, bool invert) {
  std::vector<Segment> segments;
  segments.reserve(matches.size() + 1);
  uint32_t done = 0;
  for (const Range& match : matches) {
    if (done != match.begin) segments.push_back({{done, match.begin}, invert});
    segments.push_back({match, !invert});
    done = match.end;
  }
  if (done != size) segments.push_back({{done, size}, invert});
  return segments;
}

// Joins a segment to the one before where `joins(is_match, previous_is_match)`.
template <typename Joins>
std::vector<Range> join_forward(const std::vector<Segment>& segments, Joins joins) {
  std::vector<Range> pieces;
  bool previous = false;
  for (const Segment& segment : segments) {
    if (!pieces.empty() && joins(segment.is_match, previous)) {
      pieces.back().end = segment.range.end;
    } else {
      pieces.push_back(segment.range);
    }
    previous = segment.is_match;
  }
  return pieces;
}

std::vector<Range> join_with_next(const std::vector<Segment>& segments) {
  std::vector<Range> pieces;
  bool following = false;
  for (auto segment = segments.rbegin(); segment != segments.rend(); ++segment) {
    if (!pieces.empty() && segment->is_match && !following) {
      pieces.back().begin = segment->range.begin;
    } else {
      pieces.push_back(segment->range);
    }
    following = segment->is_match;
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<Range> pieces_of(const std::vector<Segment>& segments, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kMergedWithPrevious:
      return join_forward(segments, [](bool match, bool previous) { return match && !previous; });
    case SplitBehavior::kContiguous:
      return join_forward(segments, [](bool match, bool previous) { return match == previous; });
    case SplitBehavior::kMergedWithNext: return join_with_next(segments);
    case SplitBehavior::kIsolated:
    case SplitBehavior::kRemoved: break;
  }
  std::vector<Range> pieces;
  for (const Segment& segment : segments) {
    if (behavior == SplitBehavior::kRemoved && segment.is_match) continue;
    pieces.push_back(segment.range);
  }
  return pieces;
}

}  // namespace

std::optional<SplitBehavior> split_behavior_from_name(std::string_view name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return std::nullopt;
}

std::vector<Range> split_at_matches(size_t size, const std::vector<Range>& matches, bool invert,
                                    SplitBehavior behavior) {
  std::vector<Range> pieces =
      pieces_of(segments_of(static_cast<uint32_t>(size), matches, invert), behavior);
  std::erase_if(pieces, [](const Range& piece) { return piece.begin == piece.end; });
  return pieces;
}

}  // namespace airllm::tokenizer
