// The files of a repository, as the hub's information about it lists them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "protocol/fetch_messages.h"

namespace airllm::fetch {

// More than any model has. The text of a listing may have 300 bytes for each and something besides.
inline constexpr size_t kMaxFiles = 100000;
inline constexpr size_t kMaxListingBytes = size_t{32} << 20;

struct Listing {
  std::string commit;
  std::vector<protocol::ListedFile> files;  // in the hub's order
  uint64_t size_bytes = 0;                  // of all
};

// Reads the JSON of docs/hub-protocol.md ("Listings"). Names are checked: a kData error names the
// first that is not to be trusted, that comes twice, or that is another one's folder. kData also
// for what is no listing, and for more than kMaxFiles.
Result<Listing> parse_listing(std::string_view text, std::string_view what);

}  // namespace airllm::fetch
