// What the conversations of this folder have in common: the outermost map of a message, hello,
// cancel, and an error's fields.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "protocol/messages.h"
#include "protocol/msgpack_view.h"

namespace airllm::protocol {

class Writer;

// A checked payload. Borrows its bytes.
struct Opened {
  MapView map;
  std::string type;
};
Result<Opened> open_payload(std::string_view payload);

// The map under `key`; an absent one is empty.
Result<MapView> read_map(const MapView& parent, std::string_view key);

// A kProtocol error that names a method, an event or the like that this version does not know.
Unexpected unknown_word(const char* what, const std::string& word);

Result<Hello> read_hello(const MapView& map);
Result<Cancel> read_cancel(const MapView& map);
void write(Writer& out, const Hello& hello);
void write(Writer& out, const Cancel& cancel);

// The fields code, message and remedy of an event's body.
inline constexpr size_t kErrorFields = 3;
Result<Error> read_error(const MapView& map);
void write_error(Writer& out, const Error& error);

}  // namespace airllm::protocol
