// What the downloader reads: a daemon's messages, a hub's answers, and journals.
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "base/check.h"
#include "fetch/journal.h"
#include "fetch/listing.h"
#include "fetch/names.h"
#include "fetch/piece_plan.h"
#include "fetch/response_head.h"
#include "fetch/url.h"
#include "tests/fetch/scratch_file.h"
#include "tests/fuzz/message_target.h"
#include "tests/protocol/samples.h"

namespace airllm::fuzz {
namespace {

using namespace protocol;  // NOLINT(google-build-using-namespace): of the code under test

template <typename T>
Target fetch_request(const std::string& method) {
  return request_target<ToFetch, FetchRequest, T>("fetch_" + method, method,
                                                  sample_messages_to_fetch());
}

template <typename T>
Target fetch_event(const std::string& kind) {
  return event_target<FromFetch, FetchEvent, T>("fetch_" + kind, kind,
                                                sample_messages_from_fetch());
}

// ---- a hub's answers ---------------------------------------------------------------------------

// A listing that is accepted has names that are safe to write, each once.
bool run_listing(std::string_view input) {
  const auto listing = fetch::parse_listing(input, "u");
  if (!listing) {
    AIRLLM_CHECK(listing.error().code == ErrorCode::kData);
    AIRLLM_CHECK(listing.error().message.starts_with("u: "));
    return false;
  }
  std::vector<std::string> names;
  for (const ListedFile& file : listing->files) {
    AIRLLM_CHECK(fetch::check_file_name(file.name).has_value());
    AIRLLM_CHECK(file.size <= fetch::kMaxFileBytes);
    names.push_back(file.name);
  }
  std::sort(names.begin(), names.end());
  AIRLLM_CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  return true;
}

Target listing() {
  const std::string commit(40, 'c');
  const std::string blob = R"(", "blobId": ")" + commit + R"(")";
  const std::string sha256(64, 'a');
  return {"fetch_listing",
          run_listing,
          {R"({"sha": ")" + commit + R"(", "siblings": []})",
           R"({"id": "a/b", "sha": ")" + commit + R"(", "siblings": [{"size": 1, "rfilename": "x)" +
               blob + R"(}, {"size": 9, "lfs": {"sha256": ")" + sha256 +
               R"(", "size": 9, "pointerSize": 1}, "rfilename": "d/ü)" + blob + "}]}"}};
}

