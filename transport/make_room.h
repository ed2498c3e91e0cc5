// Who goes when strangers have taken all places.
#ifndef GODWIT_TRANSPORT_MAKE_ROOM_H_
#define GODWIT_TRANSPORT_MAKE_ROOM_H_

#include <absl/strings/string_view.h>

#include <algorithm>
#include <cstddef>
#include <map>

namespace godwit {

// "10.0.0.2:7471" without its port.
inline absl::string_view HostOf(absl::string_view peer) { return peer.substr(0, peer.rfind(':')); }

// Of connections, oldest first, the one that makes room: of those that have shown least that they
// belong here the oldest of the host that has most of them. So who floods the port pushes out
// itself. Each has `shown()`, the more the better, and `peer()`. REQUIRES: begin != end
template <typename Iterator>
Iterator WhoMakesRoom(Iterator begin, Iterator end) {
  const auto least = std::min_element(begin, end, [](const auto& a, const auto& b) {
                       return a.shown() < b.shown();
                     })->shown();
  std::map<absl::string_view, size_t> count_by_host;
  size_t most = 0;
  for (auto at = begin; at != end; ++at) {
    if (at->shown() == least) most = std::max(most, ++count_by_host[HostOf(at->peer())]);
  }
  return std::find_if(begin, end, [&](const auto& connection) {
    return connection.shown() == least && count_by_host[HostOf(connection.peer())] == most;
  });
}

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_MAKE_ROOM_H_
