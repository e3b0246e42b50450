// Signals that end the client early: SIGINT, SIGTERM and SIGHUP ask the daemon to cancel first.
//
// The first signal is remembered and makes a descriptor readable, so that every wait can include
// it; the second one ends the process at once, whatever it is blocked in. SIGPIPE keeps its default
// disposition: a closed stdout ends the client, the kernel closes the socket, the daemon cancels.
#pragma once

namespace airllm::client {

// Call once, before anything waits. A SIGHUP that nohup(1) ignores stays ignored.
void install_signal_handlers();
// Readable for ever once a signal was caught; -1 before install_signal_handlers().
int signal_wake_fd();
// The first signal that was caught, or 0.
int caught_signal();

// 128 plus the signal that was caught, as shells count; 130 when there was none.
int cancelled_exit_status();

}  // namespace airllm::client
