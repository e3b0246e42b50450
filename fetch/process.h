// The process around a session: what it may do, what it holds, and where its connection comes from.
#pragma once

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "fetch/secret.h"

namespace airllm::fetch {

// The connection: `socket_fd`, or the one that the service manager passed (LISTEN_FDS); of a
// listening socket the next connection, which is waited for. kUsage when there is none.
Result<UniqueFd> take_connection(std::optional<int> socket_fd);

// The service's own token, from the credential "hf-token" (systemd.exec(5), LoadCredential=); empty
// without one. Blanks around it do not count.
Result<Secret> take_own_token();

// From now on: no new privileges, no core files, nobody may trace it, no descriptor but `keep` and
// the standard ones, no tokens in the environment, and no folder that it stands in.
Status close_off(int keep);

}  // namespace airllm::fetch
