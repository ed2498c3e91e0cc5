// Who goes when strangers have taken all places.
#ifndef GODWIT_TRANSPORT_MAKE_ROOM_H_
#define GODWIT_TRANSPORT_MAKE_ROOM_H_

#include <absl/strings/match.h>
#include <absl/strings/string_view.h>
#include <arpa/inet.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <string>
#include <tuple>
#include <unordered_map>

#include "base/clock.h"

namespace godwit {

// Who has come no step further for so long has stalled: several round trips of any network.
inline constexpr std::chrono::milliseconds kStalledAfter{500};

// A number for the network that "10.0.0.2:7471" or "[fe80::1]:7471" is in: of an IPv6 address its
// /64, which is what one host can have; but "[::ffff:10.0.0.2]:7471" is a host of IPv4.
inline size_t NetworkOf(absl::string_view peer) {
  std::string host(peer.substr(0, peer.rfind(':')));
  in6_addr address = {};
  constexpr size_t kNetworkBytes = 8;
  if (absl::StartsWith(host, "[") &&
      ::inet_pton(AF_INET6, host.substr(1, host.find_first_of("%]") - 1).c_str(), &address) == 1 &&
      !IN6_IS_ADDR_V4MAPPED(&address)) {
    host.assign(reinterpret_cast<const char*>(&address), kNetworkBytes);
  }
  return std::hash<std::string>()(host);
}

// Of connections, oldest first, the one that makes room: nobody who belongs here while others are
// there; then first those of a network that has more than a quarter of all, so that who floods the
// port pushes out itself; of these first who has stalled, then who has shown least, then the
// oldest. Each has `belongs()`, `network()`, `stepped_at()`, when it last came a step further, and
// `shown()`, the more the better. REQUIRES: begin != end
template <typename Iterator>
Iterator WhoMakesRoom(Iterator begin, Iterator end, Clock::Duration now) {
  constexpr size_t kQuarter = 4;
  std::unordered_map<size_t, size_t> of_network;
  for (auto at = begin; at != end; ++at) {
    if (!at->belongs()) ++of_network[at->network()];
  }
  const auto all = static_cast<size_t>(std::distance(begin, end));
  const auto worth = [&](const auto& connection) {
    const bool floods = !connection.belongs() && of_network[connection.network()] * kQuarter > all;
    const bool stalls = now - connection.stepped_at() > kStalledAfter;
    return std::make_tuple(connection.belongs(), !floods, !stalls, connection.shown());
  };
  Iterator least = begin;
  auto least_worth = worth(*begin);
  for (auto at = std::next(begin); at != end; ++at) {
    const auto its = worth(*at);
    if (!(its < least_worth)) continue;
    least = at;
    least_worth = its;
  }
  return least;
}

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_MAKE_ROOM_H_