// The input: a status, and lines. A body that is taken lies inside of what was asked for.
bool run_answer(std::string_view input) {
  if (input.empty()) return false;
  fetch::ResponseHead head;
  head.status = 150 + static_cast<uint8_t>(input[0]);
  input.remove_prefix(1);
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size() - 1) + 1;
    head.add_line(input.substr(0, end));
    input.remove_prefix(end);
  }
  if (const auto wait = fetch::asked_wait(head, 1'700'000'000)) AIRLLM_CHECK(wait->count() >= 0);
  const fetch::Url from = fetch::Url::parse("https://hub.example/a/b?c", "test").value();
  if (const auto location = head.location()) {
    const auto target = from.redirected(*location);
    AIRLLM_CHECK(!target || target->origin().is_encrypted());
    return target.has_value();
  }
  const auto place = fetch::body_place(head, 100, 200, 1000);
  if (!place) {
    AIRLLM_CHECK(place.error().code == ErrorCode::kData);
    return false;
  }
  if (place->is_whole) {
    AIRLLM_CHECK(place->begin == 0 && place->end == 1000);
  } else {
    AIRLLM_CHECK(place->begin == 100 && place->end > 100 && place->end <= 200);
  }
  return true;
}

Target answer() {
  const auto status = [](int number) { return std::string(1, static_cast<char>(number - 150)); };
  return {"fetch_answer",
          run_answer,
          {status(206) + "Content-Range: bytes 100-199/1000\r\nContent-Length: 100\r\n",
           status(200) + "RateLimit: \"x\";r=0;t=5\r\nRetry-After: Tue, 14 Nov 2023 22:13:50 GMT\n",
           status(302) + "Location: /c?d#e\n", status(307) + "Location: https://[::1]:80/%20\n"}};
}

// A URL that is accepted is one again, of the same origin.
bool run_url(std::string_view input) {
  const auto url = fetch::Url::parse(input, "test");
  if (!url) {
    AIRLLM_CHECK(url.error().code == ErrorCode::kUsage);
    return false;
  }
  const auto again = fetch::Url::parse(url->text(), "test");
  AIRLLM_CHECK(again.has_value() && again->origin() == url->origin());
  AIRLLM_CHECK(url->shown().find('?') == std::string::npos);
  return true;
}

Target url() {
  return {"fetch_url",
          run_url,
          {"https://hub.example/a/b?c=d#e", "http://[::1]:8080", "https://127.0.0.1/%2e%2e/x"}};
}

// ---- journals ----------------------------------------------------------------------------------

// What a journal's pages hold (docs/fetch.md); the rest of them is empty.
struct Part {
  size_t offset;
  size_t bytes;
};
constexpr Part kJournalParts[] = {{0, 152},     {4096, 1024}, {8192, 120}, {12288, 120},
                                  {16384, 120}, {20480, 120}, {24576, 2}};

std::string expanded(std::string_view input) {
  std::string file(kJournalParts[std::size(kJournalParts) - 1].offset + 2, '\0');
  for (const Part& part : kJournalParts) {
    const std::string_view content = input.substr(0, part.bytes);
    file.replace(part.offset, content.size(), content);
    input.remove_prefix(content.size());
  }
  return file;
}

std::string compacted(const std::string& file) {
  std::string out;
  for (const Part& part : kJournalParts) out += file.substr(part.offset, part.bytes);
  return out;
}

// The input: these parts. Whatever a journal holds, what is made of it fits the file, and the whole
// file can be had.
bool run_journal(std::string_view input) {
  constexpr uint64_t kSize = 9 * fetch::kBlockBytes + 5;
  const fetch::JournalSubject subject{kSize, fetch::HashKind::kSha256, std::string(64, 'a'), 7};
  const fetch::BootId boot{};
  fetch::ScratchFile file;
  file.set_content(expanded(input));
  auto journal = fetch::Journal::open(file.descriptor(), subject, boot);
  AIRLLM_CHECK(journal.has_value());
  fetch::JournalContent content = journal->take_content();
  const uint64_t prefix = content.checkpoint ? content.checkpoint->prefix : 0;
  AIRLLM_CHECK(prefix <= kSize);
  fetch::PiecePlan plan(kSize, prefix, std::move(content.blocks), content.lanes);
  uint64_t missing = plan.missing();
  AIRLLM_CHECK(missing <= kSize - prefix);
  while (auto piece = plan.take(UINT64_MAX, fetch::kBlockBytes)) {
    while (piece->position < piece->end) {
      const uint64_t count = std::min(fetch::kBlockBytes - piece->position % fetch::kBlockBytes,
                                      piece->end - piece->position);
      missing -= count;
      plan.wrote(*piece, piece->position, count);
    }
    plan.give_back(*piece);
  }
  AIRLLM_CHECK(missing == 0 && plan.is_complete());
  return content.fresh_because.empty();
}

Target journal() {
  constexpr uint64_t kSize = 9 * fetch::kBlockBytes + 5;
  const fetch::JournalSubject subject{kSize, fetch::HashKind::kSha256, std::string(64, 'a'), 7};
  const fetch::ScratchFile file;
  auto made = fetch::Journal::open(file.descriptor(), subject, fetch::BootId{}).value();
  const std::string fresh = compacted(file.content());
  const std::vector<uint8_t> blocks{0b01100001, 1};
  AIRLLM_CHECK(made.save_blocks(0, 1, blocks) && made.save_blocks(8, 9, blocks));
  AIRLLM_CHECK(made.save_lane(3, {1, 77}, 1000).has_value());
  AIRLLM_CHECK(made.save_live({fetch::kBlockBytes, {}}) && made.save_durable({17, {}}));
  return {"fetch_journal", run_journal, {fresh, compacted(file.content())}};
}

}  // namespace

std::vector<Target> fetch_targets() {
  const std::vector<ToFetch> to = sample_messages_to_fetch();
  const std::vector<FromFetch> from = sample_messages_from_fetch();
  return {
      any_message("to_fetch", to),
      any_message("from_fetch", from),
      flat_message<ToFetch, FetchSettings>("fetch_settings", "settings", to),
      flat_message<ToFetch, Grant>("fetch_grant", "grant", to),
      fetch_request<RepositoryParams>("repository"),
      fetch_request<ReadParams>("read"),
      fetch_request<FileParams>("file"),
      fetch_event<ListedFiles>("files"),
      fetch_event<FetchData>("data"),
      fetch_event<FetchProgress>("progress"),
      fetch_event<FetchDone>("done"),
      fetch_event<FetchFailed>("error"),
      listing(),
      answer(),
      url(),
      journal(),
  };
}

}  // namespace airllm::fuzz
